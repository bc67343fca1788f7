"""Every system of ``configs`` trains: a few real steps on a fixed batch."""

import jax
import numpy as np
import pytest
import tiny

from dd_jax.config.rules import validate
from dd_jax.method import compiled_steps
from dd_jax.method.train_step import create_state
from dd_jax.runtime import parallel

STEPS = 5

SIGNS = {"disparity_spread/single_frame", "motion/parallax", "motion/parallax_squared", "motion/rotation"}
SIGNS |= {"supervision/visible", "supervision/masked"}
WITH_STUDENT = SIGNS - {"disparity_spread/single_frame"} | {"disparity_spread/teacher", "disparity_spread/student"}
WITH_STUDENT |= {"supervision/reliable", "matching/confident", "matching/at_border", "matching/contrast"}

ELSEWHERE = ("dynamic_depth", "many_depth", "monodepth2", "sc_depth_v3")
"""Systems whose steps other fast tests run (``test_train_step.py``, ``runtime/test_parallel.py``) or lower (SC-DepthV3)."""

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


@pytest.mark.parametrize(
    "system", [pytest.param(system, marks=pytest.mark.slow if system in ELSEWHERE else ()) for system in TERMS]
)
def test_few_steps_reduce_the_loss_and_move_every_network(system):
    config, device = tiny.system(system), jax.devices()[:1]
    validate(config)
    before = jax.tree.map(np.array, create_state(config))
    state, step = parallel.replicate(before, device), compiled_steps.compile_train_step(config, False, device)
    batch, history = parallel.shard_batch(tiny.batch_for(config), config, device), []
    for _ in range(STEPS):
        state, metrics = step(state, batch)
        history.append(jax.device_get(metrics))

    assert before.params.keys() == NETWORKS[system]
    logged = {"total", "skipped", "bins/near", "bins/far"} | {f"grad_norm/{network}" for network in NETWORKS[system]}
    for metrics in history:
        assert metrics.keys() == TERMS[system] | logged | (WITH_STUDENT if "student" in NETWORKS[system] else SIGNS)
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
