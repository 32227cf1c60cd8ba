"""Several texts in one row: each is scored as if it stood alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.networks import TransformerConfig, naive, transformer
from mdmjax.objectives import MaskedDiffusion, negative_elbo
from mdmjax.process import Continuous, Copies, ExactCount

V, L, PAD = 5, 12, 6
LENGTHS = [(4, 5), (7, 3), (12,)]  # of the texts in each row


def rows():
    """Packed (tokens, segments), and (row, place) of each text."""
    rng = np.random.default_rng(0)
    tokens, segments, places = np.full((3, L), PAD), np.zeros((3, L), int), []
    for b, sizes in enumerate(LENGTHS):
        at = 0
        for k, n in enumerate(sizes):
            tokens[b, at : at + n], segments[b, at : at + n] = rng.integers(0, V, n), k + 1
            places.append((b, slice(at, at + n)))
            at += n
    return tokens, segments, places


@pytest.fixture(
    scope="module", params=[dict(), dict(kv_heads=1), dict(attention=naive)], ids=["xla", "groups", "naive"]
)
def bound(request):
    config = TransformerConfig(V, L, width=16, depth=2, heads=2, pads=True, **request.param)
    model = transformer(config)
    leaves, tree = jax.tree.flatten(model.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return model.bind(
        tree.unflatten([x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])
    )


def test_the_texts_of_a_row_do_not_see_each_other(bound):
    """Logits of each text in its row are those of the text alone, at the beginning of a row of padding."""
    tokens, segments, places = rows()
    packed = np.asarray(jax.jit(lambda b, x, s: b.within(s)(x))(bound, jnp.asarray(tokens), jnp.asarray(segments)))
    alone = np.full((len(places), L), PAD)
    for k, (b, place) in enumerate(places):
        alone[k, : place.stop - place.start] = tokens[b, place]
    found = np.asarray(jax.jit(lambda b, x: b(x))(bound, jnp.asarray(alone)))
    for k, (b, place) in enumerate(places):
        np.testing.assert_allclose(packed[b, place], found[k, : place.stop - place.start], atol=2e-5)
    mixed = np.asarray(jax.jit(lambda b, x: b(x))(bound, jnp.asarray(tokens)))
    assert np.abs(mixed - packed)[0, :9].max() > 0.01


@pytest.mark.parametrize("law", [Continuous(), ExactCount(ways=Copies(2))], ids=["rates", "two ways"])
def test_the_loss_of_a_row_is_the_sum_of_its_texts(bound, law):
    """With the masks given, text by text; the objective passes the segments on, for each way of a law too."""
    tokens, segments, places = rows()
    batch = dict(tokens=jnp.asarray(tokens), eligible=jnp.asarray(segments > 0), ids=jnp.arange(3))
    key, segments = jax.random.key(2), jnp.asarray(segments)
    objective = MaskedDiffusion(V, law)
    terms = jax.jit(lambda b: objective(b, batch | {"segments": segments}, key, 3))(bound)
    draws = law.draw(key, batch["ids"], batch["eligible"], batch=3)
    ways, total = len(draws.ids) // 3, np.zeros(3)
    alone = jax.jit(lambda b, x, d, e: negative_elbo(b, x, d, vocab=V, eligible=e).nats)
    for b, place in places:
        for k in range(ways):
            one = jax.tree.map(lambda x, b=b, k=k: x[b * ways + k : b * ways + k + 1], draws)
            inside = np.zeros(L, bool)
            inside[place] = True
            only = one.__class__(**vars(one) | {"masks": one.masks & jnp.asarray(inside)[None]})
            row = jnp.asarray(np.where(inside, tokens[b], PAD))[None]
            total[b] += float(alone(bound, row, only, jnp.asarray(inside)[None])[0]) / ways
    np.testing.assert_allclose(terms.nats, total, rtol=2e-5)
    assert terms.tokens.tolist() == [9, 10, 12]


def test_networks_that_cannot_say_so():
    model = transformer(TransformerConfig(V, L, width=16, depth=1, heads=2, places=True))
    with pytest.raises(ValueError, match="segments: for networks with attention=xla"):
        model.bind(model.init(jax.random.key(0))).within(jnp.zeros((1, L), int))(jnp.zeros((1, L), int))
