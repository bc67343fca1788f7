import pickle
import subprocess
import sys

import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.data import cache, frames
from dd_jax.data.loader import open_split


@pytest.fixture
def decoded(monkeypatch):
    """Collects the names of decoded images."""
    names = []

    def spy(path):
        names.append(path.name)
        return frames_decode(path)

    frames_decode = frames.decode_image
    monkeypatch.setattr(frames, "decode_image", spy)
    return names


def folder_of(tree, split="train"):
    (folder,) = (path for path in (tree.root / ".cache").iterdir() if path.is_dir() and f"-{split}-" in path.name)
    return folder


def test_shared_frame_decoded_once(kitti_tree, decoded):
    tree = kitti_tree(frames=6)
    open_split(tree.config, "train")
    assert sorted(decoded) == [f"{frame:010d}.png" for frame in range(6)]
    assert (folder_of(tree) / "frames.u8").stat().st_size == 6 * 32 * 64 * 3


def test_frame_steps_share_no_frame_by_mistake(kitti_tree):
    """A cache holds frames and not samples; with other frames, or in another order, it is another one."""
    tree = kitti_tree(frames=9)
    for step in (1, 3, 1):
        tree.config.frame_step = step
        source = open_split(tree.config, "train")
        for place, frame in enumerate((4 - step, 4, 4 + step)):
            np.testing.assert_array_equal(source[4].images[place], tree.images[frame, 2])


def test_finished_cache_reused(kitti_tree, decoded, caplog):
    tree = kitti_tree()
    tree.add_mask(3)
    images = open_split(tree.config, "train")[3].images
    decoded.clear()
    np.testing.assert_array_equal(open_split(tree.config, "train")[3].images, images)
    assert decoded == [] and caplog.text == ""


def test_finished_cache_read_only(kitti_tree, monkeypatch):
    tree = kitti_tree()
    open_split(tree.config, "train")

    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cache, "_lock", read_only)
    np.testing.assert_array_equal(open_split(tree.config, "train")[3].images[1], tree.images[3, 2])
    with pytest.raises(ConfigError, match=r"Read-only file system.*--config.data.cache_dir"):
        open_split(tree.config, "val")


def test_changed_files_decoded_again(kitti_tree, decoded, caplog):
    tree = kitti_tree()
    open_split(tree.config, "train")
    decoded.clear()
    tree.add_image(3)
    tree.add_mask(5)
    source = open_split(tree.config, "train")
    assert sorted(decoded) == ["0000000003.png", "0000000005.png"]
    assert "2 source files" in caplog.text and "have changed" in caplog.text
    np.testing.assert_array_equal(source[3].images[1], tree.images[3, 2])
    np.testing.assert_array_equal(source[5].masks[1], tree.masks[5, 2])


def test_interrupted_build_resumes(kitti_tree, decoded, monkeypatch):
    tree = kitti_tree(frames=8)
    tree.config.threads = 1
    monkeypatch.setattr(cache, "CHUNK", 2)
    decode = frames.decode_image

    def interrupted(path):
        if path.name.startswith("0000000005"):
            raise KeyboardInterrupt
        return decode(path)

    monkeypatch.setattr(frames, "decode_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_split(tree.config, "train")
    decoded.clear()
    monkeypatch.setattr(frames, "decode_image", decode)
    source = open_split(tree.config, "train")
    assert sorted(decoded) == [f"{frame:010d}.png" for frame in (4, 5, 6, 7)]
    for frame in range(8):
        np.testing.assert_array_equal(source[frame].images[1], tree.images[frame, 2])


@pytest.mark.parametrize("name", ["frames.u8", "masks.bits", "journal.u8"])
def test_damaged_cache_rebuilt(kitti_tree, decoded, caplog, name):
    tree = kitti_tree()
    open_split(tree.config, "train")
    decoded.clear()
    with (folder_of(tree) / name).open("r+b") as file:
        file.truncate(10)
    source = open_split(tree.config, "train")
    assert len(decoded) == 8 and "is damaged: rebuilding it" in caplog.text
    np.testing.assert_array_equal(source[3].images[1], tree.images[3, 2])


@pytest.mark.parametrize("name", ["frames.u8", "masks.bits", "sums.u4"])
def test_changed_bit_is_named_and_not_trained_on(kitti_tree, name):
    tree = kitti_tree()
    tree.add_mask(3)
    open_split(tree.config, "train")
    data = bytearray((folder_of(tree) / name).read_bytes())
    data[len(data) * 3 // 8 + 1] ^= 4  # frame 3 of 8
    (folder_of(tree) / name).write_bytes(data)
    source = open_split(tree.config, "train")
    np.testing.assert_array_equal(source[6].images[1], tree.images[6, 2])
    with pytest.raises(ConfigError, match=rf"cache {folder_of(tree)} is damaged \(\S+, frame 3\): delete this folder, then the"):
        source.gather(np.array([3]))


def test_cache_of_an_earlier_version_is_used(kitti_tree, decoded, caplog):
    tree = kitti_tree()
    tree.add_mask(2)
    open_split(tree.config, "train")
    (folder_of(tree) / "sums.u4").unlink()
    decoded.clear()
    source = open_split(tree.config, "train")
    assert decoded == [] and caplog.text == ""
    tree.add_image(3)
    source = open_split(tree.config, "train")
    assert decoded == ["0000000003.png"]
    np.testing.assert_array_equal(source[3].images[1], tree.images[3, 2])


def test_cache_per_size_filter_and_list(kitti_tree):
    tree = kitti_tree()
    open_split(tree.config, "train")
    tree.config.resize, tree.config.width = "lanczos", 32
    assert open_split(tree.config, "train")[0].images.shape == (3, 32, 32, 3)
    tree.config.resize, tree.config.width = "area", 64
    np.testing.assert_array_equal(open_split(tree.config, "train")[3].images[1], tree.images[3, 2])
    tree.write_split("train", [f"{tree.folder} 6 l"])
    np.testing.assert_array_equal(open_split(tree.config, "train")[0].images[1], tree.images[6, 2])


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-40])


