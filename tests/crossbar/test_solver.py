"""The solver of crossbars against Kirchhoff's laws at every node, and the identities of the specification."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

from mdmjax.crossbar import (
    NotConverged,
    Wires,
    checked_solve,
    condition,
    device_voltages,
    drop,
    effective_conductance,
    inverse_path_matrix,
    iterations_for,
    nodal,
    path_matrix,
    require,
    solve,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("x64")


def random_tile(seed, rows, columns, on_off=np.inf, density=0.3):
    rng = np.random.default_rng(seed)
    return np.where(rng.random((rows, columns)) < density, 1.0, 1 / on_off), rng.random(rows)


def solved(g, v, wires, **choices):
    n = iterations_for(1e-14, condition(float(np.max(g, initial=0.0)), *g.shape[-2:], wires))
    return jax.jit(lambda g, v, wires: solve(g, v, wires, iterations=n, **choices))(
        jnp.asarray(g), jnp.asarray(v), wires
    )


def sparse(g, v, wires):
    """The nodal form, sparse."""
    rows, columns = g.shape
    gamma = sp.diags(g.ravel())
    word = sp.kron(sp.eye(rows), inverse_path_matrix(columns)) / wires.word + gamma
    bit = sp.kron(inverse_path_matrix(rows), sp.eye(columns)) / wires.bit + gamma
    source = np.zeros((2, rows, columns))
    source[0, :, 0] = v / wires.word
    nodes = spsolve(sp.bmat([[word, -gamma], [-gamma, bit]]).tocsc(), source.ravel()).reshape(2, rows, columns)
    return nodes[1, 0] / wires.bit, nodes


@pytest.mark.parametrize("size", [(16, 24), (64, 64)])
@pytest.mark.parametrize("on_off", [10, 1000, np.inf])
def test_the_device_form_is_the_nodal_form(size, on_off):
    wires = Wires(2e-4, 5e-4)
    g, v = random_tile(0, *size, on_off)
    found, (expected, nodes) = solved(g, v, wires), sparse(g, v, wires)
    np.testing.assert_allclose(found.currents, expected, rtol=1e-11)
    np.testing.assert_allclose(found.voltages, nodes[0] - nodes[1], atol=1e-11)
    if size == (16, 24):
        np.testing.assert_allclose(nodal(g, v, wires), expected, rtol=1e-11)
    s = np.sqrt(g)
    y = s * np.asarray(found.voltages)
    left = y + s * np.asarray(drop(jnp.asarray(s * y), wires)) - s * v[:, None]
    assert np.linalg.norm(left) / np.linalg.norm(s * v[:, None]) < 1e-12 and float(found.residual) < 1e-12
    assert (nodes > -1e-12).all() and nodes.max() <= v.max() + 1e-12


@pytest.mark.parametrize("at", [(0, 0), (5, 40), (63, 63)])
def test_a_single_cell(at):
    """I = V / (R_on + r_w (k + 1) + r_b (j + 1))."""
    g, wires = np.zeros((64, 64)), Wires(3e-3, 7e-3)
    g[at] = 1
    found = solved(g, np.full(64, 0.7), wires)
    expected = 0.7 / (1 + 3e-3 * (at[1] + 1) + 7e-3 * (at[0] + 1))
    np.testing.assert_allclose(found.currents[at[1]], expected, rtol=1e-13)


def test_energy_and_current_are_kept():
    """sum I_in = sum I, and the power of the drivers is what devices and segments take (Kirchhoff, Tellegen)."""
    g, v = random_tile(1, 12, 15, 100)
    wires = Wires(2e-2, 5e-2)
    found = solved(g, v, wires)
    z = np.asarray(g * found.voltages)
    inwards = z.sum(1)
    np.testing.assert_allclose(inwards.sum(), found.currents.sum(), rtol=1e-10)
    tails = lambda axis: np.flip(np.cumsum(np.flip(z, axis), axis), axis)
    power = (
        (g * np.square(found.voltages)).sum() + wires.word * (tails(1) ** 2).sum() + wires.bit * (tails(0) ** 2).sum()
    )
    np.testing.assert_allclose(v @ inwards, power, rtol=1e-10)


def test_reciprocity_superposition_and_scale():
    g, v = random_tile(2, 12, 15, 50)
    wires, n = Wires(1e-2, 3e-2), 80
    whole = lambda g, wires: effective_conductance(jnp.asarray(g), wires, iterations=n)[0]
    one, turned = whole(g, wires), whole(g.T, Wires(wires.bit, wires.word))
    np.testing.assert_allclose(one.T, turned, rtol=1e-12)
    found = solved(g, v, wires)
    np.testing.assert_allclose(one @ v, found.currents, rtol=1e-11)
    np.testing.assert_allclose(solved(3 * g, v, Wires(1e-2 / 3, 1e-2)).currents, 3 * found.currents, rtol=1e-11)
    ones = np.ones(12)
    np.testing.assert_allclose(
        solved(g, ones, wires).currents.sum(), solved(g.T, np.ones(15), Wires(3e-2, 1e-2)).currents.sum(), rtol=1e-11
    )


def test_lines_without_resistance():
    """r = 0: the ideal currents exactly. r_w = 0: columns are ladders of their own. r_b = 0: rows are."""
    g, v = random_tile(3, 9, 7, 20)
    assert (solved(g, v, Wires(0.0, 0.0)).currents == (g * v[:, None]).sum(0)).all()

    def ladder(g, v, r):
        """The current into ground of a line whose cells, the first the nearest, join sources v over g."""
        t = inverse_path_matrix(len(g)) / r + np.diag(g)
        return np.linalg.solve(t, g * v)[0] / r

    by_columns = [ladder(g[:, k], v, 0.03) for k in range(7)]
    np.testing.assert_allclose(solved(g, v, Wires(0.0, 0.03)).currents, by_columns, rtol=1e-12)
    rows = [np.linalg.solve(np.eye(7) + 0.03 * path_matrix(7) * g[j], np.full(7, v[j])) * g[j] for j in range(9)]
    np.testing.assert_allclose(solved(g, v, Wires(0.03, 0.0)).currents, np.sum(rows, 0), rtol=1e-12)
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_allclose(
        solved(g[order], v[order], Wires(0.03, 0.0)).currents, solved(g, v, Wires(0.03, 0.0)).currents, rtol=1e-12
    )


def test_padding():
    """Far absent cells change nothing; a row of zeros at the near end is one r_b more for every column."""
    g, v = random_tile(4, 10, 8, np.inf)
    wires = Wires(1e-2, 2e-2)
    plain = solved(g, v, wires).currents
    padded = solved(np.pad(g, ((0, 5), (0, 3))), np.pad(v, (0, 5)), wires).currents
    np.testing.assert_allclose(padded[:8], plain, rtol=1e-13)
    near = solved(np.pad(g, ((1, 0), (0, 0))), np.pad(v, (1, 0)), wires).currents
    rows, columns = g.shape
    gamma = np.diag(g.ravel())
    inverse = inverse_path_matrix(rows)
    inverse[0, 0] += -1 + 1 / 2  # two segments to the ground
    word, bit = np.kron(np.eye(rows), inverse_path_matrix(columns)) / 1e-2, np.kron(inverse, np.eye(columns)) / 2e-2
    source = np.zeros((2, rows, columns))
    source[0, :, 0] = v / 1e-2
    nodes = np.linalg.solve(np.block([[word + gamma, -gamma], [-gamma, bit + gamma]]), source.ravel())
    np.testing.assert_allclose(near, nodes[rows * columns :][:columns] / 4e-2, rtol=1e-10)


def test_gradients_are_those_of_differences():
    g, v = random_tile(5, 6, 5, np.inf)
    wires, weights = Wires(2e-2, 5e-2), np.random.default_rng(1).normal(size=5)

    @jax.jit
    def loss(g, v, word, bit):
        return solve(g, v, Wires(word, bit), iterations=60).currents @ weights

    at = [jnp.asarray(g), jnp.asarray(v), jnp.asarray(wires.word), jnp.asarray(wires.bit)]
    found = jax.jit(jax.grad(loss, (0, 1, 2, 3)))(*at)
    for i, (x, slope) in enumerate(zip(at, found, strict=True)):
        for place in np.ndindex(x.shape):
            move = lambda h, i=i, place=place: loss(*(y.at[place].add(h) if n == i else y for n, y in enumerate(at)))
            h = 1e-5
            if i == 0 and g[place] == 0:  # a conductance is not negative: one-sided, second order
                difference = (-3 * move(0.0) + 4 * move(h) - move(2 * h)) / (2 * h)
            else:
                difference = (move(h) - move(-h)) / (2 * h)
            np.testing.assert_allclose(slope[place], difference, rtol=1e-7, atol=1e-8)


def test_nothing_gives_nothing():
    """All cells absent, or no input: zeros, a residual of 0, and gradients that are numbers."""
    wires = Wires(1e-2, 1e-2)
    loss = lambda g, v: solve(g, v, wires, iterations=5).currents.sum()
    for g, v in ((np.zeros((4, 3)), np.ones(4)), (np.ones((4, 3)), np.zeros(4))):
        found = solved(g, v, wires)
        assert not found.currents.any() and float(found.residual) == 0
        assert all(np.isfinite(x).all() for x in jax.grad(loss, (0, 1))(jnp.asarray(g), jnp.asarray(v)))


def test_batches_loops_and_precisions():
    tiles = [random_tile(seed, 64, 64, 100) for seed in range(3)]
    g, v = (jnp.asarray(np.stack(x)) for x in zip(*tiles, strict=True))
    wires = Wires(2.5e-4, 2.5e-4)
    together = solved(g, v, wires)
    for i, (one, own) in enumerate(tiles):
        np.testing.assert_allclose(solved(one, own, wires).currents, together.currents[i], rtol=1e-12)
    np.testing.assert_allclose(solved(g, v, wires, sums=True).currents, together.currents, rtol=1e-12)
    by_vmap = jax.vmap(lambda g, v: solve(g, v, wires, iterations=30).currents)(g, v)
    np.testing.assert_allclose(by_vmap, together.currents, rtol=1e-12)
    single = solved(g.astype(jnp.float32), v.astype(jnp.float32), wires)
    assert single.currents.dtype == jnp.float32
    np.testing.assert_allclose(single.currents, together.currents, rtol=1e-6)


def test_too_few_iterations_are_said():
    tiles = [random_tile(seed, 32, 32, np.inf, density) for seed, density in ((0, 0.05), (1, 0.9))]
    g, v = (jnp.asarray(np.stack(x)) for x in zip(*tiles, strict=True))
    with pytest.raises(NotConverged, match=r"tile 1: the residual is .*, above 1e-10: the wires are too resistive"):
        require(solve(g, v, Wires(1e-2, 1e-2), iterations=4), 1e-10)
    assert require(solved(g, v, Wires(1e-2, 1e-2)), 1e-10).currents.shape == (2, 32)


@pytest.mark.parametrize("rho", [1e-4, 3e-3, 1e-1])
def test_so_many_iterations_are_enough(rho):
    """In the energy norm of dense A, from y = b, for random sources and the tile of all cells, whose kappa is exact."""
    wires, g = Wires(rho, 2 * rho), np.stack([np.ones((12, 9)), random_tile(3, 12, 9)[0]])
    source = np.random.default_rng(0).normal(size=(2, 12, 9))
    kappa = condition(1.0, 12, 9, wires)
    for t, (tile, drive) in enumerate(zip(g, source, strict=True)):
        s = np.sqrt(tile).ravel()
        lines = rho * np.kron(np.eye(12), path_matrix(9)) + 2 * rho * np.kron(path_matrix(12), np.eye(9))
        a, b = np.eye(s.size) + s[:, None] * lines * s, s * drive.ravel()
        assert np.linalg.eigvalsh(a)[-1] <= (1 + kappa) * (1 + 1e-12)
        exact = np.linalg.solve(a, b)
        norm = lambda y, a=a: np.sqrt(y @ a @ y)
        for tolerance in (1e-2, 1e-6):
            n = iterations_for(tolerance, kappa)
            assert n <= max(1, np.ceil(np.sqrt(1 + kappa) / 2 * np.log(2 / tolerance)))
            found, *_ = device_voltages(jnp.asarray(g), jnp.asarray(source), wires, n)
            y = s * np.asarray(found)[t].ravel()  # s.X - exact = (1 - A) (y_n - exact), hence kappa
            assert norm(y - exact) <= tolerance * kappa * norm(b - exact)
    assert iterations_for(1e-6, 0.0) == 1


def test_paths():
    for n in (1, 2, 7):
        p = path_matrix(n)
        np.testing.assert_allclose(p @ inverse_path_matrix(n), np.eye(n), atol=1e-12)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 4)))
    wires = Wires(0.3, 0.7)
    np.testing.assert_allclose(drop(z, wires), drop(z, wires, sums=True), rtol=1e-12, atol=1e-12)


def test_more_resistance_is_less_power():
    g, v = random_tile(6, 10, 9, 30)
    power = lambda g, wires: float(v @ np.asarray(g * solved(g, v, wires).voltages).sum(1))
    base = power(g, Wires(1e-2, 2e-2))
    assert power(g, Wires(1.1e-2, 2e-2)) < base > power(g, Wires(1e-2, 2.2e-2))
    for at in ((0, 0), (3, 4), (9, 8)):
        less = g.copy()
        less[at] *= 0.9
        assert power(less, Wires(1e-2, 2e-2)) < base


def test_voltages_of_any_source():
    """The equation itself."""
    g, _ = random_tile(7, 8, 6, 15)
    wires, source = Wires(2e-2, 1e-2), np.random.default_rng(3).normal(size=(8, 6))
    x, flows, residual = device_voltages(jnp.asarray(g), jnp.asarray(source), wires, 60)
    np.testing.assert_allclose(x + drop(g * x, wires), source, atol=1e-12)
    np.testing.assert_allclose(flows, g * x, atol=1e-12)
    assert float(residual) < 1e-12


@pytest.mark.parametrize("rho, least", [(1e-3, 1e-8), (0.1, 3e-6)])
def test_the_residual_is_that_of_the_answer(rho, least):
    """In float32 too, where rounding stops what the iteration's own vector says goes on falling; currents to it."""
    g, v = random_tile(9, 64, 64, 10)
    wires = Wires(rho, rho)
    n = iterations_for(1e-9, condition(1.0, 64, 64, wires))
    found = solve(jnp.asarray(g, jnp.float32), jnp.asarray(v, jnp.float32), wires, iterations=n)
    s = np.sqrt(g)
    y = np.asarray(found.voltages, np.float64) * s
    left = y + s * np.asarray(drop(jnp.asarray(s * y), wires)) - s * v[:, None]
    recomputed = np.linalg.norm(left) / np.linalg.norm(s * v[:, None])
    assert least < float(found.residual) < 20 * n * 6e-8 and recomputed < 1e-3  # L amplifies what is left of X
    error = np.abs(found.currents / solved(g, v, wires).currents - 1).max()
    assert error < 30 * float(found.residual)
    if rho == 0.1:
        with pytest.raises(NotConverged, match="use float64, or a larger tolerance"):
            checked_solve(g, v, wires)


