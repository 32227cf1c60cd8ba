"""Planners by themselves: clocks, reveal steps at thousands of steps in float32, orders, times, counts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mdmjax.base import Planner
from mdmjax.process import Cosine, Geometric, Linear, PlackettLuce, Polynomial, PositionPowers, SineSquared, beta
from mdmjax.sampling import Confidence, planners
from mdmjax.sampling.planners import (
    ROUNDINGS,
    Ancestral,
    Clocks,
    DrawnOrder,
    FirstHitting,
    LeftToRight,
    RandomCount,
    draw_clocks,
    reveal_steps,
    visible_counts,
)

P_MIN = 1e-4  # for statistical tests, with fixed keys
T = 4096
SCHEDULES = [Linear(), Cosine(), SineSquared(), Polynomial(3.0), Geometric()]


def name(schedule):
    return type(schedule).__name__


@functools.cache
def grid(schedule, steps):
    """A_k and 1 - A_k for k = 0..T in float64."""
    with jax.enable_x64(True):
        t = jnp.asarray(np.arange(steps, -1, -1) / steps)
        return tuple(np.asarray(x) for x in jax.jit(lambda t: (schedule.alpha(t), schedule.one_minus_alpha(t)))(t))


@functools.cache
def clocks(seed):
    """2^20 of them."""
    return jax.tree.map(np.asarray, jax.jit(lambda key: draw_clocks(key, 2**20))(jax.random.key(seed)))


def test_clocks_are_uniform_down_to_their_ends():
    """Sides are fair, and each octave (2^-j-2, 2^-j-1] of the distance from an end has its share."""
    near, early = clocks(0)
    assert near.dtype == np.float32 and near.max() <= 0.5
    assert stats.binomtest(int(early.sum()), early.size, 0.5).pvalue > P_MIN
    assert stats.kstest(2 * near, "uniform").pvalue > P_MIN
    for side in (early, ~early):
        octave = np.minimum(-np.ceil(np.log2(near[side])).astype(int) - 1, 16)
        share = np.append(0.5 ** np.arange(1, 17), 0.5**16)
        assert stats.chisquare(np.bincount(octave, minlength=17), share * side.sum()).pvalue > P_MIN


def test_clocks_have_24_bits_near_their_ends():
    """No two of the clocks below 2^-11 are equal; a float32 uniform has 2^12 values there, so some of its are."""
    near, _ = clocks(1)
    small = near[near < 2.0**-11]
    assert len(small) > 900 and len(np.unique(small)) == len(small)
    u = np.asarray(jax.random.uniform(jax.random.key(1), (2**20,)))
    coarse = u[u < 2.0**-11]
    assert len(np.unique(coarse)) < 0.99 * len(coarse)


@functools.cache
def beside(schedule):
    """Clocks beside each A_k, at 1 % of the smaller adjacent hazard, on its earlier side and on its later one.

    And where float32 can hold such a clock at all.
    """
    visible, hidden = grid(schedule, T)
    gaps = np.where(visible[1:] < 0.5, np.diff(visible), -np.diff(hidden))
    margin = 0.01 * np.minimum(gaps[1:], gaps[:-1])
    early = visible[1:-1] < 0.5
    near = np.where(early, visible[1:-1], hidden[1:-1])
    outwards = np.where(early, -margin, margin)  # towards an earlier reveal
    resolved = margin > 4 * np.spacing(near.astype(np.float32))
    return [Clocks((near + way * outwards).astype(np.float32), early) for way in (1, -1)], resolved


@functools.cache
def revealed(schedule):
    """Steps of 2^19 positions, and of the clocks that are beside each A_k, found in one call."""
    parts = [Clocks(*(x[: 2**19] for x in clocks(2))), *beside(schedule)[0]]
    together = jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)), *parts)
    steps = np.asarray(jax.jit(lambda c: reveal_steps(schedule, T, c))(together))
    return np.split(steps, np.cumsum([len(part.near) for part in parts])[:-1])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_reveal_time_histogram(schedule):
    """Reveal steps of 2^19 positions, counted over all T = 4096 steps, against A_{k+1} - A_k (small cells joined)."""
    steps = revealed(schedule)[0]
    visible, hidden = grid(schedule, T)
    expected = np.where(visible[1:] < 0.5, np.diff(visible), -np.diff(hidden)) * steps.size
    cell = np.cumsum(expected) // 5  # consecutive steps share a cell until it expects about 5
    _, cell = np.unique(cell, return_inverse=True)
    observed = np.bincount(cell[steps], minlength=cell.max() + 1)
    assert len(observed) > 1000
    assert stats.chisquare(observed, np.bincount(cell, expected)).pvalue > P_MIN


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_every_boundary_between_steps_is_exact_in_float32(schedule):
    """Clocks beside each A_k fall on its right side.

    So no hazard is lost at either end, where float32 values of alpha alone would give hazards of 0 or twice their size.
    """
    resolved, k = beside(schedule)[1], np.arange(1, T)
    assert resolved.mean() > 0.9
    _, before, after = revealed(schedule)
    np.testing.assert_array_equal(before[resolved], (k - 1)[resolved])
    np.testing.assert_array_equal(after[resolved], k[resolved])


def test_ends_of_the_clock():
    """U = 0 is revealed at the first step and U = 1 at the last: no clock is left over."""
    ends, numbers = Clocks(jnp.zeros(2), jnp.array([True, False])), (1, 2, 7, 100_000)
    found = jax.jit(lambda ends: [reveal_steps(SineSquared(), steps, ends) for steps in numbers])(ends)
    assert [x.tolist() for x in found] == [[0, steps - 1] for steps in numbers]


@functools.partial(jax.jit, static_argnames="planner")
def plans(planner, open=(True, True, True)):
    """60,000 of them."""
    return jax.vmap(planner.init, (0, None))(jax.random.split(jax.random.key(3), 60_000), jnp.array(open))


def test_first_hitting_order_is_uniform_and_times_fit_it():
    plan = plans(FirstHitting(Cosine()))
    orders = {order: i for i, order in enumerate(itertools.permutations(range(3)))}
    counts = np.bincount([orders[tuple(s)] for s in plan.step.tolist()], minlength=6)
    assert stats.chisquare(counts).pvalue > P_MIN
    with jax.enable_x64(True):
        assert stats.kstest(Cosine().alpha(jnp.asarray(np.ravel(plan.t), jnp.float64)), "uniform").pvalue > P_MIN
    by_step = jnp.take_along_axis(plan.t, jnp.argsort(plan.step), axis=1)
    assert bool((jnp.diff(by_step) <= 0).all())


def test_drawn_orders_have_the_law_of_their_weights_and_times_fit_it():
    """All 24 orders of L = 4; of a prompted row, the orders of what is open; the times are u^(1 / w)."""
    log_w = (1.0, -0.5, 0.3, 0.0)
    plan = jax.tree.map(np.asarray, plans(DrawnOrder(log_w), (True,) * 4))
    orders = np.array(list(itertools.permutations(range(4))))
    p = np.exp(np.asarray(PlackettLuce(jnp.array(log_w)).log_prob(jnp.asarray(orders)), np.float64))
    found = np.argsort(plan.step, axis=1)
    counts = (found[:, None] == orders).all(2).sum(0)
    assert counts.sum() == 60_000 and stats.chisquare(counts, p / p.sum() * 60_000).pvalue > P_MIN
    for t, w in zip(plan.t.T, np.exp(log_w), strict=True):
        assert stats.kstest(t**w, "uniform").pvalue > P_MIN
    assert (np.diff(np.take_along_axis(plan.t, found, 1)) <= 0).all()
    prompted = np.asarray(plans(DrawnOrder(log_w), (True, False, True, True)).step)
    first = np.bincount(np.where([True, False, True, True], prompted, 9).argmin(1), minlength=4)
    w = np.exp(np.array(log_w)) * [1, 0, 1, 1]
    assert first[1] == 0 and stats.chisquare(first[w > 0], (w / w.sum() * 60_000)[w > 0]).pvalue > P_MIN


def test_equal_drawn_orders_are_first_hitting_times_included():
    schedule = Polynomial(3.0)
    drawn, hitting = (plans(p).t for p in (DrawnOrder((0.0,) * 3, schedule), FirstHitting(schedule)))
    assert stats.ks_2samp(np.sort(drawn)[:, 1], np.sort(hitting)[:, 1]).pvalue > P_MIN
    with pytest.raises(ValueError, match="one weight each"):
        plans(DrawnOrder((0.0,) * 4))


def test_plans_of_prompted_rows_count_open_positions_only():
    plan = plans(FirstHitting(Cosine()), (True, False, True))
    assert set(map(tuple, np.asarray(plan.step)[:, [0, 2]].tolist())) == {(0, 1), (1, 0)}
    plan = plans(LeftToRight(), (False, True, True))
    assert (np.asarray(plan.step)[:, 1:] == [0, 1]).all()
    np.testing.assert_allclose(plan.t[:, 1:], np.broadcast_to([1, 0.5], (60_000, 2)))


def counts_of(*cases, rounding=jnp.round):
    """Numbers by step of each (schedule, steps, total)."""
    visible = jax.jit(lambda: [visible_counts(*case, rounding) for case in cases])()
    return [np.diff(x) for x in visible]


def test_counts_of_the_energy_specification():
    """n = 256 in T = 8 steps for two Beta schedules of arXiv 2509.13866, and the zero-count steps at T = n."""
    found = counts_of(*((schedule, steps, 256) for steps in (8, 256) for schedule in (Linear(), SineSquared())))
    assert found[0].tolist() == [32] * 8
    assert found[1].tolist() == [10, 27, 42, 49, 49, 42, 27, 10]
    assert [(x == 0).sum() for x in found[2:]] == [0, 54]


def test_counts_of_beta_schedules():
    of = lambda steps, *ab: counts_of(*((beta(*x), steps, 256) for x in ab))
    few = of(8, (0.9, 0.9), (0.9, 0.3))
    assert few[0].tolist() == [12, 29, 41, 46, 46, 41, 29, 12]
    assert few[1].tolist() == [2, 4, 9, 12, 19, 29, 47, 134]
    assert [(x == 0).sum() for x in of(256, (0.5, 0.5), (1.0, 1.0), (0.9, 0.3))] == [0, 54, 117]
    assert counts_of((Linear(), 2, 5), rounding=jnp.floor)[0].tolist() == [2, 3]
    with pytest.raises(ValueError, match="steps=0: must be >= 1"):
        visible_counts(Linear(), 0, 5)


@pytest.mark.parametrize("a, b", [(0.9, 0.3), (0.4, 1.2), (0.7, 0.8)])
def test_counts_of_swapped_parameters_are_reversed(a, b, x64):
    """Except where n A_k is half way between two numbers."""
    steps, schedules = 8, (beta(a, b), beta(b, a))
    run = jax.jit(lambda total: [visible_counts(schedule, steps, total) for schedule in schedules])
    visible = np.asarray(jax.jit(schedules[0].alpha)(jnp.arange(steps, -1, -1) / steps))
    for total in (5, 32, 256):
        counts, exact = [np.asarray(x) for x in run(jnp.asarray(total))], total * visible
        tie = np.abs(exact % 1 - 0.5) < 1e-9
        np.testing.assert_array_equal(counts[0][~tie], (total - counts[1][::-1])[~tie])
        assert (counts[0][-1], tie[0], tie[-1]) == (total, False, False) and (np.diff(counts[0]) >= 0).all()


@pytest.mark.parametrize("schedule", [Linear(), SineSquared(), beta(0.9, 0.3), beta(0.3, 0.9)], ids=name)
def test_the_steps_of_the_chain_multiply_out_to_the_schedule(schedule, x64):
    visible, hidden = grid(schedule, 16)
    u = 1 - hidden[1:] / hidden[:-1]
    np.testing.assert_allclose(1 - np.cumprod(1 - u), visible[1:], atol=1e-12)
    assert u[-1] == 1


def test_a_schedule_for_each_position_reveals_each_by_its_own():
    """How often two positions are revealed at one step: by enumeration, and of the planner's own steps."""
    log_w = jnp.log(jnp.array([0.5, 1.0, 2.0, 3.5]))
    schedule, keys, numbers = PositionPowers(log_w), jax.random.split(jax.random.key(0), 2000), (4, 16, 64, 256)
    of = lambda steps: schedule.one_minus_alpha(jnp.arange(steps, -1, -1) / steps)
    grids = dict(zip(numbers, jax.jit(lambda: [of(steps) for steps in numbers])(), strict=True))
    for steps, known in ((4, 0.90), (16, 0.33), (64, 0.09), (256, 0.022)):
        hidden = np.asarray(grids[steps], np.float64)
        law = hidden[:-1] - hidden[1:]  # [T, L]: P(revealed at step k)
        apart = np.zeros(16)  # P(these positions are revealed so far, all at steps of their own)
        apart[0] = 1
        for row in law:
            apart += sum(
                np.where(np.arange(16) >> i & 1, apart[np.arange(16) ^ (1 << i)] * row[i], 0) for i in range(4)
            )
        together = 1 - apart[15]
        assert together == pytest.approx(known, abs=0.006)
        if steps not in (4, 64):
            continue
        drawn = jax.jit(jax.vmap(lambda key, steps=steps: reveal_steps(schedule, steps, draw_clocks(key, 4))))(keys)
        sharing = np.mean([len(set(row)) < 4 for row in np.asarray(drawn).tolist()])
        assert abs(sharing - together) < 4.5 * np.sqrt(together * (1 - together) / len(keys))
        for i in range(4):
            found = np.bincount(np.asarray(drawn)[:, i], minlength=steps) / len(keys)
            assert abs(found - law[:, i]).sum() / 2 < 2 * np.sqrt(steps / len(keys))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_counts_add_up(schedule):
    cases = [(0, 3), (1, 1), (5, 3), (256, 1000)]
    found = jax.jit(lambda: [visible_counts(schedule, steps, total) for total, steps in cases])()
    for (total, steps), counts in zip(cases, map(np.asarray, found), strict=True):
        assert counts[0] == 0 and counts[-1] == total and len(counts) == steps + 1
        assert (np.diff(counts) >= 0).all()


