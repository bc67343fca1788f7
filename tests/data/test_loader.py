import itertools

import jax
import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.data.loader import batch_shapes, eval_batches, open_split, prefetch, sample_names, train_batches


@pytest.fixture
def tree(kitti_tree):
    return kitti_tree(frames=7)


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def frame_numbers(source, batches):
    """Sample index of each entry of the batches."""
    targets = {source[i].images[1].tobytes(): i for i in range(len(source))}
    return [targets[image.tobytes()] for batch in batches for image in batch.images[:, 1]]


def test_batches_hold_samples_and_seeds(tree):
    source = open_split(tree.config, "train")
    (batch,) = take(train_batches(source, tree.experiment()), 1)
    assert batch.images.shape == (4, 3, 32, 64, 3) and batch.images.dtype == np.uint8
    assert batch.masks.shape == (4, 3, 32, 64) and batch.masks.dtype == bool
    assert batch.seed.dtype == np.uint32 and len(set(batch.seed.tolist())) == 4
    assert batch.K.dtype == np.float32 and batch.inputs is None
    for place, index in enumerate(frame_numbers(source, [batch])):
        sample = source[index]
        np.testing.assert_array_equal(batch.images[place], sample.images)
        np.testing.assert_array_equal(batch.exists[place], sample.exists)
        np.testing.assert_array_equal(batch.K[place], sample.K)


def test_names_of_the_samples_of_a_step(tree):
    source = open_split(tree.config, "train")
    for step, batch in enumerate(take(train_batches(source, tree.experiment()), 3), 1):
        names = [source.name(index) for index in frame_numbers(source, [batch])]
        assert sample_names(source, tree.experiment(), step) == names


def test_batch_shapes(tree):
    source = open_split(tree.config, "train")
    (batch,) = take(train_batches(source, tree.experiment()), 1)
    shapes = batch_shapes(source, tree.experiment())
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)


