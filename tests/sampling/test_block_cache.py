"""Decoding in blocks with keys and values that are kept: exact in a block-causal network, and not in others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax import networks, process, sampling

V, L, B = 6, 14, 4
BLOCK = 4  # the last block is shorter
PROMPTS = {
    "nothing given": jnp.full((B, L), V),
    # blocks without masks are passed over: at the start, in the middle, and not in the same rows
    "prompts": jnp.full((B, L), V).at[0, :9].set(1).at[1, 4:8].set(2).at[2, 1].set(3).at[3].set(0),
}
PLANNERS = {
    "confidence": sampling.Confidence(process.Linear(), 3),
    "first-hitting": sampling.FirstHitting(process.Linear()),
    "remdm": sampling.ReMDM(process.Linear(), 4, sampling.Cap(0.3)),
    # asks of written tokens too, in the last block where no mask is left, and in one before a block that is given
    "corrector": sampling.InformedCorrector(sampling.Confidence(process.Linear(), 2), count=2),
}


def model(attention, **choices):
    return networks.transformer(
        networks.TransformerConfig(V, L, width=16, depth=2, heads=2, attention=attention, **choices)
    )


@functools.cache
def network(attention):
    @jax.jit
    def params():
        moved = lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape)
        return jax.tree.map(lambda x: 1.5 * moved(x), model(attention).init(jax.random.key(0)))

    return model(attention).bind(params())


def runner(denoiser, planner, **choices):
    """tokens -> Samples, compiled once."""
    return jax.jit(
        lambda tokens: sampling.sample(
            denoiser, sampling.Blocks(planner, BLOCK), tokens, vocab=V, key=jax.random.key(3), **choices
        )
    )


@functools.cache
def with_cache(name):
    cache = sampling.BlockCache(network(networks.BlockCausal(BLOCK)), BLOCK)
    return runner(cache, PLANNERS[name], trace=True)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_cache_of_a_block_causal_network_changes_nothing(name):
    """The same samples, traces and confidences; whole rows are gone through only where a row has passed over blocks."""
    runs = runner(network(networks.BlockCausal(BLOCK)), PLANNERS[name], trace=True), with_cache(name)
    for what, tokens in PROMPTS.items():
        plain, kept = (run(tokens) for run in runs)
        assert (plain.tokens == kept.tokens).all() and (plain.trace.operations == kept.trace.operations).all()
        np.testing.assert_allclose(plain.trace.confidence, kept.trace.confidence, atol=1e-4)
        assert plain.calls == kept.calls > 0
        assert kept.kept.whole < kept.calls
        assert kept.kept.whole == 0 if what == "nothing given" else kept.kept.whole >= (what == "prompts")


@pytest.mark.parametrize("kind", ["exact", "prefix", "dual"])
def test_rows_without_masks_are_told_of_what_they_ask(kind):
    """At the first call and then of another block; one of the rows is told of its last position alone."""
    bound = network(networks.BlockCausal(BLOCK) if kind == "exact" else networks.xla)
    cache = sampling.BlockCache(bound, BLOCK, kind)
    tokens = jnp.arange(B * L).reshape(B, L) % V
    remember = jax.jit(lambda at, kept: cache.remember(tokens, None, at, kept, V))
    exact, kept = jax.jit(lambda at: bound(tokens, at=at)), cache.begin(tokens, V)
    for block in (2, 1, 0):
        at = jnp.tile(BLOCK * block + jnp.arange(2), (B, 1)).at[1].set(L - 1)
        logits, kept = remember(at, kept)
        np.testing.assert_allclose(logits, exact(at), atol=1e-4)


def test_few_positions_asked_are_those_of_all():
    cache = sampling.BlockCache(network(networks.BlockCausal(BLOCK)), BLOCK)
    whole = with_cache("confidence")(PROMPTS["prompts"])
    few = runner(cache, PLANNERS["confidence"], capacity=2)(PROMPTS["prompts"])
    assert (whole.tokens == few.tokens).all()


def test_without_blocks_it_is_right_and_no_cheaper():
    """A planner that asks everywhere has whole rows gone through."""
    bound = network(networks.BlockCausal(BLOCK))
    planner, tokens = sampling.FirstHitting(process.Linear()), PROMPTS["nothing given"]
    both = [
        jax.jit(lambda tokens, d=d: sampling.sample(d, planner, tokens, vocab=V, key=jax.random.key(0)))(tokens)
        for d in (bound, sampling.BlockCache(bound, BLOCK))
    ]
    assert (both[0].tokens == both[1].tokens).all() and both[1].kept.whole > both[1].calls // 2


@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_approximate_caches_are_exact_at_the_first_call_of_a_block(kind):
    """And then differ: what other positions say is what it was when the block began."""
    bound = network(networks.xla)
    cache = sampling.BlockCache(bound, BLOCK, kind)
    tokens = PROMPTS["nothing given"]
    kept = cache.begin(tokens, V)
    remember = jax.jit(lambda tokens, at, kept: cache.remember(tokens, None, at, kept, V))
    exact = jax.jit(lambda tokens, at: bound(tokens, at=at))
    at = jnp.tile(jnp.arange(4), (B, 1))
    logits, kept = remember(tokens, at, kept)
    np.testing.assert_allclose(logits, exact(tokens, at), atol=1e-4)
    tokens = tokens.at[:, 1].set(2)
    logits, kept = remember(tokens, at, kept)
    error = float(jnp.abs(logits - exact(tokens, at)).max())
    # nothing stands before the first block, so that all of it is gone through
    assert (error < 1e-4 if kind == "prefix" else 1e-4 < error < 1) and kept.whole == 1
    tokens = tokens.at[:, :4].set(1)
    logits, kept = remember(tokens, at + 4, kept)
    np.testing.assert_allclose(logits, exact(tokens, at + 4), atol=1e-4)
    assert kept.whole == 2
    tokens = tokens.at[:, 5].set(2)
    logits, kept = remember(tokens, at + 4, kept)
    assert 1e-4 < float(jnp.abs(logits - exact(tokens, at + 4)).max()) < 1 and kept.whole == 2
    found = runner(cache, PLANNERS["first-hitting"])(PROMPTS["nothing given"])
    assert (found.tokens < V).all() and found.kept.whole == 4  # once a block


def test_a_prefix_is_of_the_earliest_row():
    """Rows of a batch in several blocks: what each is told is what the kept prefix and the rest of the row say."""
    bound = network(networks.xla)
    cache = sampling.BlockCache(bound, BLOCK, "prefix")
    tokens = jnp.full((2, L), V).at[1, :4].set(1)
    remember = jax.jit(lambda tokens, at, kept: cache.remember(tokens, None, at, kept, V))
    at = jnp.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    logits, kept = remember(tokens, at, cache.begin(tokens, V))
    tokens = tokens.at[0, 2].set(3).at[1, 6].set(0)
    logits, kept = remember(tokens, at, kept)
    np.testing.assert_allclose(logits, jax.jit(lambda tokens, at: bound(tokens, at=at))(tokens, at), atol=1e-4)
    assert kept.whole == 1  # the first row is in the first block, so both went from the start


def test_what_is_refused():
    unbound = lambda attention, **choices: model(attention, **choices).bind({})
    with pytest.raises(ValueError, match=r"BlockCache\(length=0\): must be at least 1"):
        sampling.BlockCache(unbound(networks.xla), 0)
    with pytest.raises(ValueError, match=r"kind='both'\): must be one of exact, prefix, dual"):
        sampling.BlockCache(unbound(networks.xla), 4, "both")
    with pytest.raises(ValueError, match=r"must have attention=BlockCausal\(4\) and time=False"):
        sampling.BlockCache(unbound(networks.BlockCausal(5)), 4)
    with pytest.raises(ValueError, match="for another, kind='prefix' or 'dual'"):
        sampling.BlockCache(unbound(networks.xla), 4)
    with pytest.raises(ValueError, match="time=False"):
        sampling.BlockCache(unbound(networks.BlockCausal(4), time=True), 4)
