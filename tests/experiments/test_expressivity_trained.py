"""Trained models of word problems: what they are given is a part of a larger circuit, and what is measured is right."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import studies
from experiments.configs.base_expressivity_trained import trained as fields
from experiments.expressivity_arms import ARMS, Arm, arms_of
from experiments.expressivity_places import (
    Source,
    Words,
    chain_numbers,
    codes,
    elements,
    parts_of,
    tree_numbers,
    words,
)
from experiments.expressivity_trained import reached, trained
from mdmjax import expressivity


def config(**changes):
    c = ConfigDict(dict(seed=0, study="trained", trained=fields()))
    own = dict(
        seeds=2, tasks=("parity",), parity__length=4, parity__mix=(2, 4), parity__lengths=(4, 6), parity__width=16,
        parity__steps=4, s3__length=5, s3__mix=(3, 5), s3__lengths=(5,), s3__width=16, evaluate__rows=32,
        parity__batch=32, s3__batch=8, evaluate__chain=2, evaluate__watched=16, evaluate__batch=16,
        train__evaluate_every=2, train__warmup=1,
    )  # fmt: skip
    changes = {f"trained.{name.replace('__', '.')}": value for name, value in (own | changes).items()}
    c.update_from_flattened_dict(changes)
    return c


def arm(kind, task="s3"):
    c = config().trained
    c.seed = 0
    return arms_of(c, task, [kind])[0]


@functools.cache
def task(name):
    return elements(expressivity.monoid_task(dict(s3=expressivity.s3, a5=expressivity.a5)[name]()))


@pytest.mark.parametrize("length", [2, 5, 8, 13])
@pytest.mark.parametrize("longest", [16, 27])
def test_numbers_are_those_of_a_larger_circuit(length, longest):
    """Operands of each cell of each part, and all numbers of the larger circuit that a power of 2 has room for."""
    circuit, parts = expressivity.tree(task("s3"), length), parts_of(length, longest)
    made, cells = tree_numbers(circuit, parts), circuit.step > 0
    np.testing.assert_array_equal(made[:, circuit.left][:, cells], 2 * made[:, cells])
    np.testing.assert_array_equal(made[:, circuit.right][:, cells], 2 * made[:, cells] + 1)
    np.testing.assert_array_equal(made[0], circuit.ids)
    power = 1 << (longest - 1).bit_length()
    if length & (length - 1) == 0:
        assert set(range(1, 4 * power)) == set(made.ravel())
    assert made.max() < 4 * power
    chain = expressivity.chain_of_thought(task("s3"), length)
    made, cells = chain_numbers(chain, parts, 2 * longest), chain.step > 0
    np.testing.assert_array_equal(made[:, chain.left][:, cells], made[:, cells] - 2)
    np.testing.assert_array_equal(made[:, chain.right][:, cells], made[:, cells] - 1)
    assert all(len(set(part)) == chain.length for part in made) and len(made) == parts
    assert made.min() == 1 and made.max() == 4 * longest + 1  # the start of a chain, and the end of the longest


def test_codes_are_the_bits():
    """Read back they are the numbers; a causal network is told the number of the token that it is given."""
    circuit, bits = expressivity.tree(task("s3"), 5), 6
    numbers = tree_numbers(circuit, 3)
    read = lambda code: ((code > 0) * 2 ** np.arange(bits)).sum(-1)
    own, left, right = (read(x) for x in np.split(codes(circuit, numbers, bits, False), 3, -1))
    np.testing.assert_array_equal(own, numbers)
    np.testing.assert_array_equal(left, numbers[:, circuit.left])
    np.testing.assert_array_equal(right, numbers[:, circuit.right])
    chain = expressivity.chain_of_thought(task("s3"), 5)
    numbers = chain_numbers(chain, 3, 10)
    causal = read(np.split(codes(chain, numbers, bits, True), 3, -1)[0])
    assert (causal[:, 0] == 0).all() and (causal[:, 1:] == numbers[:, :-1]).all()
    # the cell before a state holds the state before it, or the start
    np.testing.assert_array_equal(causal[:, 6:], numbers[:, chain.left[6:]])


@pytest.mark.parametrize("name", ["s3", "a5"])
def test_a_chain_ends_with_the_root_of_the_tree(name):
    word = words(np.random.default_rng(0), 2, 40, 7, 1.0)
    tree, chain = expressivity.tree(task(name), 7), expressivity.chain_of_thought(task(name), 7)
    root = expressivity.read(tree, expressivity.evaluate(tree, word).tokens)[:, 0]
    states = expressivity.read(chain, expressivity.evaluate(chain, word).tokens)
    np.testing.assert_array_equal(states[:, -1], root)
    assert len(set(root.tolist())) > 3  # so that a wrong order of the factors is seen


def test_words():
    """Shares are of Dirichlet laws: their means and variances, with p almost 0 and p ~ U(0, 2); even ones near 1/3."""
    shares = words(np.random.default_rng(0), 2, 4000, 64, 1e-9).mean(1)
    counts = np.histogram(shares, 4, (0, 1))[0]
    assert np.abs(counts - 1000).max() < 150  # 1000 each, with a standard deviation of 27; the ends are shared unevenly
    p = np.linspace(0, 2, 1001)[None]
    alpha = (1.0 + np.arange(5))[:, None] ** -p
    mean, total = alpha / alpha.sum(0), alpha.sum(0)
    found = words(np.random.default_rng(0), 5, 20_000, 8, 2.0)
    for a in range(5):
        assert abs((found == a).mean() - mean[a].mean()) < 0.01  # a standard deviation of at most 0.003
        # two symbols of one word are both a with probability E[share^2]
        pairs = mean[a] * (alpha[a] + 1) / (total + 1)
        assert abs(((found[:, 0] == a) & (found[:, 1] == a)).mean() - pairs.mean()) < 0.015
    even = words(np.random.default_rng(0), 3, 4000, 64, 0.0)
    assert set(even.ravel()) == {0, 1, 2} and 0.05 < (even == 0).mean(1).std() < 0.07  # sqrt(2/9/64) = 0.059


def test_batches_are_known_from_their_number():
    """A run that is resumed sees the batches that it would have seen; no seed and no batch sees another's words."""
    source = Source(lambda rng: words(rng, 2, 16, 8, 1.0), np.ones(8, bool), 3)
    make = lambda: Words(lambda n: source, 2, 0)
    whole, resumed = make(), make()
    first, second = next(whole), next(whole)
    resumed.set_state({"next_batch": 1})
    for name, value in next(resumed).items():
        np.testing.assert_array_equal(value, second[name])
    assert (first["tokens"][0] != first["tokens"][1]).any() and (first["tokens"] != second["tokens"]).any()
    assert first["ids"].max() + 1 == second["ids"].min() and resumed.get_state() == whole.get_state()
    assert len({int(next(whole)["part"][0]) for _ in range(20)}) == 3


