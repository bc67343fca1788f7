"""Complete runs on rendered drives: trained, stopped, killed, resumed, evaluated."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file

from dd_jax import config as configs
from dd_jax.checkpoints import run_folder, saved, torch_names
from dd_jax.config import ConfigError
from dd_jax.data.loader import Prefetch
from dd_jax.evaluation.evaluate import evaluate_checkpoint
from dd_jax.method import compiled_steps
from dd_jax.method.augment import augment
from dd_jax.method.forward import forward
from dd_jax.method.train_step import create_state
from dd_jax.networks import model as networks
from dd_jax.report import Logger, read_history
from dd_jax.training import train as train_module
from dd_jax.training.train import initialise_from, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Runs of the same config share compiled programs."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    jax.config.update("jax_compilation_cache_dir", folder)
    yield folder
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture
def traced_once(monkeypatch):
    """Runs of a test that differ only in their length and evaluation share traced programs too."""
    programs = {}

    def share(name):
        plain = getattr(compiled_steps, name)

        def shared(config, *arguments):
            values = configs.to_dict(config) | {"eval": None}
            values["optim"] = values["optim"] | {"steps": None}
            key = name, json.dumps(values), str((arguments[0], arguments[-1]))  # frozen, devices
            if key not in programs:
                programs[key] = plain(config, *arguments)
            return programs[key]

        monkeypatch.setattr(compiled_steps, name, shared)

    share("compile_train_step_now")
    share("compile_predict_step")


def run_config(drives, steps, sections=None, **train_fields):
    fields = {"log_every": 1, "eval_every": 0, "checkpoint_every": 2} | train_fields
    config = tiny.config(data={"root": str(drives)}, optim={"steps": steps, "freeze_step": -1}, train=fields, **(sections or {}))
    config.eval.crop, config.eval.ground_truth = "none", "annotated"
    return config


def history(workdir, kind="train"):
    rows = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    speed = ("images_per_second", "host_share")
    return [{k: v for k, v in row.items() if k not in speed} for row in rows if row["kind"] == kind]


@pytest.fixture
def compilations(monkeypatch, caplog):
    """Number of programs compiled before each step of a run; implicit transfers in the training loop raise."""

    class GuardedLogger(Logger):
        def __enter__(self):
            jax.config.update("jax_transfer_guard", "disallow")
            return super().__enter__()

        def __exit__(self, *error):
            jax.config.update("jax_transfer_guard", "allow")
            super().__exit__(*error)

    def draw(self, plain=Prefetch.__next__):
        counts.append(sum(record.getMessage().startswith("Compiling") for record in caplog.records))
        return plain(self)

    counts = []
    monkeypatch.setattr("dd_jax.training.train.Logger", GuardedLogger)
    monkeypatch.setattr(Prefetch, "__next__", draw)
    with jax.log_compiles():
        yield counts


def test_resumed_run_equals_uninterrupted_run_and_is_evaluated(drives, compiled, traced_once, compilations, tmp_path):
    one = jax.devices()[:1]
    whole = train(run_config(drives, 4), tmp_path / "whole", one)
    shares = [row["host_share"] for row in read_history(tmp_path / "whole") if "host_share" in row]
    assert len(shares) == 3 and min(shares) < 0.03, "share of the one step without saving"
    assert len(compilations) == 4 and compilations[0] > 0 and len(set(compilations)) == 1, "recompiled after step 1"
    train(run_config(drives, 2), tmp_path / "parts", one)
    parts = train(run_config(drives, 4), tmp_path / "parts", one)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    assert history(tmp_path / "whole") == history(tmp_path / "parts")
    assert [row["step"] for row in history(tmp_path / "whole")] == [1, 2, 3, 4]

    results = evaluate_checkpoint(tmp_path / "whole")
    written = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert set(written) == {"student", "teacher", "constant", "mean_map"}
    for predictor in written.values():
        assert set(predictor) == {"all", "dynamic", "moving", "static"}
        assert predictor["all"]["pixels"] == predictor["moving"]["pixels"] + predictor["static"]["pixels"] > 0
        assert np.isfinite(predictor["all"]["abs_rel"])
    assert written == json.loads(json.dumps(tiny.as_written(results.metrics)))
    assert set(written["student"]["all"]) == {"abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3", "pixels", "images"}
    assert results.page == tmp_path / "whole" / "report.html" and "<html" in results.page.read_text()

    # Another protocol: scans instead of dense depth, inside the crop; the files of the run are unchanged.
    scans = evaluate_checkpoint(tmp_path / "whole", protocol="eigen").metrics
    assert set(scans) == set(written) and 0 < scans["student"]["all"]["pixels"] < written["student"]["all"]["pixels"] / 2
    assert json.loads((tmp_path / "whole" / "metrics.json").read_text()) == written

    # Validation in the loop is the same evaluation: same split, same checkpoint, same score.
    val = evaluate_checkpoint(tmp_path / "whole", split="val", out=tmp_path / "val")
    logged = history(tmp_path / "whole", "val")[-1]
    assert logged["student/all/abs_rel"] == pytest.approx(val.metrics["student"]["all"]["abs_rel"], rel=1e-5)

    with pytest.raises(ConfigError, match="batch_size"):
        changed = run_config(drives, 6)
        changed.data.batch_size = 2
        train(changed, tmp_path / "whole", one)
    with pytest.raises(ConfigError, match=r"model\.width"):
        changed = run_config(drives, 6)
        changed.model.width = 16
        train(changed, tmp_path / "whole", one)


def test_two_steps_in_flight(drives, monkeypatch, tmp_path):
    """A step is waited for after the two following ones are dispatched; metrics are fetched when they are logged."""
    started, finished, fetched = [], set(), set()

    def step(state, batch):
        started.append(batch)
        number = jnp.float32(len(started))
        return state.replace(step=state.step + 1), {"total": number, "skipped": 0 * number}

    def watch(name, waits):
        plain = getattr(jax, name)

        def watched(tree):
            if isinstance(tree, dict) and "total" in tree:
                waits.add((int(tree["total"]), len(started)))
            return plain(tree)

        monkeypatch.setattr(jax, name, watched)

    watch("block_until_ready", finished)
    watch("device_get", fetched)
    monkeypatch.setattr(compiled_steps, "compile_train_step_now", lambda *_: step)
    monkeypatch.setattr(train_module, "validation_score", lambda *_: None)
    train(run_config(drives, 9, log_every=4, checkpoint_every=100), tmp_path / "run", jax.devices()[:1])
    assert finished == {(number, number + 2) for number in range(1, 8)}
    assert fetched == {(number, 5) for number in range(1, 5)} | {(number, 9) for number in range(5, 10)}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_killed_run_resumes_bit_equal(drives, compiled, tmp_path, how):
    config = run_config(drives, 12)
    (tmp_path / "config.json").write_text(json.dumps(configs.to_dict(config)))
    program = (
        "import json, sys, jax; from dd_jax import config; from dd_jax.training.train import train;"
        f"values = json.load(open({str(tmp_path / 'config.json')!r}));"
        "train(config.from_dict(values), sys.argv[1], jax.devices()[:1])"
    )
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": compiled, "PYTHONPATH": str(ROOT)}

    def start(workdir):
        return subprocess.Popen([sys.executable, "-c", program, workdir], env=environment, cwd=ROOT)

    assert start(str(tmp_path / "whole")).wait(timeout=900) == 0
    run = start(str(tmp_path / "killed"))
    deadline = time.monotonic() + 600
    while not (run_folder.newest(tmp_path / "killed") and len(history(tmp_path / "killed")) > 3):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(how)
    assert run.wait(timeout=120) == (0 if how == signal.SIGTERM else -signal.SIGKILL)
    assert start(str(tmp_path / "killed")).wait(timeout=900) == 0

    whole, killed = (run_folder.restore_params(tmp_path / name, "latest") for name in ("whole", "killed"))
    assert whole.step == killed.step == 12
    jax.tree.map(np.testing.assert_array_equal, whole.state, killed.state)
    assert history(tmp_path / "whole") == history(tmp_path / "killed")


class TwoProcesses:
    """A script run by two processes on this machine, with two devices each."""

    def __init__(self, script, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2")
        command = [sys.executable, ROOT / "scripts" / script, *arguments, f"--coordinator={coordinator}", "--processes=2"]
        self.processes = [
            subprocess.Popen(
                [*command, f"--process={number}"],
                env=os.environ | {"XLA_FLAGS": flags},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.communicate()

    def run_until(self, reached):
        deadline = time.monotonic() + 600
        while not reached():
            assert all(process.poll() is None for process in self.processes) and time.monotonic() < deadline
            time.sleep(0.05)

    def finish(self):
        """stdout and stderr of each; both must succeed."""
        written = [process.communicate(timeout=900) for process in self.processes]
        assert [process.returncode for process in self.processes] == [0, 0], written
        return written


@pytest.mark.slow
def test_two_processes_stopped_and_killed_equal_one_process(drives, compiled, tmp_path, monkeypatch):
    """Two processes with two devices against one with four: stopped by SIGTERM to one, then one is killed, then finished."""
    config = run_config(drives, 16, tiny.SHARP, backend="jit")
    config.optim.learning_rate = 1e-4  # the published rate: at ten times that, rounding errors grow tenfold per step
    whole = train(config, tmp_path / "one", jax.devices()[:4])
    (tmp_path / "config.json").write_text(json.dumps(configs.to_dict(config)))
    file = tmp_path / "two.py"
    file.write_text(
        "import json\nfrom dd_jax import config\n\n"
        f"def get_config(_=None):\n    return config.from_dict(json.load(open({str(tmp_path / 'config.json')!r})))\n"
    )
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", compiled)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    two = tmp_path / "two"
    arguments = "train.py", f"--config={file}", f"--workdir={two}"

    with TwoProcesses(*arguments) as first:
        first.run_until(lambda: (two / "metrics.jsonl").exists() and len(history(two)) >= 3)
        first.processes[1].send_signal(signal.SIGTERM)
        (_, log), (_, silence) = first.finish()
    assert "compiling the step" in log and "stopped at step" in log and "compiling the step" not in silence
    stopped = run_folder.restore_params(two, "latest").step
    assert 3 <= stopped == history(two)[-1]["step"] < 14

    with TwoProcesses(*arguments) as second:
        second.run_until(lambda: len(history(two)) >= stopped + 2)
        second.processes[1].kill()
        message = second.processes[0].communicate(timeout=300)[1]
        by_us = second.processes[0].returncode == 1 and "error: another process ended or failed" in message
        # by_jax: the all-reduce itself reports no error
        by_jax = second.processes[0].returncode == -signal.SIGABRT and "another task died" in message
        assert by_us or by_jax, "the first must not continue alone"
    assert len(history(two)) < 16

    with TwoProcesses(*arguments) as third:
        third.finish()
    assert [row["step"] for row in history(two)] == list(range(1, 17))
    found, expected = (np.array([row["total"] for row in history(folder)]) for folder in (two, tmp_path / "one"))
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert np.mean(np.abs(found - expected)) <= 1e-3 * np.mean(expected)
    restored = run_folder.restore_params(two, "latest")
    assert restored.step == 16
    for network, params in whole.params.items():
        found = restored.state.params[network]
        found, params = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (found, params))
        assert np.linalg.norm(found - params) <= 1e-3 * np.linalg.norm(params), network

    alone = evaluate_checkpoint(two, out=tmp_path / "alone")
    with TwoProcesses("evaluate.py", f"--checkpoint={two}") as both:
        written = both.finish()
    assert "abs_rel" in written[0][0] and "abs_rel" not in written[1][0]
    found, expected = (json.loads((folder / "metrics.json").read_text()) for folder in (two, tmp_path / "alone"))
    for who, regions in expected.items():
        for region, scores in regions.items():
            assert found[who][region] == pytest.approx(scores, rel=1e-5), (who, region)
    names = [line.split(",")[0] for line in (two / "per_image.csv").read_text().splitlines()]
    assert names == [line.split(",")[0] for line in (tmp_path / "alone" / "per_image.csv").read_text().splitlines()]
    assert len(alone.images) > 2


def test_initialise_from_trained_model(tmp_path):
    other = tiny.restored(tiny.config())
    saved.write(tmp_path / "system", other)
    fresh = create_state(tiny.config())
    state = initialise_from(tiny.config(train={"init_from": str(tmp_path / "system")}), fresh)
    for name in ("params", "batch_stats", "depth_range"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(other.state, name))
    assert state.step == 0 and state.opt_state is fresh.opt_state
    wider = tiny.config(model={"width": 16}, train={"init_from": str(tmp_path / "system")})
    with pytest.raises(ConfigError, match=r"system holds other arrays: .*--config\.model\.width=8"):
        initialise_from(wider, create_state(wider))


def test_ds_depth_starts_from_the_student_of_many_depth(tmp_path):
    many = tiny.restored(tiny.config(domd={"enabled": False}))
    saved.write(tmp_path / "many", many)
    config = tiny.config(domd={"enabled": False}, ds={"enabled": True}, train={"init_from": str(tmp_path / "many")})
    fresh = create_state(config)
    state = initialise_from(config, fresh)
    assert state.params["student"]["encoder"].pop("fusion") is fresh.params["student"]["encoder"]["fusion"]
    for name in ("teacher", "pose", "student"):
        jax.tree.map(np.testing.assert_array_equal, state.params[name], many.state.params[name])
        jax.tree.map(np.testing.assert_array_equal, state.batch_stats[name], many.state.batch_stats[name])
    jax.tree.map(np.testing.assert_array_equal, state.params["flow"], fresh.params["flow"])
    saved.write(tmp_path / "ds", tiny.restored(config))
    with pytest.raises(ConfigError, match=r"ds holds other arrays: .*fusion"):
        initialise_from(tiny.config(train={"init_from": str(tmp_path / "ds")}), create_state(tiny.config()))


def single_frame(folder):
    """A saved model without student."""
    other = tiny.restored(
        tiny.config(model={"student": False}, domd={"enabled": False}, loss={"occlusion_rule": "min"}, optim={"freeze_step": -1})
    )
    saved.write(folder, other)
    return other.state


def test_initialise_from_model_without_student(tmp_path):
    other, fresh = single_frame(tmp_path / "single"), create_state(tiny.config())
    state = initialise_from(tiny.config(train={"init_from": str(tmp_path / "single")}), fresh)
    for tree, from_single, from_fresh in zip(*((s.params, s.batch_stats) for s in (state, other, fresh)), strict=True):
        jax.tree.map(np.testing.assert_array_equal, tree, from_single | {"student": from_fresh["student"]})
    np.testing.assert_array_equal(state.depth_range, other.depth_range)


def test_student_that_starts_as_the_teacher(tmp_path):
    single_frame(tmp_path / "single")
    config = tiny.config(train={"init_from": str(tmp_path / "single"), "init_student": "teacher"}, domd={"enabled": False})
    state, batch = initialise_from(config, create_state(config)), jax.tree.map(jnp.asarray, tiny.batch())

    def disps(params):
        model = networks.merge(params, state.batch_stats, config, None, train=False)
        outputs = forward(model, augment(batch, config.augment, train=False), state.depth_range, config, train=False)
        return outputs.teacher_disps, outputs.student.disps

    jax.tree.map(np.testing.assert_array_equal, *jax.jit(disps)(state.params))
    by_costs = jax.jit(jax.grad(lambda p: disps(p)[1][0].sum()))(state.params)["student"]["encoder"]["reduce"]["kernel"]
    assert by_costs[:, :, 8:].any()  # the weights of the costs can learn
    saved.write(tmp_path / "both", tiny.restored(config))
    config.train.init_from = str(tmp_path / "both")
    again = initialise_from(config, create_state(config))
    jax.tree.map(np.testing.assert_array_equal, *jax.jit(disps)(again.params))
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state.params)]
    assert len(set(pointers)) == len(pointers)


def test_initialise_from_encoders(tmp_path):
    state = torch_names.to_torch(*networks.initialise(tiny.config(), 5))["mono_encoder"]
    classifier = {key.removeprefix("encoder."): np.asarray(value, order="C") for key, value in state.items()}
    save_file(classifier, tmp_path / "resnet18.safetensors")
    fresh = create_state(tiny.config())
    state = initialise_from(tiny.config(train={"init_encoders": str(tmp_path / "resnet18.safetensors")}), fresh)
    for name in ("teacher", "pose"):
        kernel = state.params[name]["encoder"]["layer1"]["blocks"]["block0"]["conv1"]["kernel"]
        np.testing.assert_array_equal(kernel, classifier["layer1.0.conv1.weight"].transpose(2, 3, 1, 0))
        assert not np.array_equal(kernel, fresh.params[name]["encoder"]["layer1"]["blocks"]["block0"]["conv1"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, state.params["student"]["decoder"], fresh.params["student"]["decoder"])


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("data", "height", 70, "multiple of 32"),
        ("data", "root", "/nowhere/at/all", "/nowhere/at/all"),
        ("data", "batch_size", 3, "divisible by the 4 devices"),
        ("cost_volume", "occlusion", "pool", "cost_volume.occlusion"),
        ("optim", "freeze_step", 0, "init_from"),
        ("train", "init_from", "nowhere", "nowhere is not a folder"),
        ("train", "init_encoders", "nowhere.safetensors", "nowhere.safetensors is missing, cut off or damaged"),
    ],
)
def test_invalid_config_raises_before_compilation(drives, tmp_path, section, field, value, message):
    config = run_config(drives, 2)
    setattr(getattr(config, section), field, value)
    with pytest.raises(ConfigError, match=message) as error:
        train(config, tmp_path / "run", jax.devices()[:4])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()
