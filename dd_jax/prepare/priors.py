"""Prior depth from a pretrained depth network: Depth Anything V2, or any depth estimation model of transformers."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt16

from dd_jax.config import ConfigError
from dd_jax.data.frames import store_inverse_depth
from dd_jax.prepare import networks
from dd_jax.prepare.runner import Images

DEFAULT_MODEL = "depth-anything/Depth-Anything-V2-Small-hf"
DEPTH_MODELS = ("zoedepth", "glpn", "depth_pro")
"""Model types that predict depth; others predict inverse depth, unless their config calls them metric."""


def estimator(
    model: str = DEFAULT_MODEL, says: str = "auto", device: str = ""
) -> Callable[[Images], list[UInt16[np.ndarray, "h w"] | None]]:
    """Loads a network; returns a function from images to inverse depth of their size, the nearest pixel at 65535.

    None for an image without positive predictions.

    Args:
      model: name on the Hugging Face hub, or folder.
      says: whether the network predicts "depth" or "inverse" depth; "auto" uses its model type.

    Raises:
      ConfigError: PyTorch, the model or the device is not available.
    """
    if says not in ("auto", "depth", "inverse"):
        raise ConfigError(f"--says={says} is not one of auto, depth, inverse")
    torch, transformers = networks.libraries()
    what = "depth network"
    settings = networks.load(transformers.AutoConfig, model, what)
    processor = networks.load(transformers.AutoImageProcessor, model, what)
    target = networks.device_of(torch, device)
    network = networks.load(transformers.AutoModelForDepthEstimation, model, what).to(target).eval()
    metric = settings.model_type in DEPTH_MODELS or getattr(settings, "depth_estimation_type", "") == "metric"
    depth = says == "depth" or (says == "auto" and metric)

    @torch.no_grad()
    def predict(images: Images) -> list[UInt16[np.ndarray, "h w"] | None]:
        inputs = processor(images=list(images), return_tensors="pt").to(target)
        found = processor.post_process_depth_estimation(network(**inputs), target_sizes=[image.shape[:2] for image in images])
        return [_stored(one["predicted_depth"].float().cpu().numpy(), depth) for one in found]

    return predict


def _stored(values: np.ndarray, depth: bool) -> UInt16[np.ndarray, "h w"] | None:
    if depth:
        values = np.divide(1.0, values, out=np.zeros(values.shape), where=values > 0)
    try:
        return store_inverse_depth(values)
    except ValueError:
        return None