@pytest.mark.parametrize("amplitude", [1e-20, 1e20])
def test_small_and_large_inputs(amplitude):
    """Currents are linear in them, and no square underflows or overflows in float32."""
    g = np.ones((8, 8))
    one = checked_solve(g, np.ones(8), Wires(0.1, 0.1)).currents
    found = checked_solve(g, np.full(8, amplitude), Wires(0.1, 0.1)).currents
    np.testing.assert_allclose(found / amplitude, one, rtol=1e-5)


def test_gradients_of_a_batch_are_those_of_each():
    tiles = [random_tile(seed, 5, 6, 20) for seed in range(3)]
    g, v = (jnp.asarray(np.stack(x)) for x in zip(*tiles, strict=True))
    slope = jax.grad(lambda g, v: solve(g, v, Wires(2e-2, 1e-2), iterations=40).currents[1])
    together = jax.vmap(slope)(g, v)
    for i in range(3):
        np.testing.assert_allclose(together[i], slope(g[i], v[i]), rtol=1e-12, atol=1e-15)
    wires = jax.grad(lambda r: solve(jnp.zeros((3, 4)), jnp.ones(3), Wires(r, r), iterations=5).currents.sum())(0.1)
    assert float(wires) == 0
    with pytest.raises(ValueError, match=r"wires of shapes \(3,\), \(\): must be two numbers"):
        solve(g, v, Wires(jnp.ones(3), 0.1), iterations=3)


