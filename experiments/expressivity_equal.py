"""Looped transformers, masked diffusion models and chains of thought as one another: are the runs equal, and what do
they take?"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments.expressivity_parts import Part, check_numbers, jit_briefly
from experiments.found import Found
from mdmjax.expressivity import (
    FixedPoint,
    GumbelMax,
    Headed,
    Layers,
    Looped,
    LoopedAsDenoiser,
    accounting,
    causal_by_unmasked,
    engine_noise,
    mdm_as_looped,
    padded,
    trace_counts,
    transform,
    unmasked_by_causal,
    with_head,
)
from mdmjax.expressivity.simulations import earlier, everyone
from mdmjax.networks import PaddedLoopedConfig, padded_looped
from mdmjax.sampling import TokenDraw, sample

SYMBOLS = 3
CELLS, GIVEN, TOKENS, CALLS = 6, 2, 4, 6  # of the masked diffusion models that are looped
LOGITS = 2**28  # of a call, at most: 1 GiB
WIDTH, LAYERS, HIDDEN = 5, 3, 7  # of the attention that is simulated by the other kind


def equal_part(config) -> Part:
    """Conversions of theorem 3.1 in both directions, the attention of theorems 3.3 and 3.4, and corollary 3.5."""
    c = config.constructions.equal
    build.check_positive(config, [f"constructions.equal.{name}" for name in ("input", "words")])
    check_numbers("constructions.equal.bits", c.bits, 2, 16, rising=False)
    check_numbers("constructions.equal.widths", c.widths, rising=False)
    heads = PaddedLoopedConfig.heads
    if any(width % heads for width in c.widths):
        raise ValueError(
            f"constructions.equal.widths={tuple(c.widths)}: must be multiples of {heads}, for {heads} heads"
        )
    if c.padding < 0:
        raise ValueError(f"constructions.equal.padding={c.padding}: must be at least 0")
    check_numbers("constructions.equal.steps", c.steps)
    check_numbers("constructions.equal.corollary", c.corollary)
    points = {bits: FixedPoint(bits, bits // 2) for bits in c.bits}
    cases = [(bits, width, c.steps[-1], False) for bits in c.bits for width in c.widths]
    cases += [(c.bits[0], c.widths[0], t, False) for t in c.steps[:-1]]
    cases += [(c.bits[0], c.widths[0], c.steps[-1], True)]
    for bits, width, steps, write_once in cases:
        cells = (c.input + c.padding) * width * (steps if write_once else 1)
        if (size := c.words * cells << bits) > LOGITS:
            raise ValueError(
                f"constructions.equal.bits={bits} with widths={width}, steps={steps}, words={c.words}: {size:,} logits "
                f"of a call, more than {LOGITS:,}: make one of them smaller"
            )
    jobs = {_name(*case): _as_mdm(c, config.seed, points[case[0]], *case[1:]) for case in cases}
    for stochastic in (False, True):
        jobs[f"looped, {'Gumbel' if stochastic else 'argmax'}"] = _as_looped(c, config.seed, stochastic)
    jobs["attention"] = lambda: _attention(c, config.seed)
    return Part(jobs, lambda values: _told(c, cases, values))


def _name(bits: int, width: int, steps: int, write_once: bool) -> str:
    return f"mdm, b={bits}, D={width}, T={steps}{', write once' if write_once else ''}"


def _as_mdm(c, seed: int, point: FixedPoint, width: int, steps: int, write_once: bool):
    """(T, P, cells written over, as the accounting says, words equal at every step, different last states)."""

    def job():
        keys = jax.random.split(jax.random.key(seed))
        model = padded_looped(PaddedLoopedConfig(vocab=SYMBOLS, length=c.input + c.padding, width=width))

        @jit_briefly
        def both(keys):
            words = jax.random.randint(keys[0], (c.words, c.input), 0, SYMBOLS)
            looped = Looped.of(model.bind(model.init(keys[1])), point)
            mdm = LoopedAsDenoiser(looped, c.input, c.padding, width, SYMBOLS, steps, None, write_once)
            how = dict(vocab=mdm.vocab, key=jax.random.key(seed), draw=TokenDraw(0.0), trace=True)
            out = sample(mdm, mdm.planner, mdm.canvas(words), **how)
            held = [mdm.codes(out.trace.tokens[s], s - 1 if write_once else 0) for s in range(1, steps + 1)]
            return looped.run(padded(words, c.padding, SYMBOLS), steps), jnp.stack(held), out

        codes, held, out = both(keys)
        same = np.asarray(codes[1:] == held).all((0, 2, 3))
        counts = trace_counts(out.trace, point.codes)
        cost = accounting.looped_to_write_once if write_once else accounting.looped_to_mdm
        agree = counts[:2] == cost(steps, c.padding, c.input, width)
        ends = np.unique(np.asarray(codes[-1]).reshape(c.words, -1), axis=0)
        return [counts.steps, counts.cells, counts.resamples, agree, same.sum(), len(ends)]

    return job


def random_mdm(key, rows: int):
    """A network of its own for each row: one hidden layer on the one-hot tokens, with the planner's score as a head."""
    first, second, third = jax.random.split(key, 3)
    size, hidden = CELLS * (TOKENS + 1), 16
    up = jax.random.normal(first, (rows, size, hidden))
    out = 2 * jax.random.normal(second, (rows, hidden, CELLS, TOKENS))
    head = jax.random.normal(third, (rows, hidden, CELLS))

    def denoiser(tokens, t=None, *, at=None):
        x = jax.nn.one_hot(tokens, TOKENS + 1).reshape(len(tokens), -1)
        h = jnp.tanh(jnp.einsum("bi,bih->bh", x, up))
        logits = with_head(jnp.einsum("bh,bhlv->blv", h, out), jnp.einsum("bh,bhl->bl", h, head))
        return logits if at is None else jnp.take_along_axis(logits, at[:, :, None], 1)

    return denoiser


