"""Tiny networks with random weights, saved as folders, instead of downloaded ones."""

import importlib.util

import pytest
from data.conftest import kitti_tree, picture  # noqa: F401

if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
    import warnings

    with warnings.catch_warnings():  # warnings of PyTorch about itself at import
        warnings.simplefilter("ignore")
        import torch  # noqa: F401
        import transformers  # noqa: F401

CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain", "sky",
    "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
THINGS = ("person", "bicycle", "car", "chair")


@pytest.fixture(scope="session")
def libraries():
    """The modules torch and transformers; skips the test without them."""
    reason = "needs PyTorch networks: pip install -e '.[prepare]'"
    torch = pytest.importorskip("torch", reason=reason)
    transformers = pytest.importorskip("transformers", reason=reason)
    torch.manual_seed(0)
    torch.set_num_threads(2)
    return torch, transformers


def labels_of(names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


@pytest.fixture(scope="session")
def segformer(libraries, tmp_path_factory):
    """A SegFormer of the 19 classes of Cityscapes."""
    _, transformers = libraries
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, **labels_of(CITYSCAPES),
    )  # fmt: skip
    return saved(
        transformers.SegformerForSemanticSegmentation(config),
        transformers.SegformerImageProcessor(size={"height": 64, "width": 128}),
        tmp_path_factory.mktemp("segformer"),
    )


def mask2former(libraries, folder, names):
    """Predicts car with high confidence, which random weights would not."""
    torch, transformers = libraries
    backbone = transformers.SwinConfig(
        embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        dim_feedforward=16, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=5, **labels_of(names),
    )  # fmt: skip
    processor = transformers.Mask2FormerImageProcessor(size={"height": 64, "width": 128}, num_labels=len(names))
    network = transformers.Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        network.class_predictor.bias[names.index("car")] += 10
    return saved(network, processor, folder)


@pytest.fixture(scope="session")
def panoptic_network(libraries, tmp_path_factory):
    """A Mask2Former of the 19 classes of Cityscapes."""
    return mask2former(libraries, tmp_path_factory.mktemp("panoptic"), CITYSCAPES)


@pytest.fixture(scope="session")
def instance_network(libraries, tmp_path_factory):
    """A Mask2Former with object classes only."""
    return mask2former(libraries, tmp_path_factory.mktemp("instance"), THINGS)


@pytest.fixture(scope="session")
def depth_anything(libraries, tmp_path_factory):
    """A Depth Anything."""
    _, transformers = libraries
    backbone = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, patch_size=14, neck_hidden_sizes=[8, 16, 24, 32],
        fusion_hidden_size=16, head_hidden_size=8,
    )  # fmt: skip
    processor = transformers.DPTImageProcessor(
        size={"height": 56, "width": 84}, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3
    )
    return saved(transformers.DepthAnythingForDepthEstimation(config), processor, tmp_path_factory.mktemp("depth"))


def saved(network, processor, folder):
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