def test_compiled_and_not_compiled():
    """The same currents and gradients; and any number of iterations by one compilation."""
    g, v = (jnp.asarray(x) for x in random_tile(8, 7, 9, 20))
    wires = Wires(2e-2, 1e-2)
    loss = lambda g: solve(g, v, wires, iterations=40).currents.sum()
    for f in (loss, jax.grad(loss)):
        with jax.disable_jit():
            eager = f(g)
        np.testing.assert_allclose(jax.jit(f)(g), eager, rtol=1e-13, atol=1e-15)
    traces = []

    @jax.jit
    def effective(iterations):
        traces.append(1)
        return effective_conductance(g, wires, iterations=iterations)

    (_, rough), (found, fine) = effective(3), effective(60)
    assert len(traces) == 1 and rough > 1e-6 > 1e-14 > fine
    np.testing.assert_array_equal(found, effective_conductance(g, wires, iterations=60)[0])


def test_what_a_user_gives_is_checked():
    tiles = [random_tile(seed, 6, 5, 10) for seed in range(3)]
    g, v = (np.stack(x) for x in zip(*tiles, strict=True))
    wires = Wires(1e-2, 2e-2)
    found = checked_solve(g, v, wires, tolerance=1e-12, dtype=jnp.float64)
    np.testing.assert_allclose(found.currents, solved(jnp.asarray(g), jnp.asarray(v), wires).currents, rtol=1e-11)

    def spoiled(at, value):
        other = g.copy()
        other[at] = value
        return other

    for bad, words in (
        (dict(conductance=spoiled((1, 2, 3), -0.1)), r"tile 1: the conductance at \(2, 3\) is -0.1"),
        (dict(conductance=spoiled((2, 0, 4), np.nan)), r"tile 2: the conductance at \(0, 4\) is nan"),
        (dict(conductance=spoiled((0, 5, 0), np.inf)), r"tile 0: the conductance at \(5, 0\) is inf"),
        (dict(conductance=spoiled(2, 0.0)), "tile 2: no cell conducts"),
        (dict(inputs=np.full((3, 6), np.nan)), "inputs: 18 of them are not finite"),
        (dict(wires=Wires(-1.0, 0.0)), r"wires=\(-1.0, 0.0\): resistances must be finite and not negative"),
    ):
        with pytest.raises(ValueError, match=words):
            checked_solve(**dict(conductance=g, inputs=v, wires=wires) | bad)
    with pytest.raises(NotConverged, match="tile .: the residual is"):
        checked_solve(g, v, Wires(10.0, 10.0), tolerance=1e-9)  # float32 does not go so far
    assert np.isnan(solve(jnp.asarray(spoiled((1, 2, 3), -0.1)), jnp.asarray(v), wires, iterations=9).residual[1])
