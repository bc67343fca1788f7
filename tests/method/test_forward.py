import jax
import jax.numpy as jnp
import numpy as np
import tiny

from dd_jax.method import cost_volume
from dd_jax.method.augment import augment
from dd_jax.method.forward import forward
from dd_jax.networks.layers import Draws
from dd_jax.networks.model import Networks


def untrained(config):
    model = Networks(config, Draws(0))
    model.eval()
    return model, jnp.asarray(tiny.batch(2).images, jnp.float32) / 255


def test_next_frame_is_matched_where_it_exists():
    config = tiny.config(cost_volume={"future_frame": True})
    model, inputs = untrained(config)
    batch = tiny.batch(2).replace(images=inputs, inputs=inputs)
    limits = jnp.array([0.4, 2.4])

    @jax.jit
    def volume(batch):
        return forward(model, batch, limits, config, train=False).student.volume

    alone = tiny.config()
    past = jax.jit(lambda batch: forward(model, batch, limits, alone, train=False).student.volume)(batch)
    last = volume(batch.replace(exists=batch.exists & np.array([True, True, False])))
    np.testing.assert_array_equal(last.observed, past.observed)
    np.testing.assert_allclose(last.costs, past.costs, rtol=1e-4)
    both = volume(batch)
    assert np.all(both.observed >= past.observed) and np.any(both.observed > past.observed)
    seen = np.asarray(past.observed)
    cheaper = np.asarray(past.costs)[seen] - np.asarray(both.costs)[seen]
    assert np.all(cheaper > -1e-4) and np.any(cheaper > 1e-2)


def test_colours_see_no_black_holes(monkeypatch):
    """DOMD removes a bright object; where nothing is known behind it, colours are those of the original frame."""
    config = tiny.config(cost_volume={"features": "colours"}, domd={"exclude_from_loss": True})
    batch = jax.tree.map(jnp.asarray, tiny.batch())
    batch = augment(batch.replace(images=jnp.maximum(batch.images, 60)), config.augment, train=False)
    seen = []

    def normalised_colours(images):
        seen.append(images)
        return jnp.zeros((*images.shape[:-3], images.shape[-3] // 4, images.shape[-2] // 4, 3))

    monkeypatch.setattr(cost_volume, "normalised_colours", normalised_colours)
    model = untrained(config)[0]

    @jax.jit
    def run(batch):
        outputs = forward(model, batch, jnp.array([0.5, 5.0]), config, train=False)
        return outputs.student.disentangled, tuple(seen)

    disentangled, (target, lookups) = run(batch)
    assert disentangled.lookup_holes.any()
    assert (disentangled.lookups.min(-1) == 0).any()
    np.testing.assert_array_equal(target, batch.inputs[:, 1])
    assert lookups.min() > 0.2
