"""The law of decoding orders that a power schedule for each position induces: Plackett-Luce.

An order is a permutation pi of positions, pi[0] the one that is revealed first when generating. Position l is unmasked
at the time t_l with P(t_l <= t) = 1 - alpha_l(t), and generation runs from t = 1 down: the largest time comes first.
For powers w, -log(t_l) is exponential with rate w_l, so the order is that of an exponential race,

    P(pi) = prod_i w_{pi_i} / (w_{pi_i} + w_{pi_{i+1}} + ... + w_{pi_L}).

arXiv 2511.19152, proposition 3.1, has the times ascending, which contradicts its prefix of visible tokens.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from mdmjax.process.beta import known
from mdmjax.process.multivariate import check_log_weights


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlackettLuce:
    """The order law of weights w = exp(log_weights) [L]: larger is earlier. ValueError for weights of 0 or infinity."""

    log_weights: Float[Array, "L"] | Float[np.ndarray, "L"]

    def __post_init__(self):
        check_log_weights(self.log_weights)

    def sample(self, key: Key[Array, ""]) -> Int[Array, "L"]:
        """One order: positions by descending log w + Gumbel noise, which is stable for every w. Consumes the key."""
        noise = jax.random.gumbel(key, self.log_weights.shape, jnp.result_type(float), mode="high")
        return jnp.argsort(-(self.log_weights + noise))

    def sample_times(self, key: Key[Array, ""]) -> Float[Array, "L"]:
        """log t_l of each position, t_l = u^(1 / w_l); `argsort(-times)` has the law of `sample`. Consumes the key."""
        rate = jnp.exp(self.log_weights)
        return -jax.random.exponential(key, self.log_weights.shape, jnp.result_type(float)) / rate

    def log_prob(self, order: Int[Array, "*s L"]) -> Float[Array, "*s"]:
        """log P(pi), for any number of orders."""
        return self.log_choices(order).sum(-1)

    def log_choices(self, order: Int[Array, "*s L"]) -> Float[Array, "*s L"]:
        """log P(pi_i | pi_1 .. pi_{i-1}) for each i; the sum of the first k is that of the prefix.

        ValueError for what is known and no permutation.
        """
        if known(order) and (np.sort(order, axis=-1) != np.arange(self.log_weights.shape[0])).any():
            raise ValueError(f"order: must hold permutations of 0..{self.log_weights.shape[0] - 1}")
        chosen = self.log_weights[order]
        rest = jax.lax.cumlogsumexp(chosen, axis=chosen.ndim - 1, reverse=True)
        return chosen - rest

    def precedence(self) -> Float[Array, "L L"]:
        """P(a before b) = w_a / (w_a + w_b); 1/2 on the diagonal."""
        return jax.nn.sigmoid(self.log_weights[:, None] - self.log_weights[None])

    def first(self) -> Float[Array, "L"]:
        """P(a is revealed first)."""
        return jax.nn.softmax(self.log_weights)

    def expected_rank(self) -> Float[Array, "L"]:
        """The expected number of positions revealed before each."""
        return self.precedence().sum(0) - 0.5

    def rank_marginals(self, nodes: int = 24) -> Float[Array, "L L"]:
        """P(position a has rank r), row a, rank 0 first, for any L: O(L^3) times the nodes of a quadrature.

        With u = t_a^w_a uniform, each other position b is before a with probability 1 - u^(w_b / w_a), independently:

            P(rank r) = int_0^1 P(r of the others before | u) du.
        """
        x, dx = (jnp.asarray(v) for v in _graded(nodes))  # log u
        ratio = jnp.exp(self.log_weights[None] - self.log_weights[:, None])

        def ranks(a):
            before = -jnp.expm1(x[:, None] * ratio[a][None])  # [nodes, L]
            before = before.at[:, a].set(0)

            def add(law, p):
                return law * (1 - p)[:, None] + jnp.pad(law, ((0, 0), (1, 0)))[:, :-1] * p[:, None], None

            start = jnp.zeros((len(x), ratio.shape[0])).at[:, 0].set(1)
            law, _ = jax.lax.scan(add, start, before.T)
            return (dx[:, None] * law).sum(0)

        return jax.lax.map(ranks, jnp.arange(ratio.shape[0]))


def _graded(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """(log u, weight) of a quadrature on (0, 1) for functions that are smooth in powers of u and of -log u."""
    edges = np.concatenate([[0], 2.0 ** np.arange(-40, 6)])  # in -log u
    at, weight = np.polynomial.legendre.leggauss(nodes)
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    y = (middle[:, None] + half[:, None] * at).ravel()
    return -y, (half[:, None] * weight).ravel() * np.exp(-y)


def fixed_order(order: Sequence[int] | Int[np.ndarray, "L"], sharpness: float = 40.0) -> Float[np.ndarray, "L"]:
    """log-weights under which `order` is the order up to a probability of about L exp(-sharpness), their mean 0.

    Every autoregressive model of a fixed order is so a limit of the family. ValueError for what is no permutation.
    """
    order = check_order(order)
    weights = np.empty(len(order))
    weights[order] = -sharpness * np.arange(len(order))
    return weights - weights.mean()


def check_order(order: Sequence[int] | Int[np.ndarray, "L"]) -> Int[np.ndarray, "L"]:
    """The order as an array. ValueError for what is no permutation of 0..L-1."""
    order = np.asarray(order)
    if order.ndim != 1 or sorted(order.tolist()) != list(range(order.size)):
        raise ValueError(f"order {order.tolist()}: must be a permutation of 0..{order.size - 1}")
    return order


def centred(log_weights: Float[Array, "L"]) -> Float[Array, "L"]:
    """Log-weights with mean 0: a common shift changes no order."""
    return log_weights - log_weights.mean()
