"""Masks of potentially dynamic objects from a pretrained segmentation network.

Mask2Former, MaskFormer and the semantic segmentation models of transformers (SegFormer, UPerNet, ...), trained on classes with
names in :data:`dd_jax.data.masks.CLASSES`: Cityscapes (its 19 training classes include all but caravan and trailer), COCO
(person, bicycle, car, motorcycle, bus, train, truck), or others with ``classes``.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from dd_jax.config import ConfigError
from dd_jax.data.masks import CLASSES
from dd_jax.prepare import networks
from dd_jax.prepare.runner import Images

DEFAULT_MODEL = "facebook/mask2former-swin-large-cityscapes-semantic"
MASK_CLASSIFIERS = ("mask2former", "maskformer")
STUFF_CLASSES = {"road", "sky", "wall", "building"}
"""A network with one of these classes labels every pixel; one without them detects objects only."""


def segmenter(
    model: str = DEFAULT_MODEL, classes: Sequence[str] = CLASSES, device: str = ""
) -> Callable[[Images], list[UInt8[np.ndarray, "h w"]]]:
    """Loads a network; returns a function from images to masks of their size.

    A mask is 0 where the scene is static. Objects are 255, or numbered 1, 2, ... if the network separates instances (from the
    255th on, 255).

    Args:
      model: name on the Hugging Face hub, or folder.
      classes: the network's names of potentially dynamic classes.

    Raises:
      ConfigError: PyTorch, the model or the device is not available, or the model has none of the classes.
    """
    torch, transformers = networks.libraries()
    what = "segmentation network"
    settings = networks.load(transformers.AutoConfig, model, what)
    universal = settings.model_type in MASK_CLASSIFIERS
    part = transformers.AutoModelForUniversalSegmentation if universal else transformers.AutoModelForSemanticSegmentation
    processor = networks.load(transformers.AutoImageProcessor, model, what)
    target = networks.device_of(torch, device)
    network = networks.load(part, model, what).to(target).eval()
    labels = {int(number): name.lower() for number, name in settings.id2label.items()}
    movers = np.array([number for number, name in labels.items() if name in {one.lower() for one in classes}], int)
    if not movers.size:
        known = ", ".join(list(labels.values())[:20])
        raise ConfigError(f"--model={model} has none of --classes={','.join(classes)}: choose from its classes, {known}")
    instances = universal and not STUFF_CLASSES & set(labels.values())

    @torch.no_grad()
    def predict(images: Images) -> list[UInt8[np.ndarray, "h w"]]:
        inputs = processor(images=list(images), return_tensors="pt").to(target)
        outputs = network(**inputs)
        sizes = [image.shape[:2] for image in images]
        if instances:
            found = processor.post_process_instance_segmentation(outputs, target_sizes=sizes)
            return [number_objects(one["segmentation"].cpu().numpy(), one["segments_info"], movers) for one in found]
        found = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return [np.where(np.isin(one.cpu().numpy(), movers), np.uint8(255), np.uint8(0)) for one in found]

    return predict


def number_objects(segmentation: np.ndarray, segments: Sequence[dict], movers: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """Objects of the classes ``movers`` as 1, 2, ..., from a map of segment ids and transformers' info on each segment."""
    mask = np.zeros(segmentation.shape, np.uint8)
    chosen = [segment["id"] for segment in segments if segment["label_id"] in movers]
    for number, identity in enumerate(chosen, start=1):
        mask[segmentation == identity] = min(number, 255)
    return mask
