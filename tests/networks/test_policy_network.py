"""The policy's network: what it says at first, what it may not see, cells read as one place; attention in a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.networks import (
    PolicyConfig,
    TransformerConfig,
    grid_relations,
    naive,
    parameter_count,
    policy_network,
    transformer,
)

V, N = 5, 12


def network(**choices):
    own = {name: choices.pop(name) for name in ("patch", "relate", "each", "near", "outputs") if name in choices}
    config = TransformerConfig(V, N, **dict(width=16, depth=2, heads=2) | choices)
    model = policy_network(PolicyConfig(config, **own))
    params = model.init(jax.random.key(0))
    return jax.jit(lambda params, tokens, lengths, t=None: model.bind(params)(tokens, lengths, t)), params


def moved(params):
    """Parameters as after training: none is zero."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(
        tree, [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


TOKENS = jnp.array(np.random.default_rng(0).integers(0, V + 1, (3, N)))
LENGTHS = jnp.array([N, 8, 4])


@pytest.mark.parametrize("patch", [1, 4])
def test_what_it_says_at_first(patch):
    """Every token alike, so the cross-entropy is log V exactly; decisions off, near sigmoid(-2) = 0.119."""
    run, params = network(patch=patch)
    logits, controls = run(params, TOKENS, LENGTHS)
    assert logits.shape == (3, N, V) and controls.shape == (3, N, 3) and not logits.any()
    assert abs(float(jax.nn.sigmoid(controls).mean()) - 0.119) < 0.05 and jnp.unique(controls).size > 50


def test_the_time_of_a_row():
    """It changes nothing at first; then the row's own does, and that of another row does not."""
    run, params = network(time=True, outputs=2 * V)
    one, other = jnp.array([0.1, 0.5, 0.9]), jnp.array([0.1, 0.6, 0.9])
    for at, same in ((params, [True] * 3), (moved(params), [True, False, True])):
        both = [run(at, TOKENS, LENGTHS, t) for t in (one, other)]
        assert both[0][0].shape == (3, N, 2 * V)
        for x, y in zip(*both, strict=True):
            assert (x == y).all((1, 2)).tolist() == same


@pytest.mark.parametrize("choices", [dict(), dict(patch=4), dict(near=2)], ids=str)
def test_nothing_beyond_a_row_is_seen(choices):
    """Changing what stands there, or leaving it away, changes nothing inside; changing a token inside does."""
    run, params = network(places=True, **choices)
    params = moved(params)
    inside = jnp.arange(N)[None] < LENGTHS[:, None]
    one = run(params, TOKENS, LENGTHS)
    other = run(params, jnp.where(inside, TOKENS, (TOKENS + 1) % V), LENGTHS)
    for x, y in zip(one, other, strict=True):
        assert (jnp.where(inside[..., None], x - y, 0) == 0).all()
    short = jax.tree.map(lambda x: x[2:, :4], one)
    for x, y in zip(short, run(params, TOKENS[2:, :4], jnp.array([4])), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    changed = run(params, TOKENS.at[:, 1].set((TOKENS[:, 1] + 1) % V), LENGTHS)
    assert (jnp.abs(changed[0] - one[0])[:, 2:4] > 1e-4).any((1, 2)).all()


def test_cells_of_several_tokens_are_one_place():
    """Which token is which in its cell matters, and the parameters are those of a quarter of the length."""
    run, params = network(patch=4, places=True)
    params = moved(params)
    swapped = TOKENS[:, jnp.array([1, 0, *range(2, N)])]
    assert not np.allclose(run(params, TOKENS, LENGTHS)[0][:, 4:], run(params, swapped, LENGTHS)[0][:, 4:])
    assert params["places"]["embedding"].shape == (3, 16) and params["readout"]["kernel"].shape == (16, 4 * V)
    with pytest.raises(ValueError, match="cells of 4"):
        run(params, TOKENS[:, :6], LENGTHS)


def test_blocks_that_are_gone_through_twice():
    """A looped network is the deeper one whose blocks are the same again."""
    config = dict(width=16, heads=2, pads=True)
    once = transformer(TransformerConfig(V, N, depth=1, loops=3, **config))
    deep = transformer(TransformerConfig(V, N, depth=3, **config))
    params = moved(once.init(jax.random.key(0)))
    block = params["blocks"]["0"]
    repeated = {**params, "blocks": {str(i): block for i in range(3)}}
    assert parameter_count(params) < parameter_count(repeated)
    np.testing.assert_allclose(once.bind(params)(TOKENS), deep.bind(repeated)(TOKENS), atol=1e-4)


def test_positions_that_leave_early():
    """What is read of a position is what a network with as many loops as it stays for says of it."""
    config = dict(width=16, heads=2, depth=2, pads=True, places=True)
    exits = (1, 3, 2, 2, 1, 3, 3, 1, 2, 1, 3, 2)[:N]
    leaving = transformer(TransformerConfig(V, N, loops=3, exits=exits, **config))
    params = moved(leaving.init(jax.random.key(0)))
    found = leaving.bind(params)(TOKENS)
    for loops in (1, 2, 3):
        expected = transformer(TransformerConfig(V, N, loops=loops, **config)).bind(params)(TOKENS)
        stay = np.array(exits) == loops
        np.testing.assert_allclose(found[:, stay], expected[:, stay], atol=1e-5)
        assert stay.any() and not np.allclose(found[:, ~stay], expected[:, ~stay], atol=1e-2)


def test_attention_along_the_lines_of_a_grid():
    """Heads 0, 1, 2 see the row, the column, the box; the fourth everything: each against the formula."""
    relations, n = grid_relations(2), 16
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, n, 4, 8)) for key in keys)
    valid = jnp.arange(n)[None] < jnp.array([[16], [11]])
    got = jax.jit(relations)(q, k, v, valid=valid)
    cells = [(i // 4, i % 4) for i in range(n)]
    sights = (
        lambda a, b: a[0] == b[0],
        lambda a, b: a[1] == b[1],
        lambda a, b: (a[0] // 2, a[1] // 2) == (b[0] // 2, b[1] // 2),
        lambda a, b: True,
    )
    for head, sees in enumerate(sights):
        seen = np.array([[sees(a, b) for b in cells] for a in cells])
        for i in range(n):
            one = slice(head, head + 1)
            expected = naive(q[:, :, one], k[:, :, one], v[:, :, one], valid=valid & jnp.asarray(seen[i])[None])
            np.testing.assert_allclose(got[:, i, head], expected[:, i, 0], atol=1e-5)
    with pytest.raises(ValueError, match="16 positions need so many positions"):
        relations(q[:, :4], k[:, :4], v[:, :4])


def test_sums_along_the_lines_of_a_grid():
    """Two heads for each relation add up the others' values, whatever q and k are; the last sees everything."""
    n, own = 16, slice(6, 7)
    relations, attention = grid_relations(2, sums=2), grid_relations(2)
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, n, 7, 8)) for key in keys)
    valid = jnp.arange(n)[None] < jnp.array([[16], [11]])
    got = jax.jit(relations)(q, k, v, valid=valid)
    for head in range(6):
        labels = np.array(attention.labels[head // 2])
        for i in range(n):
            others = (labels == labels[i]) & (np.arange(n) != i)
            expected = jnp.where((valid & others[None])[..., None], v[:, :, head], 0).sum(1)
            np.testing.assert_allclose(got[:, i, head], expected, atol=1e-5)
    expected = naive(q[:, :, own], k[:, :, own], v[:, :, own], valid=valid)
    np.testing.assert_allclose(got[:, :, own], expected, atol=1e-5)
    everything = jax.jit(relations)(q[:, :, :6], k[:, :, :6], v[:, :, :6])
    np.testing.assert_allclose(everything[0], got[0, :, :6], atol=1e-5)
    with pytest.raises(ValueError, match="2 heads for each"):
        relations(q[:, :, :5], k[:, :, :5], v[:, :, :5])
    with pytest.raises(ValueError, match="sums=-1"):
        grid_relations(2, sums=-1)


def halves(tokens):
    """Equal tokens, and halves of a row."""
    return jnp.stack([tokens, jnp.broadcast_to(jnp.arange(N) // 6, tokens.shape)], 1)


@pytest.mark.parametrize("each, heads, related", [(1, 2, True), (2, 4, True), (1, 3, False)])
def test_relations_that_tokens_state(each, heads, related):
    """In one block of heads that all follow relations, a position sees those with its own token or in its own half."""
    run, params = network(depth=1, heads=heads, width=8 * heads, places=True, relate=halves, each=each)
    params = moved(params)
    tokens = jnp.array([[0, 1, 2, 3, 4, 5, 0, 0, 1, 1, 2, 2]])
    before = run(params, tokens, jnp.array([N]))
    for j in range(6, N):
        after = run(params, tokens.at[0, j].set(4), jnp.array([N]))
        changed = [max(float(jnp.abs(x - y)[0, i].max()) for x, y in zip(before, after, strict=True)) for i in range(6)]
        sees = [not related or int(tokens[0, i]) in (tokens[0, j], 4) for i in range(6)]
        assert [x > 1e-6 for x in changed] == sees, (j, changed)


def test_neighbours_are_embedded_with_a_token():
    """Where each position attends to itself alone, it sees two on either side, and knows which is where."""
    own = lambda tokens: jnp.broadcast_to(jnp.arange(N), (len(tokens), 2, N))
    run, params = network(depth=1, relate=own, near=2)
    params = moved(params)
    tokens, lengths = TOKENS[:1], jnp.array([N])
    one = run(params, tokens, lengths)[0]
    differs = lambda other: (jnp.abs(run(params, other, lengths)[0] - one)[0].max(-1) > 1e-6).tolist()
    for j in range(N):
        assert differs(tokens.at[0, j].set((tokens[0, j] + 1) % V)) == [abs(i - j) <= 2 for i in range(N)]
    assert int(tokens[0, 4]) != int(tokens[0, 6])
    assert differs(tokens.at[0, jnp.array([4, 6])].set(tokens[0, jnp.array([6, 4])]))[5]


@pytest.mark.parametrize("choices, match", [
    (dict(near=-1), "near=-1: must not be negative"),
    (dict(near=1, patch=4), "relations and neighbours are of tokens, patch=1"),
    (dict(relate=halves, patch=4), "relations and neighbours are of tokens, patch=1"),
    (dict(relate=halves, each=2), "2 heads for each of 2 relations: there are 2 in all"),
    (dict(patch=5), "patch=5: must be at least 1, and divide length=12"),
    (dict(causal=True), "sees the whole canvas: causal=False"),
    (dict(outputs=0), "outputs=0: must be at least 1, or None for V"),
    (dict(time=True), "this network is conditioned on time: pass t"),
    (dict(loops=0), "loops=0: must be at least 1"),
    (dict(exits=(1, 1)), r"exits=\(1, 1\): must be length="),
])  # fmt: skip
def test_what_is_refused(choices, match):
    with pytest.raises(ValueError, match=match):
        run, params = network(**choices)
        run(params, TOKENS, LENGTHS)
