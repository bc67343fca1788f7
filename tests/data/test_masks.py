import json

import cv2
import numpy as np
import pytest
from PIL import Image

from dd_jax.config import ConfigError
from dd_jax.data import frames, masks
from dd_jax.data.loader import open_split


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 34, (20, 30), dtype=np.uint8)


def test_label_train_and_instance_ids_agree(tmp_path, labels):
    train_id = {24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    labels[np.isin(labels, [29, 30])] = 7  # caravans and trailers have no train id
    cv2.imwrite(str(tmp_path / "labels.png"), labels)
    trained = np.array([train_id.get(label, 255 if label < 7 else 0) for label in range(34)], np.uint8)[labels]
    cv2.imwrite(str(tmp_path / "train.png"), trained)
    instances = np.where(labels >= 24, labels.astype(np.uint16) * 1000 + 7, labels)
    cv2.imwrite(str(tmp_path / "instances.png"), instances)
    np.save(tmp_path / "labels.npy", labels)
    expected = labels >= 24
    for name, mask_format in (
        ("labels.png", "cityscapes"),
        ("labels.npy", "cityscapes"),
        ("instances.png", "cityscapes"),
        ("train.png", "cityscapes_train"),
    ):
        np.testing.assert_array_equal(frames.decode_mask(tmp_path / name, mask_format), expected, err_msg=name)
    assert set(train_id) == set(range(masks.LABEL_IDS[0], masks.LABEL_IDS[1] + 1)) - {29, 30}
    assert (min(train_id.values()), max(train_id.values())) == masks.TRAIN_IDS


def test_palette_images_give_labels(tmp_path, labels):
    picture = Image.fromarray(labels)
    picture.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    assert picture.mode == "P"
    picture.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(frames.decode_mask(tmp_path / "palette.png", "cityscapes"), labels >= 24)


def write_panoptic(folder, segments, category_of, names=None, file_name="a.png"):
    """A map of segment ids in COCO's format."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = np.stack([segments % 256, segments // 256 % 256, segments // 256**2], axis=-1).astype(np.uint8)
    assert cv2.imwrite(str(folder / file_name), rgb[..., ::-1])
    infos = [{"id": number, "category_id": category} for number, category in category_of.items()]
    content = {"annotations": [{"file_name": file_name, "segments_info": infos}]}
    if names:
        content["categories"] = [{"id": number, "name": name, "isthing": 1} for number, name in names.items()]
    (folder / "panoptic.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("category_of", "names"),
    [
        ({5: 3, 70_000: 1, 300: 184, 9: 5}, None),  # COCO: car, person, tree, aeroplane
        ({5: 26, 70_000: 24, 300: 21, 9: 3}, {26: "car", 24: "person", 21: "vegetation", 3: "out of roi"}),  # Cityscapes
    ],
)
def test_panoptic_segments_by_class(tmp_path, category_of, names):
    segments = np.random.default_rng(0).choice([0, 5, 70_000, 300, 9], (20, 30))
    write_panoptic(tmp_path, segments, category_of, names)
    np.testing.assert_array_equal(frames.decode_mask(tmp_path / "a.png", "coco_panoptic"), np.isin(segments, [5, 70_000]))


def test_coco_has_seven_classes():
    assert len(masks.COCO_IDS) == 7 and 5 not in masks.COCO_IDS  # 5 is an aeroplane


def test_panoptic_masks_need_json(tmp_path):
    write_panoptic(tmp_path, np.full((4, 4), 5), {5: 3})
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(frames.UnreadableFrame, match=r"other\.png is not listed in panoptic\.json"):
        frames.decode_mask(tmp_path / "other.png", "coco_panoptic")
    for damage in ("no json", "[]", '{"annotations": [{"file_name": "a.png"}]}'):
        (tmp_path / "panoptic.json").write_text(damage)
        masks.object_segments.cache_clear()
        with pytest.raises(ConfigError, match=r"panoptic\.json is not in COCO's panoptic format"):
            frames.decode_mask(tmp_path / "a.png", "coco_panoptic")
    (tmp_path / "panoptic.json").unlink()
    with pytest.raises(ConfigError, match=r"panoptic.json does not exist: --config.data.mask_format=coco_panoptic needs"):
        frames.decode_mask(tmp_path / "a.png", "coco_panoptic")


def test_colour_image_as_labels_unreadable(tmp_path):
    cv2.imwrite(str(tmp_path / "colour.png"), np.full((4, 4, 3), 26, np.uint8))
    for mask_format in ("cityscapes", "cityscapes_train"):
        with pytest.raises(frames.UnreadableFrame, match=r"colour\.png"):
            frames.decode_mask(tmp_path / "colour.png", mask_format)


def test_pickled_arrays_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path / "exploded").touch, ()

    np.save(tmp_path / "bomb.npy", np.array([[Bomb()]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "several.npz", a=np.ones((2, 2)))
    (tmp_path / "several.npz").rename(tmp_path / "zip.npy")
    np.save(tmp_path / "text.npy", np.array([["car"]]))
    np.save(tmp_path / "empty.npy", np.ones((0, 4)))
    for name in ("bomb.npy", "zip.npy", "text.npy", "empty.npy"):
        for decode in (frames.decode_mask, frames.decode_prior):
            with pytest.raises(frames.UnreadableFrame, match=name):
                decode(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_cache_depends_on_format_and_json(kitti_tree, caplog):
    tree = kitti_tree(frames=3)
    ids = np.full(tree.size, 26, np.uint8)
    ids[:, :20] = 7
    tree.add_mask(1, values=ids)
    assert open_split(tree.config, "train")[1].masks[1].all()
    tree.config.mask_format = "cityscapes"
    np.testing.assert_array_equal(open_split(tree.config, "train")[1].masks[1], ids == 26)
    tree.config.mask_format = "binary"
    assert open_split(tree.config, "train")[1].masks[1].all() and caplog.text == ""

    folder = tree.path("mask", 1).parent
    write_panoptic(folder, ids.astype(int), {26: 3, 7: 184}, file_name=f"{1:010d}.png")
    tree.config.mask_format = "coco_panoptic"
    np.testing.assert_array_equal(open_split(tree.config, "train")[1].masks[1], ids == 26)
    write_panoptic(folder, ids.astype(int), {26: 184, 7: 3}, file_name=f"{1:010d}.png")
    np.testing.assert_array_equal(open_split(tree.config, "train")[1].masks[1], ids == 7)


def test_evaluation_uses_mask_format(kitti_tree):
    tree = kitti_tree(frames=3)
    ids = np.full(tree.size, 26, np.uint8)
    ids[:8] = 7
    tree.add_mask(1, values=ids)
    depth = np.full(tree.size, 2560, np.uint16)
    path = tree.root / tree.folder / "proj_depth/groundtruth/image_02/0000000001.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), depth)
    tree.config.mask_format = "cityscapes"
    np.testing.assert_array_equal(open_split(tree.config, "val").ground_truth(1, "annotated").dynamic, ids == 26)


def test_alpha_and_nan_are_not_objects(tmp_path):
    picture = np.zeros((4, 6, 4), np.uint8)
    picture[..., 3], picture[1, 2, :3] = 255, 9
    cv2.imwrite(str(tmp_path / "alpha.png"), picture)
    values = np.zeros((4, 6), np.float32)
    values[1, 2], values[0, 0] = -1, np.nan
    np.save(tmp_path / "signed.npy", values)
    for name in ("alpha.png", "signed.npy"):
        mask = frames.decode_mask(tmp_path / name)
        assert mask[1, 2] and mask.sum() == 1, name
