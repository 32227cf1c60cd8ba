"""Bits, tiles and their order: what a mapped tile computes is what the layer does, and no order has a smaller score."""

import itertools
import math

import numpy as np
import pytest

from mdmjax.crossbar import (
    FLOWS,
    KEYS,
    LAYOUTS,
    SCOPES,
    bit_slice,
    check_permutation,
    greedy,
    index_bits,
    manhattan_score,
    map_tiles,
    order_of,
    quadratic_form,
    refine,
    reorder,
    segment_cost,
    tile,
)  # fmt: skip


def layer(seed=0, inputs=20, outputs=5, law="normal"):
    return getattr(np.random.default_rng(seed), law)(size=(inputs, outputs))


def test_bits_are_the_weights_up_to_one_level():
    weights = layer()
    for bits in (1, 4, 8, 16):
        found = bit_slice(weights, bits)
        assert (found.q == (found.bits * 2 ** np.arange(bits)[::-1]).sum(-1)).all() and found.q.max() == 2**bits - 1
        back = found.sign * found.scale * found.q / 2**bits
        assert (np.abs(weights) - np.abs(back) >= -1e-12).all() and np.abs(weights - back).max() < found.scale / 2**bits
    nearest = bit_slice(weights, 8, rounding="nearest")
    assert (
        np.abs(weights - nearest.sign * nearest.scale * nearest.q / 256)[nearest.q < 255].max() <= nearest.scale / 512
    )
    assert not bit_slice(np.zeros((3, 2)), 4).bits.any()


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_higher_bits_are_sparser(bits):
    """For every uniform law on 0..a-1, and so for all their mixtures, in integers: counts p_1 <= ... <= p_K <= 1/2."""
    for a in range(1, 2**bits + 1):
        counts = ((np.arange(a)[:, None] >> np.arange(bits)[::-1]) & 1).sum(0)
        assert (np.diff(counts) >= 0).all() and 2 * counts[-1] <= a


def test_rounding_to_nearest_may_break_that():
    """The bin of 0 is half as wide: with two bits of weights that are all small the last bit is on in most."""
    weights = np.append(np.linspace(0.13, 0.37, 100), 1.0)[:, None]
    density = lambda rounding: bit_slice(weights, 2, rounding=rounding).bits[:, 0, -1].mean()
    assert density("nearest") > 0.9 > density("floor")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("key", KEYS)
def test_a_mapped_layer_is_the_layer(layout, flow, scope, key):
    """Without resistance: the sums of the columns, weighted by their labels, are the integer products exactly."""
    sliced, bits = bit_slice(layer(), 4), 4
    mapped = map_tiles(tile(sliced, 8, 10, layout=layout), flow=flow, key=key, scope=scope)
    tiles, x = mapped.tiles, np.random.default_rng(1).integers(0, 9, 20)
    out = np.zeros(5, int)
    for cells, inputs, outputs, levels, signs in zip(*tiles, strict=True):
        currents = np.where(inputs < 0, 0, x[inputs]) @ cells
        for k in np.flatnonzero(outputs >= 0):
            out[outputs[k]] += signs[k] * 2 ** (bits - levels[k]) * currents[k]
    np.testing.assert_array_equal(out, x @ (sliced.sign * sliced.q))
    for order in mapped.order:
        check_permutation(order, 8)
    absent = tiles.inputs < 0
    assert not tiles.cells[absent].any() and (np.sort(absent, 1) == absent).all()  # at the far end
    assert not tiles.cells.transpose(0, 2, 1)[tiles.outputs < 0].any()
    if scope == "bus":
        for t, u in itertools.combinations(range(len(tiles.cells)), 2):
            if set(tiles.inputs[t]) == set(tiles.inputs[u]):
                assert (mapped.order[t] == mapped.order[u]).all()


