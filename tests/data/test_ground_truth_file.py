import dataclasses
import runpy
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dd_jax.config import ConfigError
from dd_jax.data import ground_truth_file
from dd_jax.data.kitti import raw
from dd_jax.data.loader import open_split

SCRIPT = Path(__file__).parents[2] / "scripts/export_ground_truth.py"


@pytest.fixture
def tree(kitti_tree):
    """Five frames; 1 to 3 have a scan and are the test split."""
    tree = kitti_tree(frames=5)
    rng = np.random.default_rng(0)
    for frame in range(1, 4):
        path = tree.root / tree.folder / f"velodyne_points/data/{frame:010d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng.uniform(-1, 20, (400, 4)).astype(np.float32).tofile(path)
    tree.write_split("test", [f"{tree.folder} {frame} l" for frame in (1, 2, 3)])
    return tree


def truths(config, kind, part="test"):
    source = open_split(config, part)
    return [source.ground_truth(index, kind) for index in range(len(source))]


def use(tree, path, **changes):
    return dataclasses.replace(tree.config, ground_truth_file=str(path), **changes)


@pytest.mark.parametrize("objects", [False, True])
def test_export_roundtrip(tree, objects):
    wanted = truths(tree.config, "velodyne")
    tree.add_mask(2)
    out = tree.root / "new/gt.npz"
    assert ground_truth_file.export(raw.list_split(tree.config, "test"), "velodyne", out, objects) == 3
    assert [path.name for path in out.parent.iterdir()] == ["gt.npz"]
    found = truths(use(tree, out, allow_pickle=objects), "file")
    for one, other in zip(wanted, found):
        np.testing.assert_array_equal(one.depth, other.depth)
        assert one.depth.any()
    assert found[1].dynamic.any() and found[0].dynamic is None


def test_named_depths_independent_of_list_order(tree):
    out = tree.root / "gt.npz"
    ground_truth_file.export(raw.list_split(tree.config, "test"), "velodyne", out)
    wanted = truths(tree.config, "velodyne")
    tree.write_split("test", [f"{tree.folder} {frame:010d} 2" for frame in (3, 0, 2)])
    found = truths(use(tree, out), "file")
    np.testing.assert_array_equal(found[0].depth, wanted[2].depth)
    np.testing.assert_array_equal(found[2].depth, wanted[1].depth)
    assert found[1] is None
    assert [truth is not None for truth in truths(use(tree, out), "file", "train")] == [False, True, True, True, False]


def test_export_deterministic(tree):
    outs = [tree.root / name for name in ("a.npz", "b.npz")]
    for out in outs:
        ground_truth_file.export(raw.list_split(tree.config, "test"), "velodyne", out)
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_gt_depths_read_in_list_order(tree):
    """Images of several sizes give an array of objects, images of one size a plain array."""
    wanted = [np.full(size, value, np.float32) for value, size in ((1, (16, 32)), (2, (32, 64)), (3, (16, 32)))]
    data = np.empty(3, object)
    data[:] = wanted
    out = tree.root / "gt_depths.npz"
    np.savez_compressed(out, data=data)
    with pytest.raises(ConfigError, match=r"gt_depths.npz holds pickled objects, .*--config.data.allow_pickle=True if you trust"):
        truths(use(tree, out), "file")
    for one, other in zip(truths(use(tree, out, allow_pickle=True), "file"), wanted):
        np.testing.assert_array_equal(one.depth, other)
    assert truths(use(tree, out, allow_pickle=True), "file", "val") == [None] * 5
    np.savez_compressed(out, data=np.stack([wanted[0], wanted[2], wanted[0]]))
    for one, value in zip(truths(use(tree, out), "file"), (1, 3, 1)):
        np.testing.assert_array_equal(one.depth, np.full((16, 32), value))


def test_object_file_matches_monodepth2(tree):
    out = tree.root / "gt.npz"
    ground_truth_file.export(raw.list_split(tree.config, "test"), "velodyne", out, objects=True)
    with np.load(out, allow_pickle=True) as file:
        data = file["data"]
    assert data.dtype == object and data.shape == (3,) and data[0].dtype == np.float32
    np.testing.assert_array_equal(data[2], truths(tree.config, "velodyne")[2].depth)


def test_frames_without_ground_truth(tree):
    out = tree.root / "gt.npz"
    assert ground_truth_file.export(raw.list_split(tree.config, "train"), "velodyne", out) == 3
    before = out.read_bytes()
    with pytest.raises(ConfigError, match=r"2 of 5 frames below .* have no velodyne ground truth, the first is .* 0 l': unpack"):
        ground_truth_file.export(raw.list_split(tree.config, "train"), "velodyne", out, objects=True)
    with pytest.raises(ConfigError, match=r"5 of 5 frames .* have no annotated ground truth"):
        ground_truth_file.export(raw.list_split(tree.config, "train"), "annotated", out)
    assert out.read_bytes() == before and not [*tree.root.glob("*.partial")] and not [*tree.root.glob(".*.partial")]


