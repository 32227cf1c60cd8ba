"""The study of training under every law: its program, its numbers over seeds, its mistakes."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest

from experiments import cli, law_names, study_arms, study_report, variance_study
from experiments.study_arms import Arm, Batches
from experiments.study_tasks import TASKS
from mdmjax import process

pytestmark = pytest.mark.slow

SMALL = dict(
    train__steps=4, train__evaluate_every=2, train__warmup=0, law__refit_every=2, evaluate__rows=8, evaluate__batch=8,
    evaluate__draws=1,
)  # fmt: skip


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(workdir, of, **changes) -> (exit code, standard output, standard error)` in this process."""

    def call(workdir, of="sums", **changes):
        capfd.readouterr()
        fields = {f"--config.{name.replace('__', '.')}={value}" for name, value in (SMALL | changes).items()}
        flags = [f"--config=experiments/configs/variance_{of}.py:quick", f"--workdir={workdir}", *sorted(fields)]
        return programs.run_here(variance_study.main, flags, monkeypatch), *capfd.readouterr()

    return call


def config(task="sums", **changes):
    """A quick config."""
    made = cli.load_config(f"{programs.ROOT}/experiments/configs/variance_{task}.py:quick")
    made.update_from_flattened_dict({k.replace("__", "."): v for k, v in (SMALL | changes).items()})
    return made