def test_layouts_and_flows():
    sliced = bit_slice(layer(outputs=2), 3)
    planes, words = (tile(sliced, 20, 6, layout=layout) for layout in LAYOUTS)
    assert planes.levels[0].tolist() == [1, 1, 2, 2, 3, 3] and planes.outputs[0].tolist() == [0, 1, 0, 1, 0, 1]
    assert words.levels[0].tolist() == [1, 2, 3, 1, 2, 3] and words.outputs[0].tolist() == [0, 0, 0, 1, 1, 1]
    turned = map_tiles(planes, flow="reversed", key="none").tiles
    assert turned.levels[0].tolist() == [3, 3, 2, 2, 1, 1] and (turned.cells == planes.cells[:, :, ::-1]).all()
    again = map_tiles(turned, flow="reversed", key="none").tiles
    assert all((a == b).all() for a, b in zip(again, planes, strict=True))
    part = tile(sliced, 20, 8, layout="planes")  # two columns are absent: they stay at the far end
    assert map_tiles(part, key="none").tiles.outputs[0].tolist() == [1, 0, 1, 0, 1, 0, -1, -1]


def test_no_order_has_a_smaller_score():
    """By all orders of 6 rows; ties keep the rows as they stand."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        cells = rng.random((6, 7)) < rng.uniform(0.1, 0.6, (6, 1))
        order = order_of([cells], "popcount", np.ones(6))
        best = min(manhattan_score(cells[list(p)]) for p in itertools.permutations(range(6)))
        assert manhattan_score(cells[order]) == best
    assert order_of([np.ones((4, 3), bool)], "popcount", np.ones(4)).tolist() == [0, 1, 2, 3]
    assert order_of([np.eye(3, dtype=bool)], "popcount", np.array([1.0, 3.0, 2.0])).tolist() == [1, 2, 0]


def test_greedy_is_near_the_best_of_all_orders():
    """Of F = sum_t |sum_{j >= t} b_j|^2 on 20 random tiles of 7 x 12: within 3 %, on average 0.5 %; popcount 15 %."""
    rng, perms = np.random.default_rng(1), np.array(list(itertools.permutations(range(7))))
    form = lambda rows: (np.flip(np.cumsum(np.flip(rows, -2), -2), -2) ** 2).sum((-2, -1))
    gaps = []
    for _ in range(20):
        cells = rng.random((7, 12)) < rng.uniform(0.1, 0.6, (7, 1))
        best = form(cells.astype(int)[perms]).min()
        found = [
            form(cells.astype(int)[order_of([cells], key, np.ones(7))]) / best - 1 for key in ("greedy", "popcount")
        ]
        gaps.append(found)
    gaps = np.array(gaps)
    assert gaps[:, 0].max() <= 0.03 and gaps[:, 0].mean() < 0.005 and gaps[:, 1].max() <= 0.15
    check_permutation(greedy(np.zeros((5, 3), bool), np.ones(5)), 5)


def test_the_quadratic_form_has_the_score_on_its_diagonal():
    """Q = S + cross terms, in integers; both by definition."""
    cells = np.random.default_rng(2).random((20, 16)) < 0.3
    q = 0
    for rows in (cells, cells.T):
        n = rows.shape[1]
        path = np.minimum(np.arange(n)[:, None], np.arange(n)[None]) + 1
        q += sum(int(b @ path @ b) for b in rows.astype(int))
    assert quadratic_form(cells) == q
    score = sum((j + 1) + (k + 1) for j, k in zip(*np.nonzero(cells), strict=True))
    assert manhattan_score(cells) == score and manhattan_score(cells, 0) == score - 2 * cells.sum()
    one = np.zeros((4, 4), bool)
    one[2, 3] = True
    assert quadratic_form(one) == manhattan_score(one) == 7


def test_swaps_are_never_worse():
    """F of the order found is that of its rows, at most that of the first, and here the smallest of all 7! orders."""
    cells = np.random.default_rng(5).random((7, 12)) < 0.4
    cost = segment_cost(cells)
    order, found, first = refine(7, cost, rounds=12, rng=np.random.default_rng(0))
    check_permutation(order, 7)
    perms = np.array(list(itertools.permutations(range(7))))
    assert cost(order[None])[0] == found <= first == cost(np.arange(7)[None])[0]
    assert found == cost(perms).min() < first
    again, same, _ = refine(7, cost, rounds=5, rng=np.random.default_rng(1), candidates=3)
    assert same <= first and cost(again[None])[0] == same
    assert refine(1, segment_cost(cells[:1]), rounds=3, rng=np.random.default_rng(0))[0].tolist() == [0]
    tails = np.stack([cells[order][j:].sum(0) for j in range(7)])
    assert (tails**2).sum() == found


def test_busy_inputs_come_first():
    """Rows that are alike go by the activity of their inputs; without one by their number."""
    tiles = tile(bit_slice(np.ones((8, 2)), 4), 8, 8)
    activity = np.array([0.1, 3, 0.2, 5, 1, 0, 2, 4])
    wanted = np.argsort(-activity)
    for key in ("popcount", "column", "combined", "greedy"):
        assert map_tiles(tiles, key=key, activity=activity).order[0].tolist() == wanted.tolist()
        assert sorted(map_tiles(tiles, key=key).order[0]) == list(range(8))
    with pytest.raises(ValueError, match=r"activity of shape \(8,\): must be 8 numbers of at least 0"):
        map_tiles(tiles, activity=-activity)


def test_scores_add_up_on_a_bus():
    """c of the rows of two tiles: (5, 3) in all, though the second row's cells stand farther when side by side."""
    tiles = [np.array(x, bool) for x in ([[0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0]])]
    assert order_of(tiles, "column", np.ones(2)).tolist() == [0, 1]
    assert order_of(tiles[::-1], "combined", np.ones(2)).tolist() == [0, 1]
    assert order_of([np.concatenate(tiles, 1)], "column", np.ones(2)).tolist() == [1, 0]