class Bomb:
    """Unpickling it has a visible effect."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def savez(**arrays):
    return lambda path: np.savez(path, **arrays)


@pytest.mark.parametrize(
    "write, complaint",
    [
        (lambda path: None, r"ground_truth_file='.*gt.npz' does not exist"),
        (lambda path: path.write_bytes(b""), r"gt.npz is damaged or not an .npz file: write it again"),
        (lambda path: path.write_bytes(b"PK\3\4 no archive"), r"gt.npz is damaged or not an .npz file"),
        (savez(depth=np.ones((3, 4, 6))), r"gt.npz contains neither names nor data"),
        (savez(data=np.ones((2, 4, 6))), r"gt.npz has depths of 2 frames.* test split has 3: put that list into .*split_dir"),
        (savez(data=np.float32(1)), r"gt.npz has depths of 0 frames"),
        (savez(data=np.array([Bomb()] * 3)), r"gt.npz holds pickled objects"),
        (savez(names=np.array([Bomb()] * 3)), r"gt.npz is damaged or not an .npz file \(names\)"),
        (savez(names=np.array(["other 1 l"])), r"gt.npz has none of the 3 test frames, like '.* 1 l'"),
        (savez(data=np.full((3, 4, 6), np.nan)), r"gt.npz: data\[0\] is not a map of finite depths"),
        (savez(data=np.ones((3, 4))), r"gt.npz: data\[0\] is not a map of finite depths"),
    ],
)
def test_unusable_files_raise_without_unpickling(tree, write, complaint):
    path = tree.root / "gt.npz"
    write(path)
    with pytest.raises(ConfigError, match=complaint):
        truths(use(tree, path), "file")


def test_damaged_depth_raises(tree):
    path = tree.root / "gt.npz"
    name = f"{tree.folder} 1 l"
    np.savez(path, names=np.array([name]), depth_000000=np.array([[Bomb()]]))
    with pytest.raises(ConfigError, match=r"gt.npz is damaged or not an .npz file \(depth_000000\)"):
        truths(use(tree, path), "file")
    np.savez(path, names=np.array([name]))
    with pytest.raises(ConfigError, match=r"\(depth_000000\)"):
        truths(use(tree, path), "file")
    np.savez_compressed(path, names=np.array([name]), depth_000000=np.random.default_rng(0).random((40, 60)))
    data = bytearray(path.read_bytes())
    middle = data.index(b"depth_000000") + 2000
    data[middle : middle + 50] = bytes(50)
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"\(depth_000000\)"):
        truths(use(tree, path), "file")


def damage(path, member):
    """Zeroes bytes in the middle of a member's data."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{member}.npy")
        start = info.header_offset + 30 + len(info.filename)
    data = bytearray(path.read_bytes())
    middle = start + info.compress_size // 2
    data[middle : middle + 8] = bytes(8)
    path.write_bytes(data)


def encrypt(path):
    """Sets the encryption flag of a member, in its own header and in the directory."""
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.index(mark)
        while at >= 0:
            data[at + place] |= 1
            at = data.find(mark, at + 1)
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["head", "data", "encrypted", "packed"])
@pytest.mark.parametrize("name", ["data", "names"])
def test_damaged_archive_raises(tree, name, where):
    path = tree.root / "gt.npz"
    rng = np.random.default_rng(0)
    names = np.array([f"{tree.folder} {frame} l {rng.random()}" for frame in range(300)])
    np.savez_compressed(path, **{name: names if name == "names" else rng.random((3, 40, 60))})
    match where:
        case "head":
            data = bytearray(path.read_bytes())
            start = data.index(name.encode()) + len(name) + 4
            data[start : start + 40] = bytes(40)
            path.write_bytes(data)
        case "data":
            damage(path, name)
        case "encrypted":
            encrypt(path)
        case "packed":
            data = bytearray(path.read_bytes())
            for mark, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
                data[data.index(mark) + place] = 99
            path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"gt.npz is damaged or not an .npz file"):
        truths(use(tree, path), "file")


def test_export_is_compressed(tree):
    path = tree.root / "gt.npz"
    ground_truth_file.export(raw.list_split(tree.config, "test"), "velodyne", path)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_DEFLATED
        maps = [info for info in archive.infolist() if info.filename.startswith("depth")]
        assert len(maps) == 3 and all(info.compress_size < info.file_size / 2 for info in maps)


@pytest.mark.parametrize(
    ("truth", "image", "fits"),
    [
        ((375, 1242), (375, 1242), True),
        ((375, 1242), (192, 640), True),  # resized images
        ((375, 1242), (320, 1024), True),
        ((188, 621), (375, 1242), True),  # depth at half the size
        ((352, 1216), (352, 1216), True),  # images cut as their depth
        ((352, 1216), (375, 1242), False),
        ((218, 1153), (375, 1242), False),
        ((1024, 2048), (768, 2048), False),
    ],
)
def test_truth_of_another_part_of_the_image_is_refused(tmp_path, truth, image, fits):
    depth, path = np.ones(truth, np.float32), tmp_path / "0.png"
    assert ground_truth_file.checked_view(depth, path) is depth  # no image: its loader says so
    Image.new("L", image[::-1]).save(path)
    if fits:
        assert ground_truth_file.checked_view(depth, path) is depth
        return
    sizes = "{} x {} pixels and its image {} x {}".format(*truth, *image)
    with pytest.raises(
        ConfigError, match=rf"the ground truth of .*0.png has {sizes}: it shows another part of it; take depth of"
    ):
        ground_truth_file.checked_view(depth, path)


def test_no_ground_truth_file(tree):
    assert truths(tree.config, "file") == [None] * 3


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["export_ground_truth.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_script_writes_file(tree, monkeypatch, capsys):
    out = tree.root / "gt.npz"
    run(monkeypatch, "--root", tree.root, "--out", out)
    assert capsys.readouterr().out == f"{out}: ground truth of 3 frames\n"
    assert len(truths(use(tree, out), "file")) == 3
    tree.add_mask(2)
    tree.path("mask", 2, suffix="png").write_bytes(b"damaged")  # not needed
    run(monkeypatch, "--root", tree.root, "--out", out)
    with pytest.raises(SystemExit, match=r"error: .*no annotated ground truth"):
        run(monkeypatch, "--root", tree.root, "--out", out, "--kind", "annotated")
    (tree.root / "file").touch()
    with pytest.raises(SystemExit, match=r"error: .*cannot be written"):
        run(monkeypatch, "--root", tree.root, "--out", tree.root / "file/gt.npz")