class Exact:
    """A model without parameters that knows the circuit: certain where both operands are known."""

    def __init__(self, circuit):
        self.predictor = expressivity.Predictor(circuit)

    def bind(self, params):
        return self.predictor


@pytest.mark.parametrize("kind", ["log_steps", "one_step", "chain_of_thought"])
def test_what_the_exact_denoiser_has_right(kind):
    """All in log N steps and along the chain; in one step the lowest level, and guesses of token 0 above."""
    made = arm(kind)
    circuit, planner = made.trained.circuit, made.trained.planner
    word = words(np.random.default_rng(1), 2, 16, 5, 0.0)
    final = made.solve(5, word)
    scored = np.tile(circuit.step > 0, (16, 1))
    found = studies.decoded(Exact(circuit), planner, circuit.vocab, {"none": np.zeros(1)}, final, scored)[0]
    if kind == "one_step":
        expected = np.where(circuit.step > 1, 0, final)
        assert (expected != final).any()
    else:
        expected = final
    np.testing.assert_array_equal(found, expected)


def test_a_part_is_another_place_of_the_same_network():
    """The network of a part is the transformer with the vectors of that part's codes; parameters fit any length."""
    sized = arm("log_steps").trained
    params = sized.model.init(jax.random.key(0))
    tokens = jnp.full((2, sized.circuit.length), sized.circuit.vocab)
    others = []
    for part in range(3):
        table = sized.model.codes[part] @ np.asarray(params["places"]["kernel"])
        alone = sized.model.model.bind(params | {"places": {"embedding": table}})(tokens)
        # XLA adds the products of the codes in another order than NumPy: some ulps of logits that are below 1
        np.testing.assert_allclose(sized.model.bind(params, part)(tokens), alone, atol=1e-6)
        others.append(np.asarray(alone))
    assert np.abs(others[0] - others[1]).max() > 1e-4 < np.abs(others[1] - others[2]).max()
    for other in (3, 10):
        model = arm("log_steps").sized(other).model
        assert jax.tree.map(np.shape, model.init(jax.random.key(0))) == jax.tree.map(np.shape, params)


