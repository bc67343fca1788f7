"""A checkpoint is restored bit for bit, survives a kill at any time, and is rejected for other configs or networks."""

import gc
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs
from small_runs import assert_same, config_with_keep, make_state, save_steps

from dd_jax.checkpoints import comparison, orbax_errors, run_folder
from dd_jax.config import Config, ConfigError
from dd_jax.runtime import versions


def test_restore_bit_for_bit(tmp_path):
    config = Config()
    config.optim.learning_rate = 0.1 + 0.2
    state = make_state(7)
    data = {"next_index": 70, "nested": [{"buffer": "text"}, None, 1.5]}
    with run_folder.Writer(tmp_path, config) as writer:
        writer.save(state, data, score=0.25)
    for directory in (tmp_path, tmp_path / "checkpoints"):
        restored = run_folder.restore(directory, make_state(0), config)
        assert_same(restored.state, state)
        assert (restored.data, restored.step, restored.score) == (data, 7, 0.25)
        assert restored.config == config
        assert restored.versions == versions.versions()
        assert restored.versions["jax"] == jax.__version__


def test_checkpoints_leave_few_objects_behind(tmp_path):
    """Per checkpoint 130, TensorStore's among them (docs/reliability.md); 320 if this library kept the config of each."""
    counts = []
    with run_folder.Writer(tmp_path, Config()) as writer:
        for step in range(1, 16):
            writer.save(jax.device_get(make_state(step)), {"next_index": step})
            writer.wait()
            gc.collect()
            counts.append(sys.getallocatedblocks())
    assert (counts[-1] - counts[4]) / 10 < 200


def test_newest_before_a_step(tmp_path):
    save_steps(tmp_path, {1: 0.5, 2: 0.2, 6: 0.4}, config_with_keep(3))
    assert [run_folder.newest(tmp_path, before) for before in (1, 2, 6, 9)] == [None, 1, 2, 6]
    assert run_folder.restore(tmp_path, make_state(0), before=6).step == 2


def test_origin_names_versions_seed_and_data(tmp_path):
    config, samples = Config(), {"samples": 3, "first": "a 1", "last": "b 2", "names": "0a", "sizes": "0b"}
    config.train.seed = 4
    with run_folder.Writer(tmp_path, config, samples) as writer:
        writer.save(make_state(1), None)
    restored = run_folder.restore(tmp_path, make_state(0), config, samples)
    assert restored.origin == versions.versions() | {"seed": "4", "training data": "3 samples from 'a 1' to 'b 2'"}


def test_commit_of_a_changed_checkout_has_a_plus(tmp_path):
    assert versions.commit(tmp_path) == "unknown"
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    file = tmp_path / "file"
    file.write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "notes").write_text("not in git")
    commit = versions.commit(tmp_path)
    assert len(commit) == 40
    file.write_text("2")
    assert versions.commit(tmp_path) == commit + "+"


def test_changes_are_those_of_values_that_both_know():
    there = {"config": {"optim": {"steps": 3}, "name": "a"}, "versions": {"jax": "1", "old": "1"}, "data": None}
    here = {"config": {"optim": {"steps": 4}, "name": "a"}, "versions": {"jax": "1", "new": "1"}, "data": {"samples": 1}}
    assert comparison.changes(there, here) == ["config.optim.steps is 4, was 3"]


def test_restore_params_keeps_integer_keys(tmp_path):
    save_steps(tmp_path, {3: None}, Config())
    restored = run_folder.restore_params(tmp_path)
    state = make_state(3)
    assert_same(restored.state.params, state.params)
    assert_same(restored.state.depth_range, state.depth_range)
    assert_same(restored.state.batch_stats["teacher"], state.batch_stats["teacher"])
    assert restored.state.opt_state is None
    assert restored.config == Config()


def test_newest_and_best_are_kept(tmp_path):
    scores = {1: 0.5, 2: 0.2, 3: 0.3, 4: None, 5: float("nan"), 6: 0.4, 7: None}
    assert save_steps(tmp_path, scores, config_with_keep(2)) == [2, 6, 7]
    assert run_folder.restore_params(tmp_path).step == 2
    assert run_folder.restore_params(tmp_path, "best").score == 0.2
    assert run_folder.restore_params(tmp_path, "latest").step == 7
    assert run_folder.restore_params(tmp_path, 6).score == 0.4
    assert run_folder.restore_params(tmp_path, "6").step == 6
    with pytest.raises(ConfigError, match=r"no checkpoint '5' .* \[2, 6, 7\]"):
        run_folder.restore_params(tmp_path, "5")
    # A resumed run knows the scores of the first one: step 2 stays the best.
    assert save_steps(tmp_path, {8: 0.3, 9: None}, config_with_keep(1)) == [2, 9]