def chosen(confidence, count, open=None, tie=Confidence.tie):
    """Positions that `Confidence` reveals when it reveals `count` of the open ones, of a row of six, some closed."""
    given, more = len(confidence), 6 - len(confidence)
    confidence = np.append(np.asarray(confidence, np.float32), np.full(more, 0.99, np.float32))
    open = np.append(np.ones(given, bool) if open is None else open, np.zeros(more, bool))
    return np.flatnonzero(chosen_of(confidence, np.array([0, count, open.sum()]), open, tie)).tolist()


@functools.partial(jax.jit, static_argnames=("tie",))
def chosen_of(confidence, counts, open, tie):
    planner = Confidence(Linear(), 2, tie)
    return planner.choose(counts, planner.turn(counts, open), confidence)[0]


def test_confidence_takes_the_highest_and_of_ties_the_leftmost():
    assert chosen([0.1, 0.5, 0.2, 0.9, 0.3], 2) == [1, 3]
    assert chosen([0.1, 0.5, 0.2, 0.9, 0.3], 2, [True, True, True, False, True]) == [1, 4]
    assert chosen([0.1, 0.5, 0.5, 0.9, 0.5], 3) == [1, 2, 3]
    rounding = 1 + 1e-6 * np.array([0, 3, -2, 4, 1, 5])
    assert chosen(np.array([0.3, 0.7, 0.3, 0.7, 0.3, 0.3]) * rounding, 4) == [0, 1, 2, 3]
    assert chosen([0.3, 0.3 * (1 + 2e-4), 0.3], 1) == [1]
    assert chosen([0.3, 0.3 * (1 + 2e-4), 0.3], 1, tie=2.0**-5) == [0]
    assert chosen([0.28, 0.3, 0.29], 1, tie=2.0**-5) == [1]
    assert chosen([0.3 * 0.98**2, 0.3, 0.3 * 0.98], 1, tie=2.0**-5) == [0]  # neighbours chain
    assert chosen([0.3, 0.3 * (1 + 1e-6)], 1, tie=0) == [1]
    assert chosen([np.nan, 0.1, np.nan], 1) == [1]  # NaN comes last,
    assert chosen([np.nan, 0.1, np.nan], 2) == [0, 1]  # and no mask is left for it
    assert chosen([0.1, 0.1, np.nan, 0.1], 2, [False, True, True, True]) == [1, 3]