def test_sizes_and_rows():
    """All arms of a task have as many blocks and places; a cell of looped is read after as many loops as its level."""
    c = config().trained
    c.seed = 0
    made = arms_of(c, "s3", ARMS)
    shapes = [jax.tree.map(np.shape, m.trained.model.init(jax.random.key(0))) for m in made]
    assert all(s["blocks"] == shapes[0]["blocks"] and s["places"] == shapes[0]["places"] for s in shapes)
    networks = {m.kind: m.trained.model.model.config for m in made}
    assert {kind: (c.loops, c.exits, c.causal) for kind, c in networks.items()} == dict(
        log_steps=(1, None, False), one_step=(1, None, False), looped_answer=(3, None, False),
        chain_of_thought=(1, None, True), looped=(3, (*[1] * 5, 3, 2, 1, 1), False),
    )  # fmt: skip
    scored = {m.kind: int(m.source(5).eligible.sum()) for m in made}
    assert scored == dict(log_steps=4, one_step=4, looped=4, looped_answer=1, chain_of_thought=5)


def test_what_each_arm_learns():
    """Cells that a loss hides and scores: the later ones and one step of them, or all at once; a chain hides none."""
    made = {kind: arm(kind) for kind in ("log_steps", "one_step", "looped", "looped_answer")}
    circuit = made["log_steps"].trained.circuit
    for kind, one in made.items():
        law = one.objective(circuit).law
        draws = law.draw(jax.random.key(0), jnp.arange(8), jnp.ones((8, circuit.length), bool), batch=8)
        hidden = {tuple(row) for row in np.asarray(draws.masks).tolist()}
        assert len(hidden) == (3 if kind == "log_steps" else 1)


def test_the_answer_of_a_chain_is_its_last_state(monkeypatch):
    """A model that is wrong at the last state alone has no answer right, one that is wrong at the first all of them."""
    made = arm("chain_of_thought")
    circuit = made.trained.circuit
    for wrong, expected in ((circuit.readout[-1], 0.0), (circuit.readout[0], 1.0)):
        tampered = lambda m, p, v, params, final, scored, at=wrong: np.stack(
            [np.where(np.arange(final.shape[1]) == at, (final + 1) % v, final)] * 2
        )
        monkeypatch.setattr(studies, "decoded", tampered)
        answers, cells = made.accuracy(None, 5, 16)
        np.testing.assert_array_equal(answers, [expected] * 2)
        np.testing.assert_allclose(cells, 0.8)


def test_words_of_a_test_are_none_of_training():
    """Not of the same generator, whatever the length, the seed and the batch."""
    made = arm("log_steps")
    made.config.train.uneven = 0.0
    seen = [tuple(row) for n in range(3) for s in range(2) for row in
            words(np.random.default_rng([0, s, n]), 2, 8, 5, 0.0).tolist()]  # fmt: skip
    assert [tuple(row) for row in made.test_words(5, 48).tolist()] != seen
    assert (made.test_words(5, 8) == made.test_words(5, 8)).all()


def test_all_elements_as_symbols():
    """The same products under the same numbers, and the symbol of each element is its own number."""
    few, every = task("a5"), elements(expressivity.monoid_task(expressivity.a5()), every=True)
    np.testing.assert_array_equal(every.mul, few.mul)
    np.testing.assert_array_equal(every.label, np.arange(60))