def test_epochs_are_permutations(tree):
    source = open_split(tree.config, "train")
    shown = frame_numbers(source, take(train_batches(source, tree.experiment()), 7))
    epochs = [shown[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_stream_depends_on_seed(tree):
    source = open_split(tree.config, "train")
    config = tree.experiment()
    one = take(train_batches(source, config), 4)
    assert_same(one, take(train_batches(source, config), 4))
    config.train.seed = 1
    other = take(train_batches(source, config), 4)
    assert any((a.seed != b.seed).any() for a, b in zip(one, other))
    assert frame_numbers(source, one) != frame_numbers(source, other)


def test_stream_independent_of_threads(tree):
    source = open_split(tree.config, "train")
    assert_same(
        take(train_batches(source, tree.experiment(threads=1)), 6), take(train_batches(source, tree.experiment(threads=4)), 6)
    )


def test_processes_share_stream(tree):
    source = open_split(tree.config, "train")
    config = tree.experiment()
    whole = take(train_batches(source, config), 6)
    halves = [take(train_batches(source, config, num_processes=2, process=process), 6) for process in range(2)]
    for step in range(6):
        for process in range(2):
            part = slice(2 * process, 2 * process + 2)
            jax.tree.map(lambda x, y, p=part: np.testing.assert_array_equal(x[p], y), whole[step], halves[process][step])


@pytest.mark.parametrize("threads", [1, 3])
def test_resume_in_second_epoch(tree, threads):
    source = open_split(tree.config, "train")
    iterator = train_batches(source, tree.experiment(threads=2))
    take(iterator, 3)  # 12 samples of 7
    state = iterator.get_state()
    assert state == {"next_index": 3}
    wanted = take(iterator, 4)
    resumed = train_batches(source, tree.experiment(threads=threads))
    resumed.set_state(state)
    assert_same(take(resumed, 4), wanted)


def test_prefetch_resume(tree):
    source = open_split(tree.config, "train")
    put = []

    def to_device(batch):
        put.append(batch)
        return jax.device_put(batch)

    ahead = prefetch(train_batches(source, tree.experiment()), 2, to_device)
    plain = train_batches(source, tree.experiment())
    assert ahead.get_state() == plain.get_state()
    assert_same(take(ahead, 3), take(plain, 3))
    assert len(put) == 5 and ahead.get_state() == plain.get_state() == {"next_index": 3}
    resumed = prefetch(train_batches(source, tree.experiment()), 2, jax.device_put)
    next(resumed)
    resumed.set_state(ahead.get_state())
    wanted = take(plain, 3)
    assert_same(take(resumed, 3), wanted)
    assert_same(take(ahead, 3), wanted)


def test_prefetch_transfers_ahead(tree):
    source = open_split(tree.config, "train")
    count = 0

    def to_device(batch):
        nonlocal count
        count += 1
        return jax.device_put(batch)

    ahead = prefetch(train_batches(source, tree.experiment()), 2, to_device)
    for taken in range(1, 4):
        assert isinstance(next(ahead).images, jax.Array) and count == taken + 2


def test_eval_batches_once_with_padding(tree):
    source = open_split(tree.config, "val")
    batches = list(eval_batches(source, [5, 0, 3, 2, 6], 2))
    assert [indices.tolist() for indices, _ in batches] == [[5, 0], [3, 2], [6]]
    for indices, batch in batches:
        assert batch.images.shape == (2, 2, 32, 64, 3) and batch.exists.shape == (2, 2)
        for place, index in enumerate(indices):
            np.testing.assert_array_equal(batch.images[place], source[index].images[:2])
    np.testing.assert_array_equal(batches[-1][1].images[0], batches[-1][1].images[1])
    assert not batches[0][1].exists[1, 0] and not batches[0][1].images[1, 0].any()


def place_of(tree, image):
    """Number of a frame in its drive; None for a missing one."""
    return next((frame for (frame, _), known in tree.images.items() if np.array_equal(known, image)), None)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_neighbours_are_frame_step_away(tree, step):
    tree.config.frame_step = step
    for split in ("train", "test"):
        source = open_split(tree.config, split)
        assert len(source) == 7
        for target in range(7):
            wanted = [frame if 0 <= frame < 7 else None for frame in (target - step, target, target + step)]
            assert [place_of(tree, image) for image in source[target].images] == wanted
            assert source[target].exists.tolist() == [frame is not None for frame in wanted]


def test_missing_file_is_missing_at_its_own_number(tree):
    """Other frames do not move up; the target itself must exist."""
    tree.config.frame_step = 2
    tree.path("image", 3).unlink()
    tree.write_split("train", [f"{tree.folder} {frame} l" for frame in (1, 2, 4, 5)])
    source = open_split(tree.config, "train")
    assert [[place_of(tree, image) for image in source[i].images] for i in range(4)] == [
        [None, 1, None], [0, 2, 4], [2, 4, 6], [None, 5, None],
    ]  # fmt: skip


def test_training_leaves_out_samples_without_both_neighbours(tree, caplog):
    tree.config.frame_step = 2
    source = open_split(tree.config, "train")
    shown = frame_numbers(source, take(train_batches(source, tree.experiment()), 9))
    assert {*shown} == {2, 3, 4} and all(shown.count(index) == 12 for index in (2, 3, 4))
    assert caplog.text.count("4 of 7 training samples are left out") == 1 and "--config.data.frame_step=2" in caplog.text
    tree.config.frame_step = 4
    source = open_split(tree.config, "train")
    with pytest.raises(ConfigError, match=r"none of the 7 training samples has .* 4 before and 4 after it: lower --config"):
        train_batches(source, tree.experiment())


def test_masks_that_match_no_frame_are_said(tree, caplog):
    tree.add_mask(99)
    open_split(tree.config, "train")
    assert f"none of the 7 frames below {tree.root} has an object mask of its name: all count as without" in caplog.text


def test_default_step_trains_on_all_samples(tree, caplog):
    tree.config.masks = "none"
    source = open_split(tree.config, "train")
    assert {*frame_numbers(source, take(train_batches(source, tree.experiment()), 7))} == {*range(7)}
    assert caplog.text == ""


def test_evaluation_keeps_all_targets_at_any_step(tree):
    tree.config.frame_step = 3
    source = open_split(tree.config, "val")
    ((_, batch),) = eval_batches(source, range(7), 7)
    assert batch.exists.tolist() == [[target >= 3, True] for target in range(7)]
    assert not batch.images[:3, 0].any()


@pytest.mark.parametrize("step", [0, -1])
def test_step_below_one_raises(tree, step):
    tree.config.frame_step = step
    with pytest.raises(ConfigError, match=rf"--config.data.frame_step={step} must be a whole number of frames, 1 or more"):
        open_split(tree.config, "train")


@pytest.mark.parametrize("processes", [3, 8])
def test_indivisible_batch_size_raises(tree, processes):
    source = open_split(tree.config, "train")
    with pytest.raises(ConfigError, match=f"batch_size=4.*{processes} processes"):
        train_batches(source, tree.experiment(), num_processes=processes)


@pytest.mark.parametrize("flag, size", [("height", 40), ("width", 0), ("width", 100)])
def test_size_not_multiple_of_32_raises(tree, flag, size):
    setattr(tree.config, flag, size)
    with pytest.raises(ConfigError, match=f"--config.data.{flag}={size} must be"):
        open_split(tree.config, "train")


def test_unknown_source_raises(tree):
    tree.config.source = "kiti"
    with pytest.raises(ConfigError, match=r"'kiti' is not one of"):
        open_split(tree.config, "train")


def test_priors_in_training_only(tree):
    tree.config.priors = "files"
    with pytest.raises(ConfigError, match=r"7 of 7 training frames .* no prior depth.*image_02/data/0000000000\.png"):
        open_split(tree.config, "train")
    priors = [tree.add_prior(frame) for frame in range(7)]
    source = open_split(tree.config, "train")
    (batch,) = take(train_batches(source, tree.experiment()), 1)
    assert batch.prior.dtype == np.uint16
    for place, index in enumerate(frame_numbers(source, [batch])):
        np.testing.assert_array_equal(batch.prior[place], priors[index])
    assert open_split(tree.config, "val")[0].prior is None


def test_damaged_prior_makes_frame_unreadable(tree, caplog):
    tree.config.priors = "files"
    for frame in range(7):
        tree.add_prior(frame)
    path = tree.path("prior", 3)
    path.write_bytes(path.read_bytes()[:100])
    assert len(open_split(tree.config, "train")) == 6
    assert "0000000003.png" in caplog.text