def test_stochastic_rounding_keeps_the_mean_count():
    """Five positions in three steps: 5/3 and 10/3 are visible after one and two."""
    planner = Confidence(Linear(), 3, rounding="stochastic")
    counts = np.asarray(
        jax.jit(jax.vmap(lambda k: planner.init(k, jnp.ones(5, bool))))(jax.random.split(jax.random.key(0), 900))
    )
    assert {tuple(c) for c in counts.tolist()} == {(0, 1, 3, 5), (0, 2, 3, 5), (0, 2, 4, 5)}
    for column, mean in (1, 5 / 3), (2, 10 / 3):
        part = mean % 1
        assert abs(counts[:, column].mean() - mean) < 4 * np.sqrt(part * (1 - part) / 900)
    floor = jax.jit(Confidence(Linear(), 3, rounding="floor").init)(jax.random.key(0), jnp.ones(5, bool))
    np.testing.assert_array_equal(floor, [0, 1, 3, 5])
    with pytest.raises(ValueError, match="rounding='up': choose one of nearest, floor, stochastic"):
        RandomCount(Linear(), 3, rounding="up")


@pytest.mark.parametrize("uniform", [None, 0.0, 1 - 2.0**-24])
def test_equal_steps_stay_equal_where_counts_round(uniform, monkeypatch):
    """n / T at each step, under "floor" and under "stochastic" whatever it draws: float32 has 1 - t beside k / T."""
    monkeypatch.setattr(jax.random, "uniform", lambda key: jnp.float32(uniform))
    rounding = ROUNDINGS["floor" if uniform is None else "stochastic"](jax.random.key(0))
    numbers, each = (1, 3, 6, 7, 10, 12, 100), np.array([1, 2, 3, 4, 8, 11, 64, 200])
    of = lambda steps: jax.vmap(lambda total: visible_counts(Linear(), steps, total, rounding))(each * steps)
    found = jax.jit(lambda: [of(steps) for steps in numbers])()
    for steps, counts in zip(numbers, found, strict=True):
        np.testing.assert_array_equal(np.diff(counts), np.repeat(each[:, None], steps, 1))


