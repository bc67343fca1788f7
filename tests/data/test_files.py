import pytest

from dd_jax.data import files


def test_text_and_bytes_are_written_into_a_folder_that_is_made(tmp_path):
    files.replace(tmp_path / "a/b.txt", "text ü")
    files.replace(tmp_path / "a/c.bin", b"\x00\xff")
    assert (tmp_path / "a/b.txt").read_text() == "text ü" and (tmp_path / "a/c.bin").read_bytes() == b"\x00\xff"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b.txt", "c.bin"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.replace(path, "old")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        files.replace(path, "new")
    assert path.read_text() == "old"