def test_some_arms_do_without_muon():
    c = config(s3__muon=0.5).trained
    c.seed = 0
    rates = {kind: arms_of(c, "s3", [kind])[0].config.train.muon for kind in ARMS}
    assert rates == dict(log_steps=0.5, one_step=0.5, looped=0.0, looped_answer=0.0, chain_of_thought=0.0)


def test_lengths_come_by_turns():
    batches = arm("log_steps").batches
    assert [next(batches)["tokens"].shape[2] for _ in range(3)] == [5, 9, 5]
    fixed = config(s3__parts=False).trained
    fixed.seed = 0
    batches = arms_of(fixed, "s3", ["log_steps"])[0].batches
    assert not any(next(batches)["part"].any() for _ in range(8))


def test_what_is_found(tmp_path):
    """A word of two symbols is learned in one step; what is done is not done again."""
    flags = dict(seeds=1, arms=("log_steps",), parity__length=2, parity__lengths=(2, 3), parity__steps=150,
                 parity__mix=(2,),
                 parity__learning_rate=1e-2, train__evaluate_every=50, target=0.9)  # fmt: skip
    found = trained(config(**flags), tmp_path)
    assert [e.mean for e in found.metrics.values()] == [100.0] and found.baselines["parity: chance"].mean == 50
    row = found.tables["trained models"][0]
    assert row["arm"] == "log_steps" and row["calls"] == 1 and row["seeds at 90 %"] == "1 of 1"
    assert list(found.tables["parity, answers right by length"][0]) == ["arm", "words", "N=2", "N=3"]
    assert list(found.curves["parity, log_steps, by step"].x) == [50, 100, 150]
    before = json.loads((tmp_path / "arms" / "parity_log_steps" / "result.json").read_text())
    assert before["elements"] == 2 and before["lengths"]["2"]["cells"] == [1.0]
    assert trained(config(**flags), tmp_path).metrics == found.metrics


def test_steps_to_the_target():
    result = {"step": [10, 20, 30], "right": [[0.5, 1.0], [0.99, 0.9], [1.0, 1.0]]}
    c = ConfigDict(dict(target=0.99))
    assert reached(c, result) == ("2 of 2", 15.0)
    assert reached(c, result | {"right": [[0.5, 1.0]] * 3}) == ("1 of 2", None)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (dict(tasks=("parity", "parity")), "trained.tasks"),
        (dict(tasks=("s4",)), "trained.tasks='s4'"),
        (dict(arms=("two_steps",)), "trained.arms='two_steps'"),
        (dict(parity__length=1), "trained.parity.length=1"),
        (dict(parity__lengths=(6,)), "must have length=4"),
        (dict(parity__steps=1), "trained.parity.steps=1: must be more than trained.train.warmup=1"),
        (dict(parity__lengths=(4, 4)), "trained.parity.lengths"),
        (dict(parity__mix=(2, 4.0)), "trained.parity.mix"),
        (dict(parity__lengths=(4, 100_000)), "2 to 1024 symbols"),
        (dict(parity__learning_rate=-1.0), "trained.parity.learning_rate=-1.0"),
        (dict(parity__muon=-1.0), "muon=-1.0"),
        (dict(train__log_every=0), "trained.train.log_every=0"),
        (dict(train__uneven=-1.0), "trained.train.uneven=-1.0"),
        (dict(seeds=0), "trained.seeds=0"),
        (dict(adamw=("none",)), "trained.adamw='none'"),
        (dict(parity__width=15), "trained.parity: width=15"),
        (dict(parity__mix=(2, 5)), "its longest must be length=4"),
        (dict(target=0.0), "trained.target=0.0"),
        (dict(train__clip=0.0), "trained.train.clip=0.0"),
        (dict(parity__heads=3), "width=16"),
    ],
)
def test_what_will_not_do_is_named(wrong, named, tmp_path):
    with pytest.raises(ValueError, match=named):
        trained(config(**wrong), tmp_path)
    assert not list(tmp_path.iterdir())


def test_arms_have_names():
    assert isinstance(arm("looped"), Arm) and arm("looped").name == "s3_looped"
