"""Steps that are not finite: named, saved, run again."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dd_jax.checkpoints import skipped_steps
from dd_jax.config import ConfigError, protocols
from dd_jax.data.loader import TripletSource, open_split, sample_names
from dd_jax.networks import model as networks
from dd_jax.runtime import parallel
from dd_jax.training import replay
from dd_jax.training import train as train_module
from dd_jax.training.train import NonFiniteGuard, TrainingError, train
from dd_jax.types import TrainState

ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def state():
    params, stats = networks.initialise(tiny.config(model={"student": False}), 0)
    return TrainState(jnp.int32(9), params, stats, None, jnp.array([0.4, 2.4]))


@pytest.fixture
def guard(monkeypatch, tmp_path):
    """A guard whose messages are in ``said``."""
    monkeypatch.setattr(train_module, "sample_names", lambda source, config, step: [f"{step}/{i}" for i in range(4)])
    settings = tiny.config(model={"student": False}, optim={"max_nonfinite": 4})
    said = []
    found = NonFiniteGuard(tmp_path, settings, object.__new__(TripletSource), said.append)
    found.said = said
    return found


def in_flight(guard, *steps):
    """Steps with their batches; negative ones are not finite."""

    def metrics(bad):
        loss = jnp.float32(np.nan if bad else 1)
        terms = ("single_frame/photometric", "motion/parallax", "grad_norm/pose", "total")
        return dict.fromkeys(terms, loss) | {"single_frame/smoothness": jnp.float32(0), "skipped": jnp.float32(bad)}

    sharded = (parallel.shard_batch(tiny.batch(4, abs(step)), guard.config, ONE) for step in steps)
    return deque((abs(step), batch, metrics(step < 0)) for step, batch in zip(steps, sharded))


def test_skipped_step_is_named_and_saved_with_its_batch(guard, state):
    flying = in_flight(guard, 1, -2, -3, 4)
    while flying:
        guard.check(flying, state)
    again = f"; python scripts/replay.py --run={guard.workdir} --step=2 runs it again and says why"
    assert guard.said[0] == f"step 2 skipped: single_frame/photometric, total, grad_norm/pose not finite{again}"
    assert len(guard.said) == 2 and guard.in_a_row == 0

    second, third = (skipped_steps.read(guard.workdir, step) for step in (2, 3))
    jax.tree.map(np.testing.assert_array_equal, second.batch, tiny.batch(4, 2))
    jax.tree.map(np.testing.assert_array_equal, third.state.params, state.params)
    assert second.names == ["2/0", "2/1", "2/2", "2/3"] and second.config == guard.config and second.versions
    assert (second.updates, third.updates) == (1, 1), "of the steps in flight, 4 alone changed the networks"
    origin = replay.load(guard.workdir, 2).origin
    assert origin[1] == "networks: saved then, 1 update after those of the step; --exact trains up to it again"


def test_few_steps_are_saved_and_many_in_a_row_end_the_run(guard, state):
    flying = in_flight(guard, -2, -3, -4, -5, -6)
    message = (
        r"5 steps in a row up to step 6 were not finite \(single_frame/photometric, total, grad_norm/pose\): check the camera"
    )
    with pytest.raises(TrainingError, match=message):
        while flying:
            guard.check(flying, state)
    assert sorted(path.name for path in (guard.workdir / "skipped").iterdir()) == [f"step_{n:06d}.safetensors" for n in (2, 3, 4)]
    assert "replay.py" in guard.said[2] and guard.said[3].endswith("grad_norm/pose not finite")
    assert skipped_steps.has_room(guard.workdir, 3), "a repeated step replaces itself"
    skipped_steps.clear(guard.workdir)
    assert skipped_steps.read(guard.workdir, 2) is None and skipped_steps.has_room(guard.workdir, 9)


def test_full_disk_does_not_end_the_run(guard, state, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(skipped_steps.files, "replace", full)
    guard.check(in_flight(guard, -2), state)
    assert guard.said[0].endswith("not finite; it could not be saved ([Errno 28] No space left on device)")


def test_shares_of_all_processes_make_the_batch(state, monkeypatch, tmp_path):
    batch, settings = tiny.batch(4), tiny.config(model={"student": False})
    halves = [jax.tree.map(lambda x, part=part: x[2 * part : 2 * part + 2], batch) for part in range(2)]
    skipped_steps.write(tmp_path, 7, halves[0], list("abcd"), state, 0, settings, (0, 2))
    assert skipped_steps.read(tmp_path, 7).shares == "1 of 2"
    second = skipped_steps.write(tmp_path, 7, halves[1], list("abcd"), None, 0, settings, (1, 2))
    found = skipped_steps.read(tmp_path, 7)
    jax.tree.map(np.testing.assert_array_equal, found.batch, batch)
    assert found.shares == "" and skipped_steps.has_room(tmp_path, 8)
    second.write_bytes(second.read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"process1.safetensors is damaged .*: delete it"):
        skipped_steps.read(tmp_path, 7)
    monkeypatch.setattr(skipped_steps, "LARGEST", 1000)
    skipped_steps.write(tmp_path, 8, batch, list("abcd"), state, 0, settings)
    assert skipped_steps.read(tmp_path, 8).state is None


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        (
            lambda present: 2 in present,
            ["sample 2 (c): alone it is not finite either (total)", "with it replaced by sample 0 the step is finite"],
        ),
        (lambda present: True, ["every sample does it: the networks or a setting are the cause, not the data"]),
        (
            lambda present: {0, 1} <= present,
            [f"sample {i} ({name}): with the next sample in its place the step is finite" for i, name in enumerate("ab")],
        ),
        (
            lambda present: len(present) > 2,
            ["no single sample does it: each is finite alone, and the step is not with any of them replaced"],
        ),
    ],
)
def test_sample_that_does_it_is_found(fails, expected):
    """``fails``: whether a batch with these samples is not finite."""

    def run(batch):
        return replay.Examined({"total": np.array(np.nan if fails({*map(int, batch.seed)}) else 1.0)}, {}, {})

    batch = tiny.batch(4).replace(seed=np.arange(4, dtype=np.uint32))
    nothing = TrainState(jnp.int32(0), {}, {}, None, jnp.zeros(2))
    found = replay.offenders(replay.Step(1, nothing, batch, list("abcd"), tiny.config(), []), run)
    assert found[-len(expected) :] == expected


def config(root, steps):
    fields = {"log_every": 4, "eval_every": 0, "checkpoint_every": 2, "keep": 3, "eval_frames": 1}
    changed = tiny.config(data={"root": str(root)}, optim={"steps": steps, "freeze_step": -1}, train=fields)
    changed.eval = protocols.protocol("synthetic")
    return changed


@pytest.mark.slow
def test_replay_finds_term_parameter_and_sample(drives, monkeypatch, tmp_path):
    """One sample has an infinite focal length: as in training, and after training up to the step again."""
    settings = config(drives, 5)
    name = sample_names(open_split(settings.data, "train"), settings, 4)[2]

    def gather(self, indices, *arguments, plain=TripletSource.gather):
        found = plain(self, indices, *arguments)
        bad = np.array([self.name(index) == name for index in indices])
        return found | {"K": np.where(bad[:, None, None], np.float32(np.inf), found["K"])}

    monkeypatch.setattr(TripletSource, "gather", gather)
    train(settings, tmp_path, ONE)
    step = replay.load(tmp_path, 4)
    lines = list(replay.report(step, operations=True))
    assert lines[2] == "not finite from the start: K of the batch"
    assert lines[3] == "step 4: not finite (the gradient of pose, the gradient of student, the gradient of teacher)"
    assert (
        lines[4].startswith("loss terms: student/consistency 0.")
        and lines[5] == "gradient norms: pose nan, student nan, teacher nan"
    )
    assert any(line.startswith("first operation with a NaN: ") and "(dd_jax/" in line for line in lines)
    assert any(line.startswith("first parameter whose gradient is not finite: pose/") for line in lines)
    guilty = [line for line in lines if "alone it is not finite" in line]
    assert [line.partition(":")[0] for line in guilty] == [f"  sample 2 ({name})"]
    assert lines[-1] == "  with it replaced by sample 0 the step is finite"
    exact = list(replay.report(replay.load(tmp_path, 4, exact=True)))
    assert exact[0] == "state: checkpoint 2 and 1 steps of training on one device"
    assert exact[2] == "the batch is the one saved when it was skipped"
    assert exact[4].startswith("step 4: not finite") and exact[-1] == lines[-1]
