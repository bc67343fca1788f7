"""The student's encoder around the cost volume, against DynamicDepth's matching encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from harness import nchw, nhwc
from test_c03_cost_volume import decided

from dd_jax.checkpoints import torch_names
from dd_jax.config import CostVolumeConfig
from dd_jax.method import cost_volume
from dd_jax.networks.layers import Draws
from dd_jax.networks.matching import MatchingEncoder
from dd_jax.types import CostVolume


def imported(golden):
    """(graph, params, batch statistics) of a student encoder with the fixture's weights."""
    encoder = MatchingEncoder(18, 64, golden.meta["num_depth_bins"], draws=Draws())
    graph, *states = nnx.split(encoder, nnx.Param, nnx.BatchStat)
    trees = tuple({"student": {"encoder": nnx.to_pure_dict(state)}} for state in states)
    trees = torch_names.from_torch({"encoder": golden.weights("encoder")}, trees)
    return graph, *(tree["student"]["encoder"] for tree in trees)


def exported(tree):
    """``{key: array}`` with PyTorch's names and layout."""
    return torch_names.to_torch({"student": {"encoder": tree}})["encoder"]


def flat_lookups(golden):
    """(b * frames, h, w, 3)"""
    lookups = nhwc(golden["in.lookups"])
    return lookups.reshape(-1, *lookups.shape[2:])


@pytest.mark.golden(
    "c03_matching_inverse_a",
    "c03_matching_large_feats",
    "c03_matching_linear_a",
    "c03_matching_linear_b",
    "c03_matching_two_lookups",
)
def test_features_around_the_volume(golden):
    graph, params, stats = imported(golden)

    def model():
        encoder = nnx.merge(graph, params, stats, copy=True)
        encoder.eval()
        return encoder

    @jax.jit
    def fuse(f0, f1, costs, confidence):
        volume = CostVolume(costs=costs, observed=jnp.ones(costs.shape, bool), confidence=confidence, lowest=confidence)
        return model().fuse(f0, f1, volume)

    f0, f1 = jax.jit(lambda image: model().features(image))(nhwc(golden["in.current"]))
    golden.check("out.current_feats", nchw(f1))
    _, lookup_f1 = jax.jit(lambda image: model().features(image))(flat_lookups(golden))
    golden.check("out.lookup_feats", nchw(lookup_f1).reshape(golden["out.lookup_feats"].shape))

    for case in sorted({name.split(".")[1] for name in golden.names("out.*.cost_volume")}):
        features = fuse(f0, f1, nhwc(golden[f"out.{case}.cost_volume"]), golden[f"out.{case}.confidence_mask"])
        assert np.array_equal(features[0], f0)
        assert np.array_equal(features[1], f1), "the decoder's skip connection is taken before the fusion"
        for i in (2, 3, 4):
            golden.check(f"out.{case}.feat{i}", nchw(features[i]))


@pytest.mark.golden("c03_matching_train")
def test_matching_encoder_in_training(golden):
    """Forward pass, gradients and running statistics together, with our own cost volume."""
    graph, params, stats = imported(golden)
    arguments = golden.meta["case_kwargs"]["pool"]
    config = CostVolumeConfig(
        bins=golden.meta["num_depth_bins"],
        binning=golden.meta["depth_binning"],
        aggregate="min",
        occlusion="feature_pool",
        pool_radius=arguments["pool_r"],
        pool_threshold=arguments["pool_th"],
    )
    poses, augmented = golden["in." + arguments["poses"]], golden["in." + arguments["aug_mask"]]
    bins = cost_volume.depth_bins(jnp.asarray([golden["in.min_depth"], golden["in.max_depth"]]), config)
    # Our holes are an explicit map; the reference takes dark image pixels as holes, at every fourth pixel.
    holes = (golden["in.lookups"].sum(axis=2) < 0.15)[:, :, ::4, ::4] * (1 - augmented)
    frames = golden["in.lookups"].shape[1]

    def objective(params, current, lookups):
        encoder = nnx.merge(graph, params, stats, copy=True)
        f0, f1 = encoder.features(current)
        _, lookup_f1 = jax.lax.stop_gradient(encoder.features(lookups))
        volume = cost_volume.build(
            jax.lax.stop_gradient(f1),
            lookup_f1.reshape(-1, frames, *lookup_f1.shape[1:]),
            jnp.asarray(poses),
            jnp.asarray(np.any(poses != 0, axis=(-1, -2))),
            jnp.asarray(holes, jnp.float32),
            jnp.asarray(golden["in.K"][:, :3, :3]),
            bins,
            config,
        )
        features = encoder.fuse(f0, f1, volume)
        value = sum(jnp.sum(features[i] * nhwc(golden[f"in.grad_w{i}"])) for i in (2, 3, 4))
        return value, (features, volume, nnx.to_pure_dict(nnx.state(encoder, nnx.BatchStat)))

    grads, (features, volume, running) = jax.jit(jax.grad(objective, has_aux=True))(
        params, nhwc(golden["in.current"]), flat_lookups(golden)
    )
    for i in (1, 2, 3, 4):
        golden.check(f"out.feat{i}", nchw(features[i]))
    golden.check("out.cost_volume", nchw(volume.costs))
    golden.check("out.missing_mask", nchw(~volume.observed).astype(np.float32))
    golden.check("out.confidence_mask", volume.confidence)
    golden.check("out.lowest_cost", volume.lowest, where=decided(volume))

    running = exported(running)
    for name in golden.names("out.stats.*"):
        golden.check(name, running[name.removeprefix("out.stats.")])
    gradient = exported(grads)
    norms = [np.linalg.norm(gradient[key]) for key in golden.meta["grad_keys"]]
    golden.check("out.grad_norm", np.array(norms, np.float32))
    for name in golden.names("out.grad.*"):
        golden.check(name, gradient[name.removeprefix("out.grad.")])
