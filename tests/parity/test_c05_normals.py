"""Normals and their two losses, with the random draws recorded in the file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import nchw, nhwc

from dd_jax.geometry.camera import backproject
from dd_jax.geometry.normals import depth_to_normals
from dd_jax.losses.normals import (
    Surfaces,
    depth_edges,
    edge_pixels,
    find_edges,
    normal_l1,
    relative_normal_error,
    sample_across_edges,
    sobel,
)

KINDS = ("image", "normal")


@pytest.mark.golden("c05_normals")
def test_normals(golden):
    prior, pred = (jnp.asarray(golden[f"in.{name}"][:, 0]) for name in ("prior_depth", "pred_depth"))
    K = [jnp.asarray(golden[f"in.K_scale{s}"]) for s in range(4)]
    golden.check("out.points_prior", nchw(backproject(prior, K[0])))
    golden.check("out.normals_prior", nchw(depth_to_normals(prior, K[0])))
    golden.check("out.normals_pred", nchw(depth_to_normals(pred, K[0])))

    def l1(pred, K):
        return normal_l1(Surfaces(depth_to_normals(pred, K)[None], depth_to_normals(prior, K)[None]), None)[0]

    value, gradient = jax.value_and_grad(l1)(pred, K[0])
    golden.check("out.normal_l1", value)
    golden.check("out.grad_normal_l1_pred_depth", gradient[:, None])
    for s in (1, 2, 3):
        golden.check(f"out.normal_l1_K_scale{s}", l1(pred, K[s]))


@pytest.mark.golden("c05_normal_ranking")
def test_ranking(golden):
    depth = jnp.asarray(golden["in.gt_depths"][:, 0])
    student, prior = (jnp.asarray(nhwc(golden[f"in.{name}_normal"])) for name in ("inputs", "targets"))
    strength = jnp.hypot(*sobel(depth))
    golden.check("out.edges_depth", strength[:, None])
    golden.check("out.threshold_depth", 0.1 * jnp.max(strength))
    golden.check("out.depth_edge_mask_dilated", depth_edges(depth, None)[:, None])
    red = jnp.asarray(golden["in.images"][:, :1]).transpose(0, 2, 3, 1)  # the reference uses one channel only
    edges = dict(zip(KINDS, find_edges(jnp.repeat(red, 3, axis=-1), depth, prior, None), strict=True))
    chains = {}
    for kind, edge in edges.items():
        golden.check(f"out.edges_{kind}", edge.strength[:, None])
        golden.check(f"out.threshold_{kind}", 0.1 * jnp.max(edge.strength, axis=(1, 2)))
        direction = jnp.abs(edge.direction)  # the reference loses the sign of the slope
        theta = np.arctan2(edge.direction[..., 1], edge.direction[..., 0])
        theta = -theta if kind == "image" else np.abs(theta)  # the reference's row axis points upwards
        golden.check(f"out.thetas_{kind}", theta[:, None])
        candidates = edge_pixels(edge.strength)
        for b in range(len(depth)):
            golden.check(f"out.edge_mask.{b}.{kind}", candidates[b])
            anchors, distances = (jnp.asarray(golden[f"in.rand.{b}.{kind}.{name}"]) for name in ("anchor", "distance"))
            chain = sample_across_edges(candidates[b, None], direction[b, None], anchors[None], distances[None])
            golden.check(f"out.pairs.{b}.{kind}.A", chain[0, :3].ravel())
            golden.check(f"out.pairs.{b}.{kind}.B", chain[0, 1:].ravel())
            chains[b, kind] = chain

    def ranking(student):
        errors = [relative_normal_error(student[b, None], prior[b, None], chain).ravel() for (b, _), chain in chains.items()]
        return jnp.mean(jnp.concatenate(errors))

    value, gradient = jax.value_and_grad(ranking)(student)
    golden.check("out.loss", value)
    golden.check("out.grad_inputs_normal", nchw(gradient))