def test_arms_are_trained_and_compared(run, tmp_path):
    """A row for each arm; a second call reads what is kept; an arm whose result is gone is trained to the same."""
    arms = dict(of="markov", arms="('base','exact_count+mirror')")
    code, out, errors = run(tmp_path, **arms)
    assert code == 0, errors
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["arm"]: row for row in report["facts"]["arms"]}
    assert set(rows) == {"base", "exact_count+mirror"}
    assert rows["base"]["noise of the gradient norm, base / this"] == "1"
    assert "exact_count+mirror - base: bound" in report["metrics"] and "exact_count: " not in out
    assert len(report["facts"]["last bound by seed"]["base"]) == 4
    kept = json.loads((tmp_path / "arms" / "base" / "result.json").read_text())
    assert kept["step"] == [2, 4] and np.shape(kept["bound"]) == (2, 4) and kept["right"] is None
    assert not (tmp_path / "arms" / "base" / "checkpoints").exists()

    (tmp_path / "arms" / "base" / "result.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        others = lambda arm, *rest: arm_of(arm, *rest) if arm.name == "base" else pytest.fail("trained again")
        arm_of = Arm.train
        patch.setattr(Arm, "train", others)
        assert run(tmp_path, **arms)[0] == 0
    again = json.loads((tmp_path / "arms" / "base" / "result.json").read_text())
    assert again["bound"] == kept["bound"] and again["noise"] == kept["noise"]


def test_answers_are_right_or_wrong(run, tmp_path):
    """Beside an autoregressive model, whose bound is exact; in a workdir that is older than a field."""
    arms = dict(arms="('base','autoregressive')")
    assert run(tmp_path, **arms)[0] == 0
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["arm"]: row for row in report["facts"]["arms"]}
    assert set(rows) == {"base", "autoregressive (exact)"} and "right - base" in rows["autoregressive (exact)"]
    right = json.loads((tmp_path / "arms" / "base" / "result.json").read_text())["right"]
    assert len(right) == 4 and all(0 <= share <= 1 for share in right)
    older = json.loads((tmp_path / "config.json").read_text())
    del older["network"]["name"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    assert run(tmp_path, **arms)[0] == 0


def test_an_arm_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    """Stopped at step 3 and begun again from step 2, it has the numbers of one that was not stopped."""
    made = config("markov", arms=("base", "p_pots+mirror@strata"), train__steps=6, law__refit_every=3)
    arm, said = variance_study.checked(made)[1], []
    monkeypatch.setattr("experiments.cli.log", said.append)

    def trained(name, progress=lambda *_, **__: None):
        result = arm.result(tmp_path / name, arm.train(tmp_path / name, progress))
        return {name: x for name, x in result.items() if name != "seconds"}

    def stop(step, *_, **__):
        if step == 3:
            raise KeyboardInterrupt

    whole = trained("whole")
    with pytest.raises(KeyboardInterrupt):
        trained("cut", stop)
    assert trained("cut") == whole and "resuming from step 2" in said


def test_the_calls_of_fitting_are_counted():
    """A fit of 3 bins, 2 masks and 2 rows every other step of 8 calls; the probe of a loss is a third of a call."""
    changes = dict(arms=("base", "p_pots", "p_pots_gradient+mirror"), law__bins=3)
    base, loss, gradient = variance_study.checked(config(**changes))
    assert base.probe_calls == 0 and loss.probe_calls == pytest.approx(12 / 3 / 16)
    assert gradient.probe_calls == pytest.approx(2 * 12 / 16)


@pytest.mark.parametrize("task", ["sums", "markov"])
def test_the_configs_are_accepted(task):
    """As they are: the other tests change much of them."""
    for variant in ("", ":quick"):
        made = cli.load_config(f"{programs.ROOT}/experiments/configs/variance_{task}.py{variant}")
        assert [arm.name for arm in variance_study.checked(made)] == list(made.arms)


def test_arms_have_the_same_calls_and_rows():
    """Two masks of a row: half as many rows, the first of the same batch; draws of a batch known from its number."""
    made = config(arms=("base", "exact_count+mirror", "complementary"))
    base, mirror, pairs = variance_study.checked(made)
    assert [arm.rows * arm.calls for arm in (base, mirror, pairs)] == [made.train.batch] * 3
    batches = lambda rows: Batches(base.task.source, 3, made.train.batch, rows, seed=5)
    whole, half = next(batches(8)), next(batches(4))
    assert whole["tokens"].shape == (3, 8, 9) and (whole["tokens"][:, :4] == half["tokens"]).all()
    assert (whole["tokens"][0] != whole["tokens"][1]).any()
    other, first = batches(8), batches(8)
    assert (next(first)["tokens"] == whole["tokens"]).all()
    other.set_state(first.get_state())
    again, expected = next(other), next(first)
    assert all((again[name] == expected[name]).all() for name in again) and (again["ids"][0] == range(8, 16)).all()
    assert (again["tokens"] != whole["tokens"]).any()


class Lengths:
    """Row i has as many tokens as `lengths[i]`."""

    lengths = np.random.default_rng(0).integers(1, 100, 500)

    def __len__(self):
        return 500

    def gather(self, rows):
        return {"rows": rows, "tokens": np.arange(128)[None] < self.lengths[rows, None]}


def test_rows_of_about_the_same_length_make_a_batch():
    """One of four parts of the rows drawn, cut off behind the longest; every row is as likely as it was."""
    batches, seen, longest = Batches(Lengths(), 2, 8, 8, seed=0, parts=4), np.zeros(500), []
    for _ in range(400):
        batch = next(batches)
        lengths = Lengths.lengths[batch["rows"]]
        assert batch["tokens"].shape == (2, 8, 32 * -(-lengths.max() // 32))
        assert (batch["tokens"].sum(-1) == lengths).all()
        longest.append(batch["tokens"].shape[2])
        seen += np.bincount(batch["rows"].ravel(), minlength=500)
    assert set(longest) == {32, 64, 96, 128} and np.mean(longest) < 85
    short, long = seen[Lengths.lengths < 50], seen[Lengths.lengths >= 50]
    assert abs(short.mean() / long.mean() - 1) < 0.15


def test_what_is_asked_is_the_answer():
    """Sums: the prompt is visible, and no held-out sum is among those that are learned."""
    made = TASKS["sums"](config().data, 50)
    learned = {tuple(row) for row in made.source.gather(np.arange(len(made.source)))["tokens"]}
    assert len(made.tokens) == 50 and not learned & {tuple(row) for row in made.tokens}
    assert (made.scored == (np.arange(9) >= 6)).all()


def test_rows_of_a_chain():
    """Their transitions are those of one law; they are judged exactly, over all masks: as in all orders of decoding."""
    changes = dict(data__length=4, data__states=3, data__rows=40_000, evaluate__draws=0, arms=("base",))
    (arm,) = variance_study.checked(config("markov", **changes))
    rows = arm.task.source.gather(np.arange(40_000))["tokens"]
    counts = [np.bincount(3 * x + y, minlength=9) for x, y in zip(rows.T[:-1], rows.T[1:], strict=True)]
    p, q, r = (c.reshape(3, 3) / c.reshape(3, 3).sum(1, keepdims=True) for c in counts)
    np.testing.assert_allclose(p, q, atol=0.02)
    np.testing.assert_allclose(p, r, atol=0.02)
    assert abs(p[0] - p[1]).max() > 0.1

    params = jax.jit(jax.vmap(arm.model.init))(jax.random.split(jax.random.key(1), 2))
    params = jax.tree.map(lambda x: x + 0.5 * jax.random.normal(jax.random.key(2), x.shape), params)
    orders = list(itertools.permutations(range(4)))
    visible = np.array([[np.isin(range(4), order[:k]) for k in range(4)] for order in orders])  # [24, 4, L]
    x = arm.task.tokens
    canvas = np.where(visible, x[:, None, None], 3).reshape(-1, 4).astype(np.int32)
    next_one = np.array(orders)

    @jax.jit
    def in_all_orders(params):
        log_p = jax.nn.log_softmax(arm.model.bind(params)(jnp.asarray(canvas))).reshape(len(x), 24, 4, 4, 3)
        log_p = jnp.take_along_axis(log_p, x[:, None, None, :, None], -1)[..., 0]
        return -jnp.take_along_axis(log_p, next_one[None, :, :, None], -1).sum((0, 2, 3)).mean() / x.size

    expected = [in_all_orders(jax.tree.map(lambda leaf: leaf[s], params)) for s in range(2)]
    np.testing.assert_allclose(arm.bounds(params), expected, rtol=1e-5)


def test_plain_gradient_descent():
    """The gradient is clipped, the rate goes down linearly."""
    optimizer, rate = study_arms.sgd(config("markov").train)
    assert rate(0) == 0.5 and rate(2) == 0.25 and rate(4) == 0
    update, _ = optimizer.update({"a": jnp.array([3.0, 4.0])}, optimizer.init({"a": jnp.zeros(2)}))
    np.testing.assert_allclose(update["a"], [-0.3, -0.4], rtol=1e-6)


def test_names_of_laws():
    """Kind, ways and spread; the spread of strata has the number that is given."""
    law = law_names.law_of("p_pots+mirror@systematic", 1e-2, 5)
    assert (law.ways, law.spread, law.density.eps) == (process.mirror, process.systematic, pytest.approx(1e-2))
    assert law_names.law_of("exact_count", 1e-3, 5).spread is process.iid
    assert law_names.law_of("base@strata", 1e-3, 5, strata=3).spread == process.Strata(3)
    isad = law_names.law_of("isad", 1e-3, 5, often=(3,), kinds=law_names.TRAINED)
    assert isad.often == (3,) and isad.likelihood
    assert [law_names.calls_of(n) for n in ("base@strata", "base+mirror", "complementary")] == [1, 2, 2]
    assert [law_names.biased(n) for n in ("clipped@iid", "clipped+mirror", "p_pots+mirror")] == [True, True, False]


def test_numbers_over_seeds():
    """The jackknife of a mean is its usual error; the share of calls is read off the mean curves."""
    x = np.array([1.0, 2.0, 4.0, 7.0])
    assert study_report.jackknife(np.mean, x).standard_error == pytest.approx(x.std(ddof=1) / 2)
    assert study_report.spread(x).mean == pytest.approx(x.std(ddof=1))
    base = np.array([[3.0, 2.0], [3.2, 2.2], [2.8, 1.8]])
    faster = np.array([[2.5, 1.5], [2.6, 1.6], [2.4, 1.4]])
    assert study_report.share_of_calls(faster, base, [5, 10]).mean == pytest.approx(0.75)  # halfway from 2.5 to 1.5
    assert study_report.share_of_calls(base + 1, base, [5, 10]) is None
    assert study_report.share_of_calls(faster - 1, base, [5, 10]).mean == 0.5
    assert math.isclose(study_report.share_of_calls(base, base, [5, 10]).mean, 1)
    barely = base - np.array([[0.0, 0.3], [0.0, -0.1], [0.0, -0.1]])  # better on average, not without the first seed
    barely = study_report.share_of_calls(barely, base, [5, 10])
    assert 0.9 < barely.mean < 1 and math.isnan(barely.standard_error)


@pytest.mark.parametrize(
    "changes, line",
    [
        (dict(seeds=2), "seeds=2: must be at least 3"),
        (dict(arms="('exact_count',)"), "must begin with base"),
        (dict(arms="('base','exat')"), "arms: the law 'exat': its kind='exat': choose one of base"),
        (dict(arms="('base','autoregresive')"), "isad, p_pots, p_pots_gradient, syrm, autoregressive"),
        (dict(arms="('base','autoregressive+mirror')"), "autoregressive has no draws"),
        (dict(arms="('base','base@iid')"), "each named once"),
        (dict(arms="('base','p_pots+@strata')"), "there is nothing after the + or the @"),
        (dict(train__learning_rate=-1.0), "train.learning_rate=-1.0: must be > 0"),
        (dict(train__average=2.0), "train.average=2.0: must be in [0, 1)"),
        (dict(train__batch=0), "train.batch=0: must be at least 1"),
        (dict(arms="('base','base@even')"), "its spread, after the @='even': choose one of iid"),
        (dict(arms="('base','complementary+mirror')"), "complementary has two ways of its own"),
        (dict(arms="('base','base+mirror')", train__batch=7), "train.batch=7: must be even"),
        (dict(task="txt"), "task='txt': choose one of text, sums"),
        (dict(data__rows=10_000), "data.rows=10000: must be in 1..9992"),
        (dict(train__warmup=9), "warmup=9: must be at least 0 and less than train.steps=4"),
        (dict(arms="('base','p_pots')", law__probe_rows=0), "law.probe_rows=0: must be at least 1"),
        (dict(law__eps=1.0), "law.eps=1.0: must be in (0, 1)"),
        (dict(arms="('base','isad')"), "the law 'isad': no token is named that it would hide more often"),
        (dict(of="text", evaluate__draws=0), "evaluate.draws=0: all masks are for rows of at most 10 tokens"),
        (dict(of="markov", arms="('base','autoregressive')"), "network.name='linear': it sees all that is visible"),
        (dict(of="markov", data__states=1), "data.states=1, data.length=8"),
        (dict(of="markov", train__warmup=1), "train.warmup=1: train.optimizer='sgd' has no warm-up; use 0"),
        (dict(train__steps=2), "train.steps=2: must be at least 3"),
        (dict(evaluate__batch=0), "evaluate.batch=0: must be at least 1"),
        (dict(evaluate__rows=-1), "evaluate.rows=-1: must be 0, for all, or at least 2"),
        (dict(train__optimizer="adam"), "train.optimizer='adam': choose one of adamw, sgd"),
        (dict(of="text", arms="('base','syrm')"), "the law 'syrm': there are no prompts here"),
        (dict(arms="('base','syrm')", law__extra=2.0), "MaskedDiffusion(extra=2.0): must be in [0, 1]"),
    ],
)
def test_a_mistake_is_one_line(run, tmp_path, changes, line):
    """It says what is wrong, and leaves nothing behind."""
    code, _, errors = run(tmp_path / "new", **changes)
    assert code == 2 and errors.count("\n") == 1 and line in errors, errors
    assert not (tmp_path / "new" / "config.json").exists()