def test_an_order_of_ones_own():
    mapped = map_tiles(tile(bit_slice(layer(), 4), 8, 8), key="none", flow="conventional")
    count = len(mapped.order)
    order = np.stack([np.random.default_rng(t).permutation(8) for t in range(count)])
    found = reorder(mapped, order)
    np.testing.assert_array_equal(found.order, order)
    np.testing.assert_array_equal(found.tiles.cells[2], mapped.tiles.cells[2][order[2]])
    back = reorder(found, np.argsort(order, 1))
    assert all((a == b).all() for a, b in zip((*back.tiles, back.order), (*mapped.tiles, mapped.order), strict=True))
    order[1, 0] = order[1, 1]
    with pytest.raises(ValueError, match=r"order of tile 1 \[.*\]: must have every number of 0..7 once"):
        reorder(mapped, order)


def test_an_index_costs():
    assert index_bits(64, 3) == 3 * 64 * 6 and index_bits(1) == 0 and index_bits(5) == 5 * math.ceil(math.log2(5))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: bit_slice(layer(), 0), "bits=0: must be in 1..16"),
        (lambda: bit_slice(layer(), 17), "bits=17"),
        (lambda: bit_slice(layer(), 4, rounding="up"), "rounding='up': choose one of floor, nearest"),
        (lambda: bit_slice(np.array([[np.nan, 1.0]]), 4), "1 weights are not finite"),
        (lambda: bit_slice(layer(), 4, largest=math.nan), "largest=nan"),
        (lambda: bit_slice(layer(), 4, largest=0.1), "largest=0.1: there is a weight of"),
        (lambda: tile(bit_slice(layer(), 4), 0, 8), "rows=0, columns=8"),
        (lambda: tile(bit_slice(layer(), 4), 8, 3), "columns=3: the 4 bits"),
        (lambda: tile(bit_slice(layer(), 4), 8, 8, layout="rows"), "layout='rows'"),
        (lambda: map_tiles(tile(bit_slice(layer(), 4), 8, 8), flow="up"), "flow='up': choose one of conventional"),
        (lambda: map_tiles(tile(bit_slice(layer(), 4), 8, 8), key="size"), "key='size': choose one of none, popcount"),
        (lambda: map_tiles(tile(bit_slice(layer(), 4), 8, 8), scope="chip"), "scope='chip'"),
        (lambda: check_permutation(np.array([0, 0, 2]), 3), r"order \[0, 0, 2\]: must have every number of 0..2 once"),
    ],
)
def test_what_will_not_do(make, words):
    with pytest.raises(ValueError, match=words):
        make()
