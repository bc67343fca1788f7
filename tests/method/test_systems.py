"""Every system of ``configs`` trains: a few real steps on a fixed batch."""

from importlib import import_module

import jax
import numpy as np
import pytest
import tiny

from dd_jax.config.rules import validate
from dd_jax.method import compiled_steps
from dd_jax.method.train_step import create_state
from dd_jax.runtime import parallel

STEPS = 5

ELSEWHERE = ("dynamic_depth", "many_depth", "monodepth2")
"""Systems whose numeric steps other fast tests run (``test_train_step.py``, ``runtime/test_parallel.py``)."""

TWO_FRAMES = {
    "teacher/photometric",
    "teacher/smoothness",
    "student/photometric",
    "student/consistency",
    "student/smoothness",
}

TERMS = {
    "dynamic_depth": TWO_FRAMES,
    "many_depth": TWO_FRAMES,
    "monodepth2": {"single_frame/photometric", "single_frame/smoothness"},
    "ds_depth": TWO_FRAMES | {"flow/smoothness"},
    "sc_depth_v3": {
        "single_frame/photometric",
        "single_frame/geometry",
        "single_frame/depth_rank",
        "single_frame/normal_l1",
        "single_frame/normal_rank",
    },
}

NETWORKS = {system: {"teacher", "pose"} | ({"student"} if terms >= TWO_FRAMES else set()) for system, terms in TERMS.items()}
NETWORKS["ds_depth"] |= {"flow"}


def small(system):
    """The config of a system's demo at the size of ``tiny``."""
    config = import_module(f"configs.{system}").get_config("demo")
    config.data.height, config.data.width, config.data.batch_size = tiny.HEIGHT, tiny.WIDTH, 2
    config.model.width = config.cost_volume.bins = 8
    config.loss.normal_anchors = 64
    config.optim.learning_rate = 1e-3
    return config


def fixed_batch(config):
    """Two textured samples, one with a moving object; ``prior`` where the system reads it: a road that recedes."""
    batch = tiny.batch(config.data.batch_size)
    if config.data.priors == "none":
        return batch
    rows = np.arange(1, tiny.HEIGHT + 1, dtype=np.uint16)[:, None]
    return batch.replace(prior=np.broadcast_to(400 * rows, (config.data.batch_size, tiny.HEIGHT, tiny.WIDTH)))


@pytest.mark.parametrize(
    "system", [pytest.param(system, marks=pytest.mark.slow if system in ELSEWHERE else ()) for system in TERMS]
)
def test_few_steps_reduce_the_loss_and_move_every_network(system):
    config, device = small(system), jax.devices()[:1]
    validate(config)
    before = jax.tree.map(np.array, create_state(config))
    state, step = parallel.replicate(before, device), compiled_steps.compile_train_step(config, False, device)
    batch, history = parallel.shard_batch(fixed_batch(config), config, device), []
    for _ in range(STEPS):
        state, metrics = step(state, batch)
        history.append(jax.device_get(metrics))

    assert before.params.keys() == NETWORKS[system]
    logged = {"total", "skipped", "bins/near", "bins/far"} | {f"grad_norm/{network}" for network in NETWORKS[system]}
    for metrics in history:
        assert metrics.keys() == TERMS[system] | logged
        assert all(np.isfinite(value) for value in metrics.values()) and metrics["skipped"] == 0
        assert metrics["total"] == pytest.approx(sum(metrics[term] for term in TERMS[system]), rel=1e-5)
        assert all(metrics[name] > 0 for name in TERMS[system])
    assert history[-1]["total"] < history[0]["total"]
    after = parallel.on_host(state)
    assert after.step == STEPS
    for network in NETWORKS[system]:
        moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before.params[network], after.params[network])
        if (system, network) == ("sc_depth_v3", "teacher"):  # its losses read the finest scale only
            heads = moved["decoder"]["heads"]
            assert not any(jax.tree.leaves([heads.pop(f"scale{level}") for level in (1, 2, 3)]))
        assert all(jax.tree.leaves(moved)), network
