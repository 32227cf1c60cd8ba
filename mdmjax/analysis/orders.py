"""The bound as a mixture of autoregressive losses over decoding orders, exactly, in four ways that agree.

With a time-free denoiser and a schedule for each position, the continuous-time bound is

    NELBO(x) = sum_pi P(pi) sum_i CE_{pi_i}({pi_1 .. pi_{i-1}}),

CE_l(S) the loss of position l where exactly S is visible (arXiv 2511.19152, proposition 3.1). Here it is an integral
over t, a sum over all orders, or a recursion over the 2^L sets of hidden positions.

`losses` [2^L, L] are those of `masked_losses`: a row for each set of hidden positions in the order of `all_masks`, so
that row h reads as a number whose most significant bit is position 0. In nats; differentiable where JAX is.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdmjax.analysis.bounds import all_masks
from mdmjax.base import Schedule
from mdmjax.process import check_log_weights

MAX_ORDERS = 8  # positions whose L! orders are enumerated

Losses = Float[Array, "M L"] | Float[np.ndarray, "M L"]


def all_orders(length: int) -> Int[np.ndarray, "P L"]:
    """All L! orders, the first position to be revealed first. ValueError for L > 8."""
    if not 1 <= length <= MAX_ORDERS:
        raise ValueError(f"length {length}: enumeration of orders is for lengths 1 to {MAX_ORDERS}")
    return np.array(list(itertools.permutations(range(length))))


def order_losses(losses: Losses) -> Float[Array, "P"]:
    """AR(pi) = sum_i CE_{pi_i}({pi_1 .. pi_{i-1}}) of every order in `all_orders`. ValueError for L > 8."""
    length = losses.shape[1]
    orders = all_orders(length)
    place = 2 ** np.arange(length)[::-1]
    hidden = (2**length - 1) - np.cumsum(place[orders], 1) + place[orders]
    return jnp.asarray(losses)[hidden, orders].sum(1)


def bound_over_orders(losses: Losses, probabilities: Float[Array, "P"]) -> Float[Array, ""]:
    """sum_pi P(pi) AR(pi), for any law over the orders of `all_orders`."""
    return (order_losses(losses) * probabilities).sum()


def order_bound(losses: Losses, log_weights: Float[Array, "L"]) -> Float[Array, ""]:
    """The bound under the Plackett-Luce law of weights w, by recursion over hidden sets H, O(2^L L) for L <= 16:

        V(H) = sum_{l in H} w_l / W(H) (CE_l(H) + V(H - l)),   V(empty) = 0,   NELBO = V(all).

    ValueError for L > 16 and for weights of zero or infinity.
    """
    return _over_hidden_sets(losses, log_weights, lambda v, ce, rest: (jax.nn.softmax(v, 1) * (ce + rest)).sum(1))


def order_log_likelihood(losses: Losses, log_weights: Float[Array, "L"]) -> Float[Array, ""]:
    """log P(x) of a row x, in nats, where samples are drawn one position a call in orders of the Plackett-Luce law:

        R(H) = sum_{l in H} w_l / W(H) p_l(x_l | visible) R(H - l),   R(empty) = 1,   P(x) = R(all),   p_l = exp(-CE_l).

    The exact likelihood of which -`order_bound` is a lower bound, by Jensen. In logarithms; O(2^L L) for L <= 16.
    ValueError as `order_bound`.
    """
    paths = lambda v, ce, rest: jax.nn.logsumexp(jax.nn.log_softmax(v, 1) - ce + rest, 1)
    return _over_hidden_sets(losses, log_weights, paths)


def _over_hidden_sets(losses: Losses, log_weights: Float[Array, "L"], combine: Callable) -> Float[Array, ""]:
    """V(all), where V(H) = combine(log w_l, CE_l(H), V(H - l) for l in H) and V(empty) = 0, level by level."""
    check_log_weights(log_weights)
    levels = _levels(losses.shape[1])
    losses = jnp.asarray(losses)
    value = jnp.zeros(losses.shape[0], losses.dtype)
    for sets, members in levels[1:]:
        smaller = sets[:, None] - (1 << (losses.shape[1] - 1 - members))
        value = value.at[sets].set(combine(log_weights[members], losses[sets[:, None], members], value[smaller]))
    return value[-1]


def hidden_law(log_weights: Float[Array, "L"]) -> Float[Array, "M"]:
    """P(H is ever the set of hidden positions), for every set; those of a size sum to 1.

    ValueError for L > 16 and for weights of zero or infinity.
    """
    check_log_weights(log_weights)
    length = log_weights.shape[0]
    levels = _levels(length)
    law = jnp.zeros(2**length, log_weights.dtype).at[-1].set(1)
    for sets, members in levels[:0:-1]:
        p = jax.nn.softmax(log_weights[members], axis=1)
        smaller = sets[:, None] - (1 << (length - 1 - members))
        law = law.at[smaller].add(law[sets][:, None] * p)
    return law


def order_entropy(log_weights: Float[Array, "L"]) -> Float[Array, ""]:
    """The entropy of the Plackett-Luce law, in nats: by the chain rule over hidden sets.

    exp of it is the effective number of orders, L! for equal weights. ValueError as `hidden_law`.
    """
    length, law = log_weights.shape[0], hidden_law(log_weights)
    total = jnp.zeros((), law.dtype)
    for sets, members in _levels(length)[1:]:
        log_p = jax.nn.log_softmax(log_weights[members], axis=1)
        total += (law[sets] * -(jnp.exp(log_p) * log_p).sum(1)).sum()
    return total


def _levels(length: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each size k = 0..L: (hidden sets of that size [n], their members [n, k])."""
    masks = all_masks(length)
    sizes = masks.sum(1)
    return [
        (np.flatnonzero(sizes == k), np.nonzero(masks[sizes == k])[1].reshape((sizes == k).sum(), k))
        for k in range(length + 1)
    ]


