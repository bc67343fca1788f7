import itertools

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.runtime.random_streams import RandomStream, stream_key


def test_streams_share_no_numbers():
    draws = {stream: np.asarray(jax.random.uniform(stream_key(jnp.uint32(7), stream), (64,))) for stream in RandomStream}
    assert len({int(stream) for stream in RandomStream}) == len(RandomStream)
    for one, other in itertools.combinations(draws.values(), 2):
        assert not np.intersect1d(one, other).size


def test_streams_depend_on_the_seed_alone():
    for stream in RandomStream:
        first, again, other = (jax.random.bits(stream_key(jnp.uint32(seed), stream)) for seed in (1, 1, 2))
        assert first == again and first != other