def test_best_without_scores_is_latest(tmp_path):
    save_steps(tmp_path, {1: None, 2: None}, Config())
    assert run_folder.restore_params(tmp_path, "best").step == 2


def test_step_is_saved_once(tmp_path):
    with run_folder.Writer(tmp_path, Config()) as writer:
        assert writer.save(make_state(1), {}, 0.5)
        assert not writer.save(make_state(1), {}, 0.1)
    assert run_folder.restore_params(tmp_path).score == 0.5


def test_saving_copies_donated_buffers(tmp_path):
    """The step after a save reuses (donates) the buffers that are being written."""
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + jnp.ones_like(x), s), donate_argnums=0)
    state = make_state(1, width=4096)
    expected = jax.tree.map(np.array, vars(state))
    with run_folder.Writer(tmp_path, Config()) as writer:
        writer.save(state, {})
        for _ in range(20):
            state = step(state)
        jax.block_until_ready(state)
    assert_same(vars(run_folder.restore(tmp_path, expected).state), expected)


def test_numpy_state(tmp_path):
    state = make_state(2)
    with run_folder.Writer(tmp_path, Config()) as writer:
        writer.save(jax.tree.map(np.asarray, vars(state)), {})
    assert_same(run_folder.restore(tmp_path, make_state(0)).state, state)
    assert_same(run_folder.restore_params(tmp_path).state.params, state.params)


def test_missing_or_empty_folder_raises(tmp_path):
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    for name in ("missing", "empty"):
        assert run_folder.newest(tmp_path / name) is None
        with pytest.raises(ConfigError, match=f"no checkpoint in .*{name}"):
            run_folder.restore(tmp_path / name, make_state(0))
        with pytest.raises(ConfigError, match=f"no checkpoint in .*{name}"):
            run_folder.restore_params(tmp_path / name)
    assert not (tmp_path / "missing").exists()


def test_other_networks_raise(tmp_path):
    save_steps(tmp_path, {1: None}, Config())
    message = (
        r"batch_stats/teacher/mean is float32\[4\] there and float32\[8\] here.*; and \d+ more\. "
        r".*--config\.model\.width=64"
    )
    with pytest.raises(ConfigError, match=message):
        run_folder.restore(tmp_path, make_state(0, width=8))
    extra = make_state(1)
    extra.params["student"] = {"kernel": jnp.ones(3)}
    with pytest.raises(ConfigError, match=r"params/student/kernel is absent there and float32\[3\] here"):
        run_folder.restore_params(tmp_path, expected={"params": extra.params})
    same = make_state(0)
    run_folder.restore_params(tmp_path, expected={"params": same.params, "batch_stats": same.batch_stats})


def test_resume_with_another_config_raises(tmp_path):
    save_steps(tmp_path, {1: None}, Config())
    allowed = Config()
    allowed.optim.steps = 5
    allowed.data.root = "/elsewhere"
    allowed.train.log_every = 1
    run_folder.restore(tmp_path, make_state(0), allowed)

    refused = Config()
    refused.loss.smoothness = 0.5
    refused.data.batch_size = 3
    with pytest.raises(ConfigError) as error:
        run_folder.restore(tmp_path, make_state(0), refused)
    assert "data.batch_size was 12 and is 3; loss.smoothness was 0.001 and is 0.5" in str(error.value)
    assert "--config.data.batch_size=12 --config.loss.smoothness=0.001" in str(error.value)


def test_fields_that_may_differ_exist():
    known = comparison.flatten(Config().__dict__ | {k: v.__dict__ for k, v in Config().__dict__.items() if k != "name"})
    assert set(known) >= comparison.MAY_DIFFER


def test_partial_checkpoint_is_ignored_then_removed(tmp_path):
    save_steps(tmp_path, {1: None, 2: None}, Config())
    folder = tmp_path / "checkpoints"
    half = folder / "3.orbax-checkpoint-tmp"
    shutil.copytree(folder / "2", half)
    (half / "_CHECKPOINT_METADATA").unlink()
    assert run_folder.restore(tmp_path, make_state(0)).step == 2
    assert half.exists()  # reading changes nothing: a run may be writing it
    with run_folder.Writer(tmp_path, Config()) as writer:
        assert writer.steps == [1, 2]
        assert writer.save(make_state(3), {})
    assert not half.exists()
    assert run_folder.restore(tmp_path, make_state(0)).step == 3


