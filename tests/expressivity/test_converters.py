"""Looped transformers and masked diffusion models as each other, integer for integer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from words import random_words

from mdmjax.expressivity import (
    AtSteps,
    FixedPoint,
    GumbelMax,
    Headed,
    Looped,
    LoopedAsDenoiser,
    accounting,
    engine_noise,
    mdm_as_looped,
    padded,
    trace_counts,
    with_head,
)
from mdmjax.networks import PaddedLoopedConfig, padded_looped
from mdmjax.sampling import TokenDraw, sample

KEY = jax.random.key(0)
N, P, V = 5, 3, 3  # input, padding, symbols


# ---- fixed point


def test_fixed_point_is_exact():
    """Every code comes back; numbers go to the nearest, halves to the even code, and beyond the ends to the ends."""
    point = FixedPoint(4, 1)
    codes = jnp.arange(-8, 8)
    np.testing.assert_array_equal(point.encode(point.decode(codes)), codes)
    x = jnp.array([0.25, 0.75, -0.25, 1.24, 100.0, -100.0, 3.5])
    np.testing.assert_array_equal(point.encode(x), [0, 2, 0, 2, 7, -8, 7])
    np.testing.assert_allclose(point.distance(x), [0, 0, 0, 0.01, 96.75, 96.25, 0.25], atol=1e-6)
    np.testing.assert_array_equal(point.round_all({"a": x})["a"], point.decode(point.encode(x)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_narrow_floats_have_codes_in_range(dtype):
    """511 is no number of bfloat16, nor 32767 of float16: rounded there, the highest code would be one too many."""
    for bits, fraction in ((10, 4), (16, 0), (16, 15)):
        point, x = FixedPoint(bits, fraction), jnp.array([-6e4, -1.0, 0.0, 1.0, 6e4], dtype)
        exact = np.clip(np.array([-6e4, -1, 0, 1, 6e4]) * 2.0**fraction, point.low, -point.low - 1).astype(int)
        codes = point.encode(x)
        np.testing.assert_array_equal(codes[1:4], exact[1:4])
        assert codes.min() == point.low and codes.max() == -point.low - 1
        np.testing.assert_array_equal(point.round(x), np.asarray(codes) / 2.0**fraction)
        assert point.distance(x)[2] == 0.5 / 2.0**fraction


@pytest.mark.parametrize("bits, fraction", [(1, 0), (0, 0), (17, 3), (2.5, 1), (4, -1), (4, 0.5)])
def test_fixed_point_refuses(bits, fraction):
    with pytest.raises(ValueError, match="fraction=" if bits == 4 else "bits="):
        FixedPoint(bits, fraction)


# ---- a looped transformer as an MDM


@functools.cache
def network(width):
    return padded_looped(PaddedLoopedConfig(vocab=V, length=N + P, width=width))


@functools.cache
def initializer(width):
    return jax.jit(network(width).init)


def initial(width, seed=0):
    return initializer(width)(jax.random.key(seed))


@functools.partial(jax.jit, static_argnames=("width", "point", "steps", "write_once"))
def both_ways(params, words, noise, width, point, steps, write_once=False):
    """(codes of the looped run, the engine's run, the numbers before the last rounding)."""
    looped = Looped.of(network(width).bind(point.round_all(params)), point)
    codes = looped.run(padded(words, P, V), steps, noise)
    mdm = LoopedAsDenoiser(looped, N, P, width, V, steps, noise, write_once)
    how = dict(vocab=mdm.vocab, key=KEY, draw=TokenDraw(0.0), trace=True)
    out = sample(mdm, mdm.planner, mdm.canvas(words), **how)
    last = looped.before_rounding(codes[-2], None if noise is None else noise[-1])
    return codes, out, point.distance(last)


def blank_looped(width, point):
    return Looped(lambda rows: jnp.zeros((*rows.shape, width)), None, point)


def check(codes, out, distance, width, point, steps, write_once=False):
    mdm = LoopedAsDenoiser(blank_looped(width, point), N, P, width, V, steps, None, write_once)
    for s in range(1, steps + 1):
        found = mdm.codes(out.trace.tokens[s], s - 1 if write_once else 0)
        differ = np.asarray(found != codes[s])
        assert not differ.any(), f"step {s}: {differ.sum()} codes, {np.asarray(distance)[differ]} from a boundary"
    cost = accounting.looped_to_write_once if write_once else accounting.looped_to_mdm
    counts = trace_counts(out.trace, mdm.vocab)
    assert counts[:2] == cost(steps, P, N, width) and bool(out.finished.all())
    assert counts.resamples == (0 if write_once else (steps - 1) * mdm.layer)


@pytest.mark.parametrize("steps, write_once", [(1, False), (2, False), (5, False), (9, False), (1, True), (5, True)])
def test_a_looped_transformer_is_an_mdm(steps, write_once):
    """30 words each. End states differ, or nothing would have been compared."""
    point, words = FixedPoint(6, 3), jnp.asarray(random_words(30, N, V))
    run = both_ways(initial(8), words, None, 8, point, steps, write_once)
    check(*run, 8, point, steps, write_once)
    assert len(np.unique(np.asarray(run[0][-1]).reshape(30, -1), axis=0)) > 1


def test_written_once_each_step_has_its_own_noise():
    point, steps, words = FixedPoint(6, 3), 3, jnp.asarray(random_words(10, N, V))
    noise = jax.random.normal(KEY, (steps, 10, N + P, 8))
    run = both_ways(initial(8), words, noise, 8, point, steps, True)
    check(*run, 8, point, steps, True)
    other = both_ways(initial(8), words, jnp.tile(noise[:1], (steps, 1, 1, 1)), 8, point, steps, True)
    assert (run[0][1] == other[0][1]).all() and (run[0][2] != other[0][2]).any((1, 2)).all()


def test_a_thousand_looped_transformers_are_mdms():
    """40 networks on 25 words each, with noise: other states than without, and cells that are written anew change."""
    point, steps, changed = FixedPoint(6, 3), 4, 0
    for k in range(40):
        words = jnp.asarray(random_words(25, N, V, seed=k))
        noise = 0.5 * jax.random.normal(jax.random.key(k), (steps, 25, N + P, 8))
        run = both_ways(initial(8, k), words, noise, 8, point, steps)
        check(*run, 8, point, steps)
        states = np.asarray(run[1].trace.tokens)[1:, :, N:]
        changed += ((states[1:] != states[:-1]).any((0, 2))).sum()
        plain = both_ways(initial(8, k), words, jnp.zeros_like(noise), 8, point, steps)
        assert (plain[0] != run[0]).any()
    assert changed == 1000


@pytest.mark.parametrize("bits, width", [(4, 4), (6, 16), (8, 4)])
def test_of_other_precisions_and_widths(bits, width):
    point, words = FixedPoint(bits, bits // 2), jnp.asarray(random_words(30, N, V))
    run = both_ways(initial(width), words, None, width, point, 3)
    check(*run, width, point, 3)
    assert len(np.unique(np.asarray(run[0][-1]).reshape(30, -1), axis=0)) > 1


def test_rounding_decides_what_a_looped_transformer_computes():
    """Else equality of codes would say nothing about rounding: fewer bits give other states."""
    words = jnp.asarray(random_words(30, N, V))
    ends = [
        Looped.of(network(8).bind(initial(8)), p).run(padded(words, P, V), 5)
        for p in (FixedPoint(6, 3), FixedPoint(8, 5))
    ]
    a, b = (np.asarray(p.decode(e[-1])) for p, e in zip((FixedPoint(6, 3), FixedPoint(8, 5)), ends, strict=True))
    assert (np.abs(a - b) > 1 / 4).any()


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("noisy", [False, True])
def test_one_loop_by_the_definition(noisy):
    """In NumPy, of float64 on both sides: bidirectional attention, q, residual, perceptron, residual, noise once, q.

    Numbers before the last rounding agree to 1e-9, so codes do wherever none is that close to a boundary.
    """
    point, words = FixedPoint(8, 4), jnp.asarray(random_words(6, N, V))
    q = lambda x: np.clip(np.rint(x * 16), -128, 127) / 16
    params = jax.tree.map(lambda x: point.round(x.astype(jnp.float64)), initial(8))
    noise = 3 * jax.random.normal(KEY, (6, N + P, 8)) if noisy else None
    looped = Looped.of(network(8).bind(params), point)
    codes = looped.first(padded(words, P, V))
    kernel, bias = (lambda name, part=part: np.asarray(params[name][part]) for part in ("kernel", "bias"))
    vectors = lambda name: np.asarray(params[name]["embedding"])
    x = np.asarray(codes) / 16
    np.testing.assert_array_equal(x, q(vectors("tokens")[np.asarray(padded(words, P, V))] + vectors("places")))
    heads = [(x @ kernel(name)).reshape(6, N + P, 2, 4).transpose(0, 2, 1, 3) for name in ("query", "key", "value")]
    seen = softmax(heads[0] @ heads[1].transpose(0, 1, 3, 2) / 2) @ heads[2]
    x = x + q(seen.transpose(0, 2, 1, 3).reshape(x.shape) @ kernel("out"))
    x = x + np.maximum(x @ kernel("up") + bias("up"), 0) @ kernel("down") + bias("down")
    x = x + (0 if noise is None else np.asarray(noise))
    np.testing.assert_allclose(looped.before_rounding(codes, noise), x, atol=1e-9)
    assert point.distance(jnp.asarray(x)).min() > 1e-9
    np.testing.assert_array_equal(point.decode(looped.step(codes, noise)), q(x))


def test_the_network_is_a_denoiser_too():
    config = PaddedLoopedConfig(vocab=V, length=N + P, width=8, loops=3)
    model = padded_looped(config)
    bound, rows = model.bind(model.init(KEY)), padded(jnp.asarray(random_words(4, N, V)), P, V)
    x = bound.embed(rows)
    for _ in range(3):
        x = bound.block(x, lambda y: y)
    np.testing.assert_allclose(bound(rows), bound.readout(x), atol=1e-5)  # about 10 sums of 8 numbers of size 10
    last = jnp.full((4, 1), N + P - 1)
    np.testing.assert_allclose(bound(rows, at=last)[:, 0], bound.readout(x)[:, -1], atol=1e-5)


# ---- an MDM as a looped transformer

ROWS, CELLS, TOKENS, GIVEN = 1000, 6, 4, 2


def random_mdm(key, rows=ROWS):
    """A network of its own for each row: two layers on the one-hot tokens, with the planner as its head."""
    k1, k2, k3 = jax.random.split(key, 3)
    size, hidden = CELLS * (TOKENS + 1), 16
    first = jax.random.normal(k1, (rows, size, hidden))
    second = 2 * jax.random.normal(k2, (rows, hidden, CELLS * TOKENS))
    third = jax.random.normal(k3, (rows, hidden, CELLS))

    def denoiser(tokens, t=None, *, at=None):
        x = jax.nn.one_hot(tokens, TOKENS + 1).reshape(len(tokens), -1)
        h = jnp.tanh(jnp.einsum("bi,bih->bh", x, first))
        logits = jnp.einsum("bh,bho->bo", h, second).reshape(len(tokens), CELLS, TOKENS)
        logits = with_head(logits, jnp.einsum("bh,bhl->bl", h, third))
        return logits if at is None else jnp.take_along_axis(logits, at[:, :, None], 1)

    return denoiser


@pytest.mark.parametrize("stochastic", [False, True])
def test_a_thousand_mdms_are_looped_transformers(stochastic):
    """Their planners resample: most trajectories change a token that stands there."""
    steps, denoiser = 6, random_mdm(jax.random.key(1))
    tokens = np.full((ROWS, CELLS), TOKENS)
    tokens[:, :GIVEN] = random_words(ROWS, GIVEN, TOKENS)
    tokens = jnp.asarray(tokens, jnp.int32)
    draw = GumbelMax() if stochastic else TokenDraw(0.0)
    noise = engine_noise(KEY, jnp.arange(ROWS), steps, CELLS, TOKENS) if stochastic else None
    how = dict(vocab=TOKENS, key=KEY, draw=draw, trace=True)
    out = jax.jit(lambda x: sample(denoiser, Headed(steps, resample=True), x, **how))(tokens)
    select = lambda x: denoiser(x).mean(-1) > 0
    looped = mdm_as_looped(denoiser, select, tokens != TOKENS, TOKENS)
    states = jax.jit(lambda x: looped.run(x, steps, noise))(tokens)
    assert states.shape[-1] == TOKENS + 1 and bool((states.sum(-1) == 1).all())
    np.testing.assert_array_equal(states.argmax(-1), out.trace.tokens)
    assert accounting.mdm_to_looped(steps, CELLS - GIVEN) == (int(out.calls), states.shape[2] - GIVEN)
    seen = np.asarray(out.trace.tokens)
    changed = (seen[1:] != seen[:-1]) & (seen[:-1] != TOKENS)
    assert changed.any((0, 2)).mean() > 0.5 and not changed[:, :, :GIVEN].any()
    kept = (seen[1:] == seen[:-1])[:, :, GIVEN:]
    assert 0.1 < kept.mean() < 0.9  # the planner selects some cells and others not


def test_gumbel_noise_samples_exactly():
    """The frequencies of 20,000 draws: within 4 standard errors of softmax(logits)."""
    logits = jnp.array([0.0, 1.0, -1.0, 0.5])
    token, p = jax.vmap(lambda k: GumbelMax()(k, logits))(jax.random.split(KEY, 20_000))
    law = np.asarray(jax.nn.softmax(logits))
    found = np.bincount(token, minlength=4) / 20_000
    assert (np.abs(found - law) < 4 * np.sqrt(law * (1 - law) / 20_000)).all()
    np.testing.assert_allclose(p, law[token], rtol=1e-6)


# ---- integers


def test_corollary_as_integers():
    for steps in range(1, 51):
        for length in range(1, 51):
            for layers in range(1, 5):
                sizes = accounting.chain_of_corollary(steps, length, layers)
                assert list(sizes) == sorted(sizes)
                square = steps + (length + steps) ** 2
                assert sizes[2:4] == (square, layers * steps * (length + square))
                assert sizes[4] == layers * steps * (length + steps + 1) ** 2


def test_refusals():
    point = FixedPoint(2, 0)
    with pytest.raises(ValueError, match="5 symbols: bits=2 leave tokens for 4"):
        LoopedAsDenoiser(Looped(None, None, point), N, P, 8, 5, 2)
    looped = Looped.of(network(8).bind(initial(8)), FixedPoint(6, 3))
    rows = padded(jnp.zeros((2, N), jnp.int32), P, V)
    with pytest.raises(ValueError, match="steps=-1"):
        looped.run(rows, -1)
    with pytest.raises(ValueError, match="noise for 3 loops"):
        looped.run(rows, 2, jnp.zeros((3, 2, N + P, 8)))
    with pytest.raises(ValueError, match="padding=-1"):
        padded(rows, -1, V)
    with pytest.raises(ValueError, match="1 has no code"):
        mdm_as_looped(random_mdm(KEY, 2), lambda x: x < 0, rows < 0, V, FixedPoint(2, 1))
    mdm, word = LoopedAsDenoiser(looped, N, P, 8, V, 2, jnp.zeros((2, 1, N + P, 8))), jnp.zeros((1, N), jnp.int32)
    with pytest.raises(ValueError, match="t=None"):
        mdm(mdm.canvas(word))
    with pytest.raises(ValueError, match="noise for 1 rows: the canvas has 3"):
        mdm(mdm.canvas(jnp.zeros((3, N), jnp.int32)), jnp.ones(3))
    with pytest.raises(ValueError, match="rows of 68 cells: the canvas has 69"):
        mdm(mdm.canvas(word)[:, 1:], jnp.ones(1))
    with pytest.raises(ValueError, match="words of 4 symbols: this network is for inputs=5"):
        mdm.canvas(word[:, 1:])
    for token in (V, 64, -1):
        with pytest.raises(ValueError, match=rf"words\[0, 2\] = {token}: a symbol must be in 0..2"):
            mdm.canvas(word.at[0, 2].set(token))
    sizes = dict(inputs=N, padding=P, width=8, blank=V, steps=2)
    for change, says in (
        (dict(width=7), "width=7: the looped network has 8 numbers a cell"),
        (dict(inputs=N + 1), "inputs=6, padding=3: rows of 9 cells; this network was made for length=8"),
        (dict(inputs=0), "inputs=0: must be at least 1"),
        (dict(padding=-1), "padding=-1: must be at least 0"),
        (dict(steps=-1), "steps=-1: must be at least 0"),
        (dict(blank=0), "blank=0: must be at least 1"),
        (dict(noise=jnp.zeros((3, 1, N + P, 8))), r"noise \[3, 1, 8, 8\]: must be .* steps = 2"),
        (dict(noise=jnp.zeros(2)), r"noise \[2\]: must be \[T, B, ...\]"),
    ):
        with pytest.raises(ValueError, match=says):
            LoopedAsDenoiser(looped, **(sizes | change))
    with pytest.raises(ValueError, match="multiple of heads"):
        PaddedLoopedConfig(vocab=2, length=3, width=5)
    with pytest.raises(ValueError, match="length=8"):
        looped.run(rows[:, 1:], 1)
    for call in (accounting.tree, accounting.chain_of_thought, accounting.two_sweep):
        with pytest.raises(ValueError, match="length=0: must be at least 1"):
            call(0)
        with pytest.raises(ValueError, match="length=8.0: must be an integer"):
            call(8.0)
        assert call(np.int64(8)) == call(8) and all(type(n) is int for n in call(np.int32(8)))
    with pytest.raises(ValueError, match="padding=-1: must be at least 0"):
        accounting.looped_to_mdm(1, -1, 2, 2)
    big = np.int32(2**30)  # would overflow as such
    assert (
        accounting.mdm_to_parallel_chain(big, big, big, 4).cells
        == 2**63
        == accounting.looped_to_write_once(big, big, big, np.int8(4)).cells
    )
    assert accounting.mdm_to_looped(np.int8(3), np.uint8(4)) == (3, 4)


def test_selecting_everything_writes_over_what_stands():
    def next_token(tokens, t=None, *, at=None):
        tokens = tokens if at is None else jnp.take_along_axis(tokens, at, 1)
        return jnp.where((tokens[..., None] + 1) % 3 == jnp.arange(3)[None, None], 0.0, -jnp.inf)

    planner = AtSteps.everywhere(3, np.array([True, False]))
    out = sample(next_token, planner, jnp.array([[2, 3]]), vocab=3, key=KEY, trace=True)
    assert out.trace.tokens[:, 0].tolist() == [[2, 3], [2, 1], [2, 2], [2, 0]]
    assert trace_counts(out.trace, 3) == (3, 1, (1, 1, 1), 2)
