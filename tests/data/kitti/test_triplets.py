import pytest

from dd_jax.config import ConfigError
from dd_jax.data.frames import FrameFile
from dd_jax.data.kitti.triplets import list_triplets


def test_shared_frames_listed_once_and_absent_targets_raise():
    def file_of(folder, frame, camera):
        return FrameFile(f"{folder}/{frame}", (1, 1)) if 0 <= frame < 5 else None

    entries = [("a", 1, 2), ("a", 2, 2), ("a", 4, 2)]
    files, triplets = list_triplets(entries, file_of, "{}/{}/{}".format, "the list", 1)
    assert [[files[place].image if place >= 0 else "" for place in row] for row in triplets] == [
        ["a/0", "a/1", "a/2"], ["a/1", "a/2", "a/3"], ["a/3", "a/4", ""],
    ]  # fmt: skip
    assert len(files) == 5
    files, triplets = list_triplets(entries, file_of, "{}/{}/{}".format, "the list", 2)
    assert [[files[place].image if place >= 0 else "" for place in row] for row in triplets] == [
        ["", "a/1", "a/3"], ["a/0", "a/2", "a/4"], ["a/2", "a/4", ""],
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"1 of 2 target images of the list do not exist, the first is a/5/2"):
        list_triplets([("a", 5, 2), ("a", 4, 2)], file_of, "{}/{}/{}".format, "the list", 1)
