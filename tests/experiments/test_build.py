"""What a config's strings and tuples stand for."""

import math

import jax
import ml_collections
import pytest

from experiments import build, cli
from experiments.configs.base import base
from mdmjax import process, sampling, training

LAW = process.Linear()


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("linear", (), process.Linear()),
        ("polynomial", (), process.Polynomial()),
        ("polynomial", (3.0,), process.Polynomial(3.0)),
        ("geometric", (1e-4, 10.0), process.Geometric(1e-4, 10.0)),
        ("tabulated", (0.0, 0.2, 1.0), process.Tabulated((0.0, 0.2, 1.0))),
        ("tabulated", [0.0, 0.2, 1.0], process.Tabulated((0.0, 0.2, 1.0))),  # as config.json keeps it
    ],
)
def test_schedules_take_their_arguments(name, arguments, expected):
    assert build.schedule(ml_collections.ConfigDict(dict(schedule=name, schedule_args=arguments)), "law") == expected


@pytest.mark.parametrize("name, arguments", [("polynomial", ("x",)), ("polynomial", (1.0, 2.0)), ("tabulated", ("x",))])
def test_arguments_that_do_not_fit_are_named(name, arguments):
    with pytest.raises(ValueError, match=r"law\.schedule_args=.* do not fit law\.schedule="):
        build.schedule(ml_collections.ConfigDict(dict(schedule=name, schedule_args=arguments)), "law")


def experiment(**changes):
    config = cli.load_config("experiments/configs/demo_python_docs.py:quick").copy_and_resolve_references()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return build.Experiment(config, vocab=11, length=32)


def test_laws_take_their_fields():
    law = experiment(law__name="continuous", law__schedule="polynomial", law__schedule_args=(3.0,), law__t_min=0.25).law
    assert law == process.Continuous(process.Polynomial(3.0), process.systematic, 0.25)


