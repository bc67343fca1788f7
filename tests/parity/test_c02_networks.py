"""Encoders and decoders with imported weights, against the published PyTorch modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from harness import nchw, nhwc

from dd_jax.checkpoints import torch_names
from dd_jax.geometry.se3 import invert_pose, pose_from_parameters
from dd_jax.networks.depth_decoder import DepthDecoder
from dd_jax.networks.layers import Draws
from dd_jax.networks.pose import PoseNet
from dd_jax.networks.resnet import ResNet, feature_channels


def imported(module, place, state_dicts):
    """(graph, params, batch statistics) of the module at ``place`` in the whole model, with PyTorch's weights."""
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat)
    trees = [nnx.to_pure_dict(state) for state in states]
    for name in reversed(place.split("/")):
        trees = [{name: tree} if tree else {} for tree in trees]
    trees = torch_names.from_torch(state_dicts, tuple(trees))
    for name in place.split("/"):
        trees = [tree.get(name, {}) for tree in trees]
    return graph, *trees


def exported(place, *trees):
    """``{key: array}`` of one network in PyTorch's names and layout."""
    for name in reversed(place.split("/")):
        trees = [{name: tree} for tree in trees]
    (state,) = torch_names.to_torch(*trees).values()
    return state


@pytest.mark.golden("c02_resnet18_*", "c02_resnet50_*")
def test_resnet_features(golden):
    layers = 50 if "resnet50" in golden.stem else 18
    weights = {"mono_encoder": golden.weights("encoder")}
    graph, params, stats = imported(ResNet(layers, 64, draws=Draws()), "teacher/encoder", weights)

    @jax.jit
    def run(image):
        model = nnx.merge(graph, params, stats, copy=True)
        if golden.stem.endswith("eval"):
            model.eval()
        features = model(image)
        return features, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    features, stats = run(nhwc(golden["in.image"]))
    for i, feature in enumerate(features):
        golden.check(f"out.feat{i}", nchw(feature))
    running = exported("teacher/encoder", stats)
    for name in golden.names("out.stats.*"):
        golden.check(name, running[name.removeprefix("out.stats.")])


@pytest.mark.golden("c02_depth_decoder")
def test_depth_decoder(golden):
    weights = golden.weights("depth")
    graph, params, _ = imported(DepthDecoder(feature_channels(18, 64), draws=Draws()), "teacher/decoder", {"mono_depth": weights})
    features = [jnp.asarray(nhwc(golden[f"in.feat{i}"])) for i in range(5)]

    def objective(params, features):
        disps = nnx.merge(graph, params, nnx.State({}))(features)
        return sum(jnp.sum(disp * golden[f"in.grad_w{i}"][:, 0]) for i, disp in enumerate(disps)), disps

    (grads, grad_features), disps = jax.jit(jax.grad(objective, (0, 1), has_aux=True))(params, features)
    for i, disp in enumerate(disps):
        golden.check(f"out.disp{i}", np.asarray(disp)[:, None])
    gradient = exported("teacher/decoder", grads)
    golden.check("out.grad_norm", np.array([np.linalg.norm(gradient[key]) for key in sorted(gradient)], np.float32))
    for name in golden.names("out.grad.*"):
        golden.check(name, gradient[name.removeprefix("out.grad.")])
    golden.check("out.grad_feat4", nchw(grad_features[4]))


@pytest.mark.golden("c02_pose_net")
def test_pose_net(golden):
    weights = {net: golden.weights(net) for net in ("pose_encoder", "pose")}
    graph, params, stats = imported(PoseNet(64, draws=Draws()), "pose", weights)
    image_a, image_b = (nhwc(golden[f"in.image_{x}"]) for x in "ab")

    for case in ("eval", "train"):

        @jax.jit
        def run(image_a, image_b, case=case):
            model = nnx.merge(graph, params, stats, copy=True)
            if case == "eval":
                model.eval()
            feature = model.encoder(jnp.concatenate([image_a, image_b], axis=-1))[-1]
            running = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
            model = nnx.merge(graph, params, stats, copy=True)
            if case == "eval":
                model.eval()
            return feature, model(image_a, image_b), running

        feature, (axis_angle, translation), running = run(image_a, image_b)
        golden.check(f"out.{case}.feat4", nchw(feature))
        # The decoder's second pose is never used; our network does not return it.
        first = np.arange(2)[:, None, None] == 0
        for name, value in (("axisangle", axis_angle), ("translation", translation)):
            golden.check(f"out.{case}.{name}", np.asarray(value)[:, None, None, :] * np.ones((2, 1, 1)), where=first)
        T = pose_from_parameters(axis_angle, translation)
        golden.check(f"out.{case}.T", T)
        golden.check(f"out.{case}.T_inv", invert_pose(T))
        state = exported("pose", running)
        for name in golden.names(f"out.{case}.stats.*"):
            golden.check(name, state[name.removeprefix(f"out.{case}.stats.")])