def test_unreadable_frames_named_and_skipped(kitti_tree, caplog):
    tree = kitti_tree(frames=8)
    tree.add_mask(6)
    cut_off(tree.path("image", 3))
    cut_off(tree.path("mask", 6))
    for _ in range(2):  # while building, and from the journal
        caplog.clear()
        source = open_split(tree.config, "train")
        assert "2 unreadable frames" in caplog.text and "2 of 8 samples are dropped" in caplog.text
        assert "0000000003.png" in caplog.text and "its mask" in caplog.text and "mask_02/data/0000000006.png" in caplog.text
        assert [source.name(i).split()[1] for i in range(len(source))] == list("012457")
        after = source[2]
        np.testing.assert_array_equal(after.exists, [True, True, False])
        assert not after.images[2].any() and after.images[1].any()
        np.testing.assert_array_equal(source[3].exists, [False, True, True])


def test_masks_resized_and_misfits_named(kitti_tree, caplog):
    tree = kitti_tree(frames=4)
    mask = tree.add_mask(1)
    tree.add_mask(2, values=np.kron(mask, np.ones((2, 2), bool)).astype(np.uint8))
    tree.add_mask(3, values=np.ones((50, 50), np.uint8))
    source = open_split(tree.config, "train")
    np.testing.assert_array_equal(source[1].masks[1], mask)
    np.testing.assert_array_equal(source[1].masks[2], mask)
    assert source[2].masks[2].all()
    assert "1 object masks have other proportions" in caplog.text
    assert "mask_02/data/0000000003.png (50x50, its image 64x32): write them again" in caplog.text


@pytest.mark.parametrize("kind, suffix", [("image", "png"), ("image", "jpg"), ("mask", "png")])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_empty_and_truncated_files_skipped(kitti_tree, caplog, kind, suffix, keep):
    tree = kitti_tree(frames=4, suffix=suffix)
    tree.add_mask(2)
    path = tree.path(kind, 2, suffix=suffix)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert len(open_split(tree.config, "train")) == 3
    assert "1 unreadable frames are left out, replace them" in caplog.text and f"{kind}_02/data/0000000002" in caplog.text


def test_repaired_frame_used_again(kitti_tree):
    tree = kitti_tree(frames=4)
    cut_off(tree.path("image", 2))
    assert len(open_split(tree.config, "train")) == 3
    tree.add_image(2)
    np.testing.assert_array_equal(open_split(tree.config, "train")[2].images[1], tree.images[2, 2])


def test_too_many_unreadable_frames_raise(kitti_tree):
    tree = kitti_tree(frames=8)
    tree.config.max_unreadable = 1
    for frame in (2, 5):
        cut_off(tree.path("image", frame))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"2 frames.*max_unreadable=1.*0000000002.png.*0000000005.png"):
            open_split(tree.config, "train")
    tree.config.max_unreadable = 2
    assert len(open_split(tree.config, "train")) == 6


def test_no_readable_frame_raises(kitti_tree):
    tree = kitti_tree(frames=2)
    for frame in range(2):
        cut_off(tree.path("image", frame))
    with pytest.raises(ConfigError, match=r"no readable target frame"):
        open_split(tree.config, "train")


def test_unwritable_cache_names_flag(kitti_tree):
    tree = kitti_tree(frames=2)
    (tree.root / "taken").write_text("a file, not a folder")
    tree.config.cache_dir = str(tree.root / "taken")
    with pytest.raises(ConfigError, match=r"cannot be written.*--config.data.cache_dir"):
        open_split(tree.config, "train")


def test_full_disk_raises_before_decoding(kitti_tree, decoded, monkeypatch):
    tree = kitti_tree(frames=2)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", full)
    with pytest.raises(ConfigError, match=r"No space left on device.*--config.data.cache_dir"):
        open_split(tree.config, "train")
    assert decoded == [] and not any(path.is_dir() for path in (tree.root / ".cache").iterdir())


def test_pickled_store_excludes_frames(kitti_tree):
    tree = kitti_tree(frames=4, height=64, width=96)
    source = open_split(tree.config, "train")
    data = pickle.dumps(source._store)
    assert len(data) < 1000
    copy = pickle.loads(data)
    np.testing.assert_array_equal(copy.frames, source._store.frames)
    with pytest.raises(ValueError, match=r"read-only"):
        copy.frames[0] = 0


def test_processes_share_cache(kitti_tree):
    """Two processes start with an empty cache at the same time; both read the right images."""
    tree = kitti_tree(frames=8)
    program = f"""
from dd_jax.config import DataConfig
from dd_jax.data.loader import open_split
source = open_split({tree.config!r}, "train")
print(sum(int(source[i].images.sum()) for i in range(len(source))))
"""
    runs = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    present = [tree.images[frame + step, 2].sum() for frame in range(8) for step in (-1, 0, 1) if 0 <= frame + step < 8]
    assert outputs == [f"{sum(int(total) for total in present)}\n"] * 2