def test_laws_of_importance_are_held_by_the_state():
    """And are fitted by what the config says; the others take their fields."""
    made = experiment(
        law__name="importance", law__ways="mirror", law__bins=5, law__refit_every=7, law__probe="gradient"
    )
    assert made.law.ways is process.mirror and made.law.density.mass.shape == (5,)
    assert made.refit.gradient and made.step.refit_every == 7 and isinstance(made.objective.law, process.ExactCount)
    assert jax.eval_shape(made.make_state).law.density.mass.shape == (5,)
    strata = experiment(law__name="clipped", law__spread="strata", law__low=0.2, law__high=0.9).law
    assert strata == process.Clipped(0.2, 0.9, process.Strata(math.isqrt(strata_batch())))
    assert experiment(law__name="complementary", law__eps=0.01).law == process.Complementary(0.01)
    assert experiment(law__name="union", law__eps=0.01).law == process.Union(0.01)
    assert experiment(law__ways="copies", law__copies=3).law.ways == process.Copies(3)
    assert experiment().refit is None and experiment().make_state
    capped = experiment(law__name="importance", law__max_weight=1e6)
    assert capped.law.max_weight == 1e6 and jax.eval_shape(capped.make_state).law.max_weight == 1e6
    assert made.law.max_weight is None
    marked = dict(law__name="delimiters", law__often=(0, 7), law__extra=0.3)
    expected = process.Delimiters(1e-3, 0.3, often=(0, 7))
    assert experiment(**marked).law == expected and experiment(**marked).step.objective.law == expected
    assert experiment(**marked, law__delimiters="ht").law.likelihood is False
    for fields, words in (
        (marked | dict(law__often=()), r"law.name='delimiters'.*law.often=\(\)"),
        (marked | dict(law__often=(0, 11)), r"law.often=\(0, 11\).*0\.\.10"),
        (marked | dict(law__often=("a",)), r"law.often=\('a',\)"),
        (marked | dict(law__extra=1.0), "law.name='delimiters'.*extra=1.0"),
        (marked | dict(law__ways="mirror"), "law.ways='mirror'.*leave it single"),
        (marked | dict(law__delimiters="x"), "law.delimiters='x': choose one of ratio, ht"),
        (dict(law__name="importance", law__max_weight=0.5), "law.name='importance'.*max_weight=0.5"),
        (dict(law__name="importance", law__probe_rows=0), "law.probe_rows=0"),
        (dict(law__name="importance", law__probe_masks=-1), "law.probe_masks=-1"),
        (dict(law__name="importance", law__share=0.0), "law.share=0.0"),
        (dict(law__name="importance", law__bins=0), "law.name='importance'.*bins=0"),
        (dict(law__name="clipped", law__low=0.9), "law.name='clipped'.*low=0.9"),
        (dict(law__name="union", law__ways="mirror"), "law.ways='mirror'.*two ways of its own; leave it single"),
        (dict(law__name="complementary", law__eps=0.6), "law.name='complementary'.*eps=0.6"),
        (dict(law__name="continuous", law__t_min=1.0), "law.name='continuous'.*t_min=1.0"),
        (dict(law__name="discrete", law__steps=0), "law.name='discrete'.*steps=0"),
        (dict(law__spread="strata", law__strata=-1), "law.strata=-1"),
        (dict(law__ways="copies", law__copies=0), "law.copies=0"),
        (dict(law__spread="x"), "law.spread='x': choose one of"),
        (dict(law__name="x"), "law.name='x': choose one of"),
        (dict(law__ways="both"), "law.ways='both': choose one of"),
        (dict(law__name="complementary", law__ways="mirror"), "two ways of its own"),
        (dict(law__name="importance", law__eps=2.0), r"eps=2.0: must be in \(0, 1\)"),
        (dict(law__name="importance", law__probe="x"), "law.probe='x'"),
        (dict(law__name="importance", law__refit_every=0), "law.refit_every=0"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong = experiment(**fields)
            wrong.step  # noqa: B018
            jax.eval_shape(wrong.make_state)


@pytest.mark.parametrize("name", ["exact_count", "continuous", "discrete", "importance", "clipped", "complementary"])
def test_a_budget_is_for_sampling(name):
    """One line that names the field, before anything is compiled; and the sampler takes it."""
    with pytest.raises(ValueError, match="law.schedule='budget' is for sampling.*sample.schedule"):
        wrong = experiment(law__name=name, law__schedule="budget", law__schedule_args=(1, 31))
        jax.eval_shape(wrong.make_state)
        wrong.step  # noqa: B018
    right = experiment(sample__planner="ancestral", sample__schedule="budget", sample__schedule_args=(1, 31))
    assert isinstance(right.planner(right.config.sample).schedule, process.OnGrid)


def strata_batch():
    return experiment().config.train.batch


def test_a_sampler_goes_by_the_schedule_of_the_law_or_its_own():
    timed = experiment(network__time=True, law__schedule="cosine", sample__planner="ancestral")
    assert timed.planner(timed.config.sample).schedule == process.Cosine()
    free = experiment(law__schedule="cosine", sample__planner="ancestral", sample__schedule="sine_squared")
    assert free.planner(free.config.sample).schedule == process.SineSquared()


@pytest.mark.parametrize(
    "fields, expected",
    [
        (dict(planner="confidence", score="margin"), sampling.Confidence(LAW, 64, score=sampling.scores.margin)),
        (dict(planner="threshold", threshold=0.7), sampling.Threshold(0.7, LAW)),
        (dict(planner="factor", factor=0.5), sampling.Factor(0.5, LAW)),
        (
            dict(planner="path_planning", eta=2.0, rounding="floor"),
            sampling.PathPlanning(LAW, 64, 2.0, rounding="floor"),
        ),
        (dict(planner="remdm", remask_rate=0.1), sampling.ReMDM(LAW, 64, sampling.Cap(0.1))),
        (
            dict(planner="remdm", remask="confidence", remask_loop=(0.6, 0.1, 0.8)),
            sampling.ReMDM(LAW, 64, sampling.Rescale(0.02), True, sampling.Loop(0.6, 0.1, 0.8)),
        ),
        (dict(planner="predictor_corrector", sweeps=2), sampling.PredictorCorrector(LAW, 64, 2, sampling.Cap(0.02))),
        (dict(planner="informed", redraw=3), sampling.InformedCorrector(sampling.FirstHitting(LAW), 3)),
    ],
    ids=lambda x: x["planner"] if isinstance(x, dict) else "",
)
def test_planners_of_a_config(fields, expected):
    made = experiment(**{f"sample__{name}": value for name, value in fields.items()})
    assert made.planner(made.config.sample) == expected


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(planner="threshold", threshold=2.0), "threshold must be in"),
        (dict(planner="confidence", score="logit"), "sample.score='logit'"),
        (dict(planner="remdm", remask="all"), "sample.remask='all'"),
        (dict(planner="remdm", remask_loop=(0.5, 0.1)), "sample.remask_loop"),
    ],
)
def test_wrong_fields_of_planners_are_named(fields, message):
    made = experiment(**{f"sample__{name}": value for name, value in fields.items()})
    with pytest.raises(ValueError, match=message):
        made.planner(made.config.sample)