def test_folder_that_cannot_be_written_is_named(tmp_path):
    folder = tmp_path / "checkpoints"
    message = rf"no checkpoint can be written to {folder} \(.*\): make room there, then the same command continues from step"
    with pytest.raises(run_folder.UnsavedCheckpoint, match=message) as error, run_folder.Writer(tmp_path, Config()) as writer:
        folder.rmdir()
        folder.write_text("a file, which stops root too")
        writer.save(make_state(1), {})
        writer.wait()
    assert "\n" not in str(error.value)


LOAD_HELPERS = """
import importlib.util, sys
sys.path.insert(0, {root!r})
spec = importlib.util.spec_from_file_location("helpers", {tests!r})
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)
"""


def program_with_helpers(body: str, workdir: pathlib.Path) -> str:
    """Code for another process, with the functions of ``small_runs`` as ``helpers``."""
    return (LOAD_HELPERS + body).format(
        root=str(pathlib.Path(__file__).parents[2]), tests=small_runs.__file__, workdir=str(workdir)
    )


SAVE_FOREVER = """
with helpers.run_folder.Writer({workdir!r}, helpers.config_with_keep(2)) as writer:
    step = max(writer.steps, default=0)
    while True:
        step += 1
        writer.save(helpers.make_state(step, width=5_000), {{"next_index": step}})
"""


def test_killed_while_saving(tmp_path):
    """SIGKILL while a folder is partly written: the last committed checkpoint is complete, and saving continues."""
    folder = tmp_path / "checkpoints"
    process = subprocess.Popen([sys.executable, "-c", program_with_helpers(SAVE_FOREVER, tmp_path)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    interrupted = False
    while not interrupted and process.poll() is None and time.monotonic() < deadline:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        interrupted = sum(name.isdigit() for name in names) >= 2 and any("tmp" in name for name in names)
    process.send_signal(signal.SIGKILL)
    errors = process.communicate()[1].decode()
    assert interrupted, errors

    restored = run_folder.restore(tmp_path, make_state(0, width=5_000))
    assert restored.step >= 2
    assert restored.data == {"next_index": restored.step}
    assert_same(restored.state, make_state(restored.step, width=5_000))
    with run_folder.Writer(tmp_path, config_with_keep(2)) as writer:
        assert writer.save(make_state(restored.step + 1, width=5_000), {})
    assert sorted(path.name for path in folder.iterdir()) == [str(restored.step), str(restored.step + 1)]


RESTORE_ON_ONE = """
import jax
assert len(jax.devices()) == 1
expected = helpers.make_state(5)
helpers.assert_same(helpers.run_folder.restore({workdir!r}, expected).state, expected)
helpers.assert_same(helpers.run_folder.restore_params({workdir!r}).state.params, expected.params)
"""


def test_other_number_of_devices(tmp_path):
    """One device to four, and four to a process that has only one."""
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    save_steps(tmp_path / "one", {5: None}, Config())
    spread = run_folder.restore(tmp_path / "one", jax.device_put(make_state(0), everywhere)).state
    assert all(leaf.sharding == everywhere for leaf in jax.tree.leaves(spread))
    assert_same(spread, make_state(5))

    with run_folder.Writer(tmp_path / "four", Config()) as writer:
        writer.save(spread, {})
    program = program_with_helpers(RESTORE_ON_ONE, tmp_path / "four")
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_saving_again_and_again_keeps_no_thread_and_no_file_open(tmp_path):
    def held() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    with run_folder.Writer(tmp_path, config_with_keep(1)) as writer:
        counts = []
        for step in range(1, 7):
            writer.save(make_state(step), None)
            writer.wait()
            counts.append(held())
    assert counts[-1] == counts[1]


def test_error_among_its_own_causes_is_read_once(tmp_path):
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(RuntimeError, match="first"), orbax_errors.system_error_is_os_error(tmp_path):
        raise first
    second.__cause__ = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space") as error, orbax_errors.system_error_is_os_error(tmp_path):
        raise first
    assert error.value.errno == 28


def test_folder_that_is_gone_is_a_system_error_whatever_orbax_says(tmp_path):
    with pytest.raises(OSError, match="No such file") as error, orbax_errors.system_error_is_os_error(tmp_path / "gone"):
        raise ValueError("Checkpoint directory does not exist: " + "a traceback\n" * 9)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="another"), orbax_errors.system_error_is_os_error(tmp_path):
        raise ValueError("another")
