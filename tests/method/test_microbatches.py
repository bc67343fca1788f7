import jax
import jax.numpy as jnp
import numpy as np
import tiny

from dd_jax.method.microbatches import mean_over_microbatches


def test_microbatch_mean_equals_full_batch():
    batch = tiny.batch(4)

    def function(part):
        return {"mean": jnp.mean(part.K), "samples": jnp.float32(len(part.seed))}

    whole, parts = (jax.jit(lambda b, count=count: mean_over_microbatches(function, b, count))(batch) for count in (1, 2))
    np.testing.assert_allclose(whole["mean"], parts["mean"], rtol=1e-6)
    assert (whole["samples"], parts["samples"]) == (4, 2)


def test_parts_are_strided():
    batch = tiny.batch(4).replace(seed=np.array([0, 1, 2, 3], np.uint32))
    found = mean_over_microbatches(lambda part: part.seed.astype(jnp.float32), batch, 2)
    np.testing.assert_allclose(found, [0.5, 2.5])  # the mean of (0, 2) and (1, 3)