def test_ties_of_confidence_are_wider_than_the_rounding():
    for dtype, tie in ("float32", 2**-14), ("bfloat16", 2**-5):
        made = experiment(network__dtype=dtype, sample__planner="confidence")
        assert made.planner(made.config.sample).tie == tie


@pytest.mark.parametrize(
    "changes, capacity",
    [
        (dict(planner="ancestral", steps=16), 3 + 4),
        (dict(planner="random_count", steps=20), 3 + 4),
        (dict(planner="confidence", steps=16), None),
        (dict(planner="confidence", steps=16, capacity=5), 5),
        (dict(planner="ancestral", steps=16, capacity=9), 9),
        (dict(planner="first_hitting", steps=0), 3 + 64),
        (dict(planner="remdm", steps=16), 3 + 4),
        (dict(planner="threshold"), None),
    ],
)
def test_a_sampler_asks_for_few_logits(monkeypatch, changes, capacity):
    given = {}
    monkeypatch.setattr(build.sampling, "jit_sampler", lambda *_, **choices: given.update(choices))
    made = experiment(**{f"sample__{name}": value for name, value in changes.items()})
    made.sampler(made.config.sample)
    assert given["capacity"] == capacity


@pytest.mark.parametrize("weight", [-1.5, float("inf"), float("nan")])
def test_a_weight_of_guidance_that_will_not_do(weight):
    made = experiment(sample__guidance=weight)
    with pytest.raises(ValueError, match=r"sample.guidance=.*: must be finite, at least -1"):
        made.sampler(made.config.sample)


def test_uses_of_a_seed_have_keys_of_their_own():
    root = jax.random.key(0)
    uses = [build.key(0, use) for use in (training.EVALUATION, training.SAMPLING)]
    keys = [root, *jax.random.split(root), experiment().make_state().key, *uses]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys) - 1  # one part is the state's


def test_a_table_given_at_evaluation_is_read_as_the_table_of_training(tmp_path):
    """With its header, in whole rows, in the tokens that the model was trained with."""
    train, other = tmp_path / "train.csv", tmp_path / "other.csv"
    train.write_text("size,kind\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(60)))
    other.write_text("size,kind\n7,b\n59,a\n")
    config = base()
    config.data.source, config.data.path = "table", str(train)
    trained = build.corpus(config)
    corpus = build.corpus(config, trained.vocabulary, str(other))
    assert corpus.vocabulary == trained.vocabulary and list(corpus.splits) == ["text"]
    assert corpus.splits["text"].shape == (2, 2)
    config.data.path = str(other)  # the file of the config may change too
    assert build.corpus(config, trained.vocabulary).vocabulary == trained.vocabulary