def test_stochastic_rounding_and_the_order_have_keys_of_their_own(monkeypatch):
    used, draw = [], planners.draw_clocks
    note = lambda key: used.append(jax.random.key_data(key))
    monkeypatch.setitem(ROUNDINGS, "stochastic", lambda key: note(key) or jnp.round)
    monkeypatch.setattr(planners, "draw_clocks", lambda key, length: note(key) or draw(key, length))

    @jax.jit
    def keys(key):
        for rounding in ("nearest", "stochastic"):
            RandomCount(Linear(), 3, rounding).init(key, jnp.ones(5, bool))
        return jax.random.key_data(key), used

    given, used = jax.tree.map(lambda x: x.tolist(), keys(jax.random.key(0)))
    assert used[0] == given and len(used) == 3
    assert given not in used[1:] and used[1] != used[2]


@pytest.mark.parametrize("bad", [(0.0, float("inf")), np.array([0.0, np.nan]), jnp.array([0.0, -jnp.inf])], ids=str)
def test_drawn_orders_of_weights_of_zero_and_infinity_are_refused(bad):
    with pytest.raises(ValueError, match="log_weights: .* must be > 0 and finite"):
        DrawnOrder(bad)
    jax.jit(lambda v: DrawnOrder(v).init(jax.random.key(0), jnp.ones(2, bool)))(jnp.zeros(2))


@pytest.mark.parametrize("planner", [Ancestral, RandomCount, Confidence])
def test_steps_below_one_are_refused(planner):
    with pytest.raises(ValueError, match=rf"{planner.__name__}\(steps=0\): steps must be >= 1"):
        planner(Linear(), 0)
    assert isinstance(planner(Linear(), 1), Planner)


@pytest.mark.parametrize("tie", [-0.1, 1.0, float("nan")])
def test_ties_outside_the_range_are_refused(tie):
    with pytest.raises(ValueError, match=r"tie must be in \[0, 1\)"):
        Confidence(Linear(), 1, tie)