# ---- any schedules ---------------------------------------------------------------------------------------------------


def multivariate_bound(losses: Losses | Callable[[float], Losses], schedule: Schedule) -> Float[Array, ""]:
    """The continuous-time bound of a schedule with a trailing axis L, as an integral over t:

        int_0^1 sum_l weight_l(t) E_masks[ 1{l masked} CE_l(visible) ] dt.

    `losses` may be a function of t, for a denoiser that is. By quadrature; relative error in float64 about 1e-11.
    """
    t, dt = unit_nodes()
    there = t > np.finfo(jnp.result_type(float)).tiny  # float32 has no smaller ones
    t, dt = jnp.asarray(t[there]), dt[there]
    at = losses if callable(losses) else lambda _: losses

    def integrand(t):
        rates = jnp.asarray(at(t)) * schedule.weight(t)[None]
        return (mask_law(schedule, t) * rates.sum(1)).sum()

    return (jax.lax.map(integrand, t) * jnp.asarray(dt)).sum()


def mask_law(schedule: Schedule, t: Float[Array, ""]) -> Float[Array, "M"]:
    """P(exactly the positions of H are masked at t), for every set H."""
    hidden, visible = schedule.one_minus_alpha(t), schedule.alpha(t)
    return jnp.where(all_masks(hidden.shape[-1]), hidden[None], visible[None]).prod(1)


def discrete_multivariate_bound(losses: Losses, schedule: Schedule, steps: int) -> Float[Array, ""]:
    """The T-step bound of a schedule with a trailing axis L, t = i/T and s = (i-1)/T:

        sum_i E[ sum_l (1 - m_l(s) / m_l(t)) 1{l masked at t} CE_l(visible) ],   m = 1 - alpha.

    Tends to the continuous-time bound at the rate 1/T, from either side. ValueError for steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: must be >= 1")

    def term(i):
        hidden, before = schedule.one_minus_alpha(i / steps), schedule.one_minus_alpha(jnp.maximum(i - 1, 0.5) / steps)
        before = jnp.where(i > 1, before, 0)  # not m(0), whose derivative in a power is 0 times infinity
        kept = before / jnp.where(hidden > 0, hidden, 1)  # a large power leaves nothing of m: then nothing is masked
        return (mask_law(schedule, i / steps) * (jnp.asarray(losses) * (1 - kept)[None]).sum(1)).sum()

    return jax.lax.map(term, jnp.arange(1, steps + 1) * 1.0).sum()


def order_law(schedule: Schedule) -> Float[np.ndarray, "P"]:
    """P(pi) of every order in `all_orders` under any schedule with a trailing axis L, by nested cumulative integration:

        F(t) = int_0^t -alpha_l'(s) F_next(s) ds from the last position to be revealed to the first;   P(pi) = F(1).

    On the host. Error about 1e-9 where the densities are smooth inside (0, 1). ValueError for L > 8.
    """
    t, _ = unit_nodes()
    with jax.enable_x64(True):
        time = jnp.asarray(t)
        density = np.asarray(schedule.weight(time) * schedule.one_minus_alpha(time)).T
    memo = {(): (np.ones(len(t)), 1.0)}

    def race(suffix):  # the curve F of the positions of `suffix`, the last revealed at its end, and F(1)
        if suffix not in memo:
            memo[suffix] = _cumulative(density[suffix[0]] * race(suffix[1:])[0])
        return memo[suffix]

    return np.array([race(tuple(order))[1] for order in all_orders(len(density))])


_NODE, _WEIGHT = np.polynomial.legendre.leggauss(16)


def _panels() -> tuple[Float[np.ndarray, "P N"], Float[np.ndarray, "P N"]]:
    """(t, dt/dx) at the Gauss nodes x in (-1, 1) of panels of (0, 1), graded towards both ends, t ascending."""
    edges = np.concatenate([[0, 0.5], 2.0 ** np.arange(10)])  # in -log(2 t), or in -log(2 (1 - t))
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    near = np.exp(-(middle[:, None] + half[:, None] * _NODE)) / 2
    slope = half[:, None] * near
    far = edges[1:] <= 32  # 1 - t keeps no more digits
    flip = lambda x: x[::-1, ::-1]
    return np.concatenate([flip(near), 1 - near[far]]), np.concatenate([flip(slope), slope[far]])


def unit_nodes() -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """(t, dt) of a quadrature on (0, 1) for functions that are powers near both ends, t ascending."""
    t, slope = _panels()
    return t.ravel(), (slope * _WEIGHT).ravel()


def _cumulative(f: Float[np.ndarray, "N"]) -> tuple[Float[np.ndarray, "N"], float]:
    """(int_0^t f at the nodes t of `unit_nodes`, int_0^1 f), from the values of f there."""
    _, slope = _panels()
    inside = f.reshape(slope.shape) * slope
    # int_{-1}^{x_i} of the polynomial through the nodes, by Legendre series
    legendre = np.polynomial.legendre
    size = len(_NODE)
    series = np.linalg.inv(legendre.legvander(_NODE, size - 1))
    matrix = legendre.legval(_NODE, legendre.legint(series, lbnd=-1)).T
    whole = inside @ _WEIGHT
    before = np.cumsum(whole) - whole
    return (before[:, None] + inside @ matrix.T).ravel(), float(whole.sum())
