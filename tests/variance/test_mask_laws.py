"""Laws of rates and masks against brute force: all cells, permutations and pairs; and what is refused."""

import itertools

import numpy as np
import pytest
from exact_toy import LENGTH, random_table, toy
from scipy import integrate

from mdmjax.analysis import all_masks
from mdmjax.variance import (
    Parts,
    bernoulli_law,
    count_law,
    coupled_law,
    decompose,
    iid_pair,
    minimum_variance,
    mirror_pair,
    optimal_density,
    pattern_variance,
    proxy_moment,
    rate_law,
    second_moment,
    tail_slope,
)


def number(mask):
    return int("".join(str(int(x)) for x in mask), 2)


def cells_joint(length, r):
    """P(m1, m2) of MIRROR, from the cells of [0, 1] that 1[U < r] and 1[U > 1 - r] divide it into."""
    ends = sorted([0, r, 1 - r, 1])
    cells = [(b - a, (a + b) / 2) for a, b in itertools.pairwise(ends)]
    joint = np.zeros((2**length,) * 2)
    for chosen in itertools.product(cells, repeat=length):
        p, u = np.array(chosen).T
        joint[number(u < r), number(u > 1 - r)] += p.prod()
    return joint


def joint_matrix(pair, j):
    return pair.joint(j, np.eye(pair.masks.shape[1]))


