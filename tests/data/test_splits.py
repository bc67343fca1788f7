import pytest

from dd_jax.config import ConfigError
from dd_jax.data import splits

READERS = {splits.read_kitti: "{} 5 l", splits.read_cityscapes: "{0} {0}_000001_000002"}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("folder", ["..", "../../etc", "/etc", "a/../b", "./a", "a//b", "a/", "a\\b", "a\0b"])
def test_folder_outside_data_set_raises(tmp_path, reader, folder):
    path = tmp_path / "train_files.txt"
    path.write_text(f"{READERS[reader].format('fine')}\n{READERS[reader].format(folder)}\n")
    with pytest.raises(ConfigError, match=r"train_files.txt:2: .* is not a folder of the data set: name one below"):
        reader(path)


@pytest.mark.parametrize("line", ["a -5 l", "a ² l", "a 1_0 l", f"a {'9' * 5000} l", "a 5 left"])
def test_frame_numbers_must_be_digits(tmp_path, line):
    path = tmp_path / "list.txt"
    path.write_text(line, "utf-8")
    with pytest.raises(ConfigError, match=r"list.txt:1: expected 'date/drive_sync FRAME l\|r', found"):
        splits.read_kitti(path)
    path.write_text("a a_²_5", "utf-8")
    with pytest.raises(ConfigError, match=r"list.txt:1: expected 'CITY"):
        splits.read_cityscapes(path)


def test_binary_split_file_raises(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"list.txt is not text"):
        splits.read_kitti(path)


def test_byte_order_mark_ignored(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfd 5 l\n")
    assert splits.read_kitti(path) == [("d", 5, 2)]


def test_repeated_lines_used_once(tmp_path, caplog):
    path = tmp_path / "list.txt"
    path.write_text("d 5 l\n\nd 6 l\nd 0000000005 2\nd 5 r\nd 6 l\n")
    assert splits.read_kitti(path) == [("d", 5, 2), ("d", 6, 2), ("d", 5, 3)]
    assert "list.txt: 2 lines are repetitions, the first is line 4, equal to line 1" in caplog.text
    caplog.clear()
    path.write_text("a a_1_2\na a_1_3\na a_1_02\n")
    assert splits.read_cityscapes(path) == [("a", "1", 2), ("a", "1", 3)]
    assert "1 lines are repetitions" in caplog.text
