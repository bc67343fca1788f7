import pytest
import tiny

from dd_jax.benchmarks import pytorch_peer
from dd_jax.config import ConfigError

PUBLISHED = {"width": 64}

pytestmark = pytest.mark.filterwarnings("ignore:::torchvision")


@pytest.mark.parametrize("config", [tiny.config(), tiny.config(model={"student": False} | PUBLISHED)])
def test_other_networks_than_published_raise(config, monkeypatch):
    monkeypatch.setattr(pytorch_peer.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=r"set --config\.model\.student=True and --config\.model\.width=64"):
        pytorch_peer.check(config)
    pytorch_peer.check(tiny.config(model=PUBLISHED))


@pytest.fixture(scope="module")
def peer():
    for package in pytorch_peer.PACKAGES:
        pytest.importorskip(package, reason="needs the package manydepth: pip install -e '.[peer]'")
    return pytorch_peer.Peer(tiny.config(model=PUBLISHED), tiny.batch(2))


def test_peer_inference(peer):
    disparity = peer.inference()()
    assert disparity.shape == (1, 1, tiny.HEIGHT, tiny.WIDTH) and 0 < disparity.min() <= disparity.max() < 1


def test_peer_gradients(peer):
    """All parameters get a gradient except the ImageNet classifier of the encoder."""
    runs = peer.training()
    assert list(runs) == ["pose", "teacher", "student, cost volume"]
    for name, run in runs.items():
        gradients = run()
        unused = [gradient for gradient in gradients if gradient is None]
        assert len(gradients) > 60 and len(unused) <= 4, name
        assert any(gradient.abs().max() > 0 for gradient in gradients if gradient is not None)


def test_peer_versions(peer):
    assert pytorch_peer.versions().startswith("manydepth 1.")
