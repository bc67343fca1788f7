"""Small rendered drives."""

import pytest
import tiny

from dd_jax.data.synthetic import make


@pytest.fixture(scope="session")
def drives(tmp_path_factory):
    """Four rendered drives of 12 frames at the size of ``tiny``."""
    root = tmp_path_factory.mktemp("drives")
    make(root, "tiny", height=tiny.HEIGHT, width=tiny.WIDTH, workers=1, progress=False)
    return root