@pytest.mark.parametrize("r", [0.03, 0.3, 0.5, 0.8, 1.0])
def test_the_joint_law_of_mirrored_masks(r):
    law = bernoulli_law(3, np.array([0.2, r]), np.array([0.5, 0.5]))
    joint, masks = joint_matrix(mirror_pair(law), 1), all_masks(3)
    assert joint == pytest.approx(cells_joint(3, r), abs=1e-12)
    assert joint.sum(0) == pytest.approx(law.masks[1], abs=1e-12)
    assert joint.sum(1) == pytest.approx(law.masks[1], abs=1e-12)
    first, second = masks[:, None, 0], masks[None, :, 0]
    assert (joint * (first & second)).sum() == pytest.approx(max(0, 2 * r - 1), abs=1e-12)
    assert (joint * (first | second)).sum() == pytest.approx(min(1, 2 * r), abs=1e-12)
    covariance = (joint * (first & second)).sum() - r**2
    assert covariance == pytest.approx(-(min(r, 1 - r) ** 2), abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_joint_law_of_mirrored_counts(count):
    """The first and the last l of all 5! permutations."""
    expected = np.zeros((32, 32))
    for order in itertools.permutations(range(5)):
        first, last = (number(np.isin(range(5), part)) for part in (order[:count], order[-count:]))
        expected[first, last] += 1 / 120
    law = count_law(5)
    assert joint_matrix(mirror_pair(law), count - 1) == pytest.approx(expected, abs=1e-12)
    assert law.masks[count - 1] == pytest.approx(expected.sum(0), abs=1e-12)


def test_the_joint_law_of_coupled_and_of_independent_masks():
    law = coupled_law(3, 0.05, nodes=10)
    assert law.rates[0] + law.rates[10] == pytest.approx(1, abs=1e-12)
    assert law.first.factors * law.rates == pytest.approx(0.9)
    assert law.second.factors * (1 - law.rates) == pytest.approx(0.9)
    for j, r in enumerate(law.rates):
        sizes = all_masks(3).sum(1)
        expected = np.diag(r**sizes * (1 - r) ** (3 - sizes))[:, ::-1]
        assert joint_matrix(law, j) == pytest.approx(expected, abs=1e-12)
        assert law.second.masks[j] == pytest.approx(expected.sum(0), abs=1e-12)
    law = bernoulli_law(3, np.array([0.3]), np.ones(1))
    assert joint_matrix(iid_pair(law), 0) == pytest.approx(np.outer(law.masks[0], law.masks[0]), abs=1e-12)


DENSITY = lambda r: 0.3 + np.sin(5 * r) ** 2
LAWS = {
    "rates": lambda: rate_law(3, 0.02, nodes=40),
    "bins": lambda: rate_law(3, 0.02, DENSITY, nodes=40, bins=3),
    "counts": lambda: count_law(3).reweighted(np.array([1.0, 0.5, 2.0])),
    "mirror": lambda: mirror_pair(rate_law(3, 0.02, DENSITY, nodes=40)),
    "mirrored counts": lambda: mirror_pair(count_law(3)).reweighted(DENSITY),
    "independent": lambda: iid_pair(rate_law(3, 0.02, nodes=40)).reweighted(DENSITY),
    "coupled": lambda: coupled_law(3, 0.02, nodes=40),
}


@pytest.mark.parametrize("columns", [(), (2,)])
@pytest.mark.parametrize("name", LAWS)
def test_the_parts_add_up_to_the_variance(name, columns):
    """The variance over all (x, rate, mask) or (x, rate, mask, mask) at once."""
    law, (table, p) = LAWS[name](), random_table(3, columns=columns)
    values = table.reshape(3, 8, -1)
    z, weights = [], []
    for j, q in enumerate(law.probabilities):
        if hasattr(law, "joint"):
            first, second = (values * x.factors[j] for x in (law.first, law.second))
            z.append(((first[:, :, None] + second[:, None]) / 2).reshape(3, 64, -1))
            inside = joint_matrix(law, j).ravel()
        else:
            z.append(values * law.factors[j])
            inside = law.masks[j]
        weights.append(p[:, None] * q * inside)
    z, weights = np.stack(z), np.stack(weights)
    mean = np.einsum("jxm,jxmp->p", weights, z)
    total = np.einsum("jxm,jxmp->", weights, (z - mean) ** 2)
    parts = decompose(table, law, p)
    assert np.ravel(parts.mean) == pytest.approx(mean, abs=1e-10)
    assert np.shape(parts.mean) == columns
    assert parts.total == pytest.approx(total, abs=1e-10)
    second = second_moment(table, law, p)
    assert law.probabilities @ second - mean @ mean == pytest.approx(total, abs=1e-10)
    assert law.probabilities @ pattern_variance(table, law, p) == pytest.approx(parts.pattern, abs=1e-10)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_mirror_by_adaptive_quadrature(seed):
    """In another variable, by another rule, from the three cells of each token; with a break at its kink, r = 1/2."""
    t, eps = toy(seed), 0.01
    sizes = all_masks(LENGTH).sum(1)

    def second(r):
        both = cells_joint(LENGTH, r)
        single = r**sizes * (1 - r) ** (LENGTH - sizes)
        values = (t.loss**2 @ single + np.einsum("xm,mn,xn->x", t.loss, both, t.loss)) / 2
        return t.p @ values / r**2 * (1 - eps)

    e2 = sum(integrate.quad(second, *ends, epsrel=1e-9)[0] for ends in ((eps, 0.1), (0.1, 0.5), (0.5, 1)))
    parts = decompose(t.loss, mirror_pair(rate_law(LENGTH, eps)), t.p)
    assert parts.total == pytest.approx(e2 - parts.mean**2, abs=1e-8)


# ---- what will not do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message, make",
    [
        ("eps=0: must be in \\(0, 1\\)", lambda: rate_law(3, 0)),
        ("eps=1: must be in \\(0, 1\\)", lambda: rate_law(3, 1)),
        ("eps=0.5: must be in \\(0, 1/2\\)", lambda: coupled_law(3, 0.5)),
        ("nodes=0: must be >= 1", lambda: rate_law(3, 0.1, nodes=0)),
        ("nodes=2: too few", lambda: rate_law(3, 1e-8, nodes=2)),
        ("bins=0: must be >= 1", lambda: rate_law(3, 0.1, bins=0)),
        ("length 11: .* from 1 to 10", lambda: rate_law(11, 0.1)),
        ("length 11: .* from 1 to 10", lambda: coupled_law(11, 0.1)),
        ("length 40: .* from 1 to 10", lambda: count_law(40)),
        ("density: must be > 0 and finite at every rate, not 0.0", lambda: rate_law(3, 0.1, lambda r: r * (r > 0.5))),
        ("density: must be > 0 .* not inf", lambda: count_law(3).reweighted(np.array([1, 2, np.inf]))),
        ("density: the shape \\[2\\] must be \\[3\\]", lambda: mirror_pair(count_law(3)).reweighted(np.ones(2))),
        ("rates: must be in \\(0, 1\\], not 1.5", lambda: bernoulli_law(3, np.array([0.5, 1.5]), np.ones(2) / 2)),
        ("factors: the shape \\[2\\] must be \\[1\\]", lambda: bernoulli_law(3, np.ones(1), np.ones(1), np.ones(2))),
        ("probabilities: .* sum to 1, not to 2.0", lambda: bernoulli_law(3, np.ones(2), np.ones(2))),
        ("probabilities: the shape \\[2\\] must be \\[1\\]", lambda: decompose(*given(p=np.ones(2) / 2))),
        ("probabilities: must be >= 0", lambda: decompose(*given(2, p=np.array([1.5, -0.5])))),
        ("probabilities: .* sum to 1, not to 0.9", lambda: second_moment(*given(p=np.array([0.9])))),
        ("table \\[1, 7\\]: .* 2\\^L masks, L from 1 to 10", lambda: decompose(*given(masks=7))),
        ("table \\[1, 2048\\]: .* 2\\^L masks", lambda: tail_slope(np.ones((1, 2048)), np.ones(1))),
        ("table \\[1, 4\\]: .* the law's 8 masks", lambda: proxy_moment(*given(masks=4))),
        ("moment: the shape \\[2\\] must be \\[3\\]", lambda: optimal_density(np.ones(2), count_law(3))),
        ("moment: the shape \\[2\\] must be \\[3\\]", lambda: minimum_variance(np.ones(2), count_law(3), 0.0)),
        ("masks=0: must be >= 1", lambda: Parts(0.0, 1.0, 1.0, 1.0).averaged(masks=0)),
    ],
)
def test_what_will_not_do(message, make):
    with pytest.raises(ValueError, match=message):
        make()


def given(examples=1, masks=8, p=None):
    return np.ones((examples, masks)), count_law(3), np.ones(examples) / examples if p is None else p
