import pytest

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.kitti import splits
from dd_jax.data.kitti.split_tables import KNOWN


@pytest.fixture
def config(tmp_path):
    return DataConfig(root=str(tmp_path), split="eigen_zhou")


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in splits.lines(entries)))


def test_test_sets_match_published():
    for name, entries in {
        "eigen/test_files.txt": splits.eigen_test(),
        "eigen_benchmark/test_files.txt": splits.eigen_benchmark(),
        "odom/test_files_09.txt": splits.odometry_test(9),
        "odom/test_files_10.txt": splits.odometry_test(10),
    }.items():
        assert (len(entries), splits.digest(entries)) == KNOWN[name], name


@pytest.mark.parametrize(
    ("rule", "count", "digest"),
    [
        (splits.eigen_zhou, 44234, "9dfc5058f2c02b489b5ab2c8d733730f48c6c275f6e5579a85d9580362831320"),
        (splits.eigen_full, 46976, "71aea09c9018a50f5b94ad47a1f79778e3405846b086f5145c691c9058ba8a81"),
        (splits.odometry, 40746, "9d67d72287315e6e4cbb9fc3a51c7e2bf0db9e1641336b61c82a71af24bd51b3"),
    ],
)
def test_train_and_val_union_matches_published(rule, count, digest):
    entries = rule()
    assert len(set(entries)) == len(entries) == count and splits.digest(entries) == digest


@pytest.mark.parametrize(("split", "count"), [("eigen_zhou", 44234), ("eigen_full", 46976), ("odom", 40746)])
def test_rule_val_share_warns(config, caplog, split, count):
    config.split = split
    (train, source), (val, _) = splits.read(config, "train"), splits.read(config, "val")
    assert len(train) + len(val) == count and not {*train} & {*val}
    assert 0.095 < len(val) / count < 0.105
    assert {(folder, frame) for folder, frame, camera in val if camera == 2} == {entry[:2] for entry in val if entry[2] == 3}
    assert source == f"{split}/train_files.txt"
    assert "divided differently" in caplog.text and f"{split}/val_files.txt" in caplog.text


def test_no_test_drive_in_training():
    drives = [{folder for folder, _, _ in rule()} for rule in (splits.eigen_test, splits.eigen_full)]
    assert len(drives[0]) == 28 and len(drives[1]) == 33 and not drives[0] & drives[1]


def test_test_split_needs_no_list(config, caplog):
    for split, count in {"eigen_zhou": 697, "eigen_full": 697, "benchmark": 652, "odom": 2790}.items():
        config.split = split
        assert len(splits.read(config, "test")[0]) == count
    assert caplog.text == ""


@pytest.mark.parametrize("place", ["splits/eigen/test_files.txt", "splits/test_files.txt"])
def test_list_determines_order(config, tmp_path, caplog, place):
    backwards = splits.eigen_test()[::-1]
    write(tmp_path / place, backwards)
    assert splits.read(config, "test") == (backwards, str(tmp_path / place)) and caplog.text == ""


def test_equivalent_list_spellings(config, tmp_path, caplog):
    lines = [f"{folder} {frame:010d} 2" for folder, frame, _ in splits.eigen_test()]
    (tmp_path / "test_files.txt").write_text("\n".join(lines))
    config.split_dir = str(tmp_path)
    assert splits.read(config, "test")[0] == splits.eigen_test() and caplog.text == ""
    config.split = "odom"
    (tmp_path / "test_files_09.txt").write_text("".join(f"09 {frame} l\n" for frame in range(1590)))
    assert splits.read(config, "test")[0] == splits.odometry_test(9) + splits.odometry_test(10)
    assert caplog.text == ""


def test_other_division_warns(config, tmp_path, caplog):
    """Published lists are subsets of the rules' sets, so a subset can only be checked by its digest."""
    mine = splits.eigen_zhou()[:500]
    write(tmp_path / "splits/eigen_zhou/train_files.txt", mine)
    assert splits.read(config, "train")[0] == mine
    for part in ("train_files.txt has 500 frames", splits.digest(mine)[:8], "has 39810 with ef049375", "copy it from"):
        assert part in caplog.text


def test_foreign_frames_in_named_list_raise(config, tmp_path, caplog):
    mixed = splits.eigen_zhou()[:9] + splits.eigen_test()[:1]
    write(tmp_path / "splits/train_files.txt", mixed)
    assert splits.read(config, "train")[0] == mixed
    assert "1 of 10 frames do not belong" in caplog.text and "split=''" in caplog.text
    write(tmp_path / "splits/eigen_zhou/train_files.txt", mixed)
    with pytest.raises(
        ConfigError, match=r"train_files.txt: 1 of 10 frames do not belong.*eigen_zhou/train.*drive_0002_sync 0 l.*split=''"
    ):
        splits.read(config, "train")


def test_single_list_of_division_raises(config, tmp_path):
    write(tmp_path / "splits/eigen_zhou/train_files.txt", splits.eigen_zhou()[:9])
    with pytest.raises(ConfigError, match=r"eigen_zhou/val_files.txt does not exist, but .*train_files.txt does.*copy it"):
        splits.read(config, "val")


def test_split_dir_without_lists_raises(config, tmp_path):
    config.split_dir = str(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"mine/eigen_zhou/train_files.txt does not exist.*can't be derived"):
        splits.read(config, "train")
    assert len(splits.read(config, "test")[0]) == 697


def test_benchmark_split_needs_lists_and_warns(config, tmp_path, caplog):
    config.split = "benchmark"
    with pytest.raises(ConfigError, match=r"benchmark/train_files.txt does not exist: how benchmark .* can't be derived"):
        splits.read(config, "train")
    assert "drives of the Eigen test split" in caplog.text
    write(tmp_path / "splits/benchmark/train_files.txt", splits.eigen_test())
    assert len(splits.read(config, "train")[0]) == 697
    assert "has 72084" in caplog.text


def test_unknown_split_or_root_raises(config):
    config.split = "eigen"
    with pytest.raises(ConfigError, match=r"split='eigen' is not one of '', 'eigen_zhou'"):
        splits.read(config, "test")
    config.split, config.root = "eigen_zhou", "/no/such/place"
    with pytest.raises(ConfigError, match=r"'/no/such/place' is not a folder"):
        splits.read(config, "test")


def test_ranges():
    assert splits.numbers("3 10-14 20-27", 2) == [3, 10, 12, 14, 20, 22, 24, 26]


def test_raw_lists_as_odometry_raise(config, tmp_path):
    config.split = "odom"
    write(tmp_path / "splits/train_files.txt", splits.eigen_zhou()[:3])
    with pytest.raises(ConfigError, match=r"3 of 3 frames do not belong to the split of odom/train_files.txt"):
        splits.read(config, "train")