def _as_looped(c, seed: int, stochastic: bool):
    """As above, of so many random networks; what is written over is counted where the token changes."""

    def job():
        keys, rows = jax.random.split(jax.random.key(seed), 3), c.words
        draw = GumbelMax() if stochastic else TokenDraw(0.0)

        @jit_briefly
        def both(keys):
            given = jax.random.randint(keys[0], (rows, GIVEN), 0, TOKENS)
            tokens = jnp.pad(given, ((0, 0), (0, CELLS - GIVEN)), constant_values=TOKENS)
            denoiser = random_mdm(keys[1], rows)
            how = dict(vocab=TOKENS, key=keys[2], draw=draw, trace=True)
            out = sample(denoiser, Headed(CALLS, resample=True), tokens, **how)
            noise = engine_noise(keys[2], jnp.arange(rows), CALLS, CELLS, TOKENS) if stochastic else None
            looped = mdm_as_looped(denoiser, lambda x: denoiser(x).mean(-1) > 0, tokens != TOKENS, TOKENS)
            return out, looped.run(tokens, CALLS, noise).argmax(-1)

        out, states = both(keys)
        seen = np.asarray(out.trace.tokens)
        changed = (seen[1:] != seen[:-1]) & (seen[:-1] != TOKENS)
        agree = accounting.mdm_to_looped(CALLS, CELLS - GIVEN) == (int(out.calls), states.shape[2] - GIVEN)
        same = (np.asarray(states) == seen).all((0, 2))
        return [int(out.calls), CELLS - GIVEN, changed.sum(), agree, same.sum(), len(np.unique(seen[-1], axis=0))]

    return job


def _attention(c, seed: int):
    """Largest differences of the states in float64: (unmasked by causal, causal by unmasked, one copy too few)."""
    length = c.input + 1
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        keys = jax.random.split(jax.random.key(seed))

        @jit_briefly
        def differences(keys):
            layers, x = Layers.random(keys[0], LAYERS, WIDTH, HIDDEN), jax.random.normal(keys[1], (length, WIDTH))
            unmasked, causal = transform(layers, x, everyone(length)), transform(layers, x, earlier(length))
            fewer = Layers(*(part[:-1] for part in layers))
            found = unmasked_by_causal(layers, x), causal_by_unmasked(layers, x), unmasked_by_causal(fewer, x)
            return jnp.stack([jnp.abs(a - b).max() for a, b in zip(found, (unmasked, causal, unmasked), strict=True)])

        return differences(keys)


def _told(c, cases, values: Mapping[str, np.ndarray]) -> Found:
    rows = []
    for case in cases:
        bits, width, steps, write_once = case
        what = f"looped, D={width}, {bits} bits, T={steps}, as an MDM{' that writes once' if write_once else ''}"
        rows.append(_row(what, c.words, values[_name(*case)]))
    for kind in ("argmax", "Gumbel"):
        rows.append(_row(f"MDM as looped, {kind}", c.words, values[f"looped, {kind}"]))
    copied, gridded, fewer = values["attention"]
    length = c.input + 1
    attention = [
        {"of": "unmasked attention by causal", "symbols": (LAYERS + 1) * length, "largest difference": f"{copied:.2g}"},
        {"of": "causal attention by unmasked", "symbols": length**2, "largest difference": f"{gridded:.2g}"},
        {"of": "the first, a layer left out", "symbols": LAYERS * length, "largest difference": f"{fewer:.2g}"},
    ]
    names = ("CoT = pCoT: steps", "symbols", "in MDM: cells", "in pCoT: symbols", "in CoT: at most")
    chains = [
        {"N": n, "T": t, "layers": layers}
        | dict(zip(names, (f"{x:,}" for x in accounting.chain_of_corollary(t, n, layers)), strict=True))
        for n in c.corollary
        for layers in (1, 2)
        for t in dict.fromkeys((max(1, accounting.log_steps(n)), n))
    ]
    return Found(
        "Equal", "", {},
        {
            "conversions: runs equal at every step": rows,
            f"attention by attention, float64, {LAYERS} layers of width {WIDTH}, {length} positions": attention,
            "sizes of corollary 3.5, as the paper counts them; no proof of any inclusion": chains,
        },
    )  # fmt: skip


def _row(what: str, words: int, x: np.ndarray) -> dict:
    return {
        "conversion": what, "T": int(x[0]), "P": f"{int(x[1]):,}", "as accounted": "yes" if x[3] else "no",
        "equal": f"{int(x[4])} of {words}", "cells written again": f"{int(x[2]):,}", "different ends": int(x[5]),
    }  # fmt: skip
