import pytest

from dd_jax.runtime import files


def test_replace_writes_text_and_bytes_and_creates_folder(tmp_path):
    files.replace(tmp_path / "a/b.txt", "text ü")
    files.replace(tmp_path / "a/c.bin", b"\x00\xff")
    assert (tmp_path / "a/b.txt").read_text() == "text ü" and (tmp_path / "a/c.bin").read_bytes() == b"\x00\xff"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b.txt", "c.bin"]


def test_interrupted_write_keeps_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.replace(path, "old")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        files.replace(path, "new")
    assert path.read_text() == "old"


def test_natural_order():
    names = ["f10.png", "f9.png", "f100.png", "a.png", "7.png"]
    assert sorted(names, key=files.natural_key) == ["7.png", "a.png", "f9.png", "f10.png", "f100.png"]
    assert sorted(["\u00b210", "\u00b29"], key=files.natural_key) == ["\u00b29", "\u00b210"]  # a superscript is not a number
    assert files.natural_key("\u0663") == files.natural_key("3")


def test_broken_links_ignored(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").write_bytes(b"12")
    (tmp_path / "a/nowhere.png").symlink_to("absent")
    (tmp_path / "a/itself.png").symlink_to("itself.png")
    folders = files.Folders(tmp_path)
    assert folders.stamps("a") == {"1.png": files.stamp_of(tmp_path / "a/1.png")} and folders.stamps("absent") == {}
    assert folders.find("a", "nowhere.png", "1.png") == ("a/1.png", files.stamp_of(tmp_path / "a/1.png"))
    assert list(files.below(tmp_path)) == [tmp_path / "a/1.png"]


def test_folder_links_followed_without_cycles(tmp_path):
    for name in ("here/a/1", "far/2", "far/deep/3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "here/b").symlink_to(tmp_path / "far")
    (tmp_path / "here/c").symlink_to(tmp_path / "far")
    (tmp_path / "here/a/up").symlink_to(tmp_path / "here")
    (tmp_path / "far/deep/back").symlink_to(tmp_path / "here/a")
    (tmp_path / "here/a/x").symlink_to(tmp_path / "far/deep")
    found = [str(path.relative_to(tmp_path / "here")) for path in files.below(tmp_path / "here")]
    assert found == ["a/1", "a/x/3", "b/2", "b/deep/3", "b/deep/back/1", "c/2", "c/deep/3", "c/deep/back/1"]
    assert list(files.below(tmp_path / "absent")) == []
