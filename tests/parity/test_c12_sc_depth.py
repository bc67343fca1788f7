"""SC-DepthV3 against its published code.

Its coordinates are off by up to half a pixel at the image border, its minimum over sources mixes both directions, and it takes
black pixels as out of view: the helpers here reproduce this and pass the results to our functions.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from harness import nchw, nhwc
from test_c02_networks import exported, imported
from test_c09_evaluation import rounding
from test_c11_end_to_end import projection

from dd_jax.checkpoints import torch_names
from dd_jax.config import Config, EvalConfig, ScDepthConfig
from dd_jax.evaluation import metrics
from dd_jax.geometry.camera import backproject, disp_to_depth
from dd_jax.geometry.normals import depth_to_normals
from dd_jax.geometry.sampling import sample_zeros
from dd_jax.geometry.se3 import pose_from_euler
from dd_jax.geometry.warp import reproject
from dd_jax.losses import ssim
from dd_jax.losses.depth_ranking import UNRELIABLE, ranking, ranking_mean
from dd_jax.losses.normals import Surfaces, edge_pixels, find_edges, normal_l1, relative_normal_error, sample_across_edges
from dd_jax.losses.sc_depth import compare, mean_inconsistency, mean_photometric, static_weight, valid_planes
from dd_jax.networks import model as networks
from dd_jax.networks.depth_decoder import DepthDecoder
from dd_jax.networks.layers import Draws
from dd_jax.networks.pose import PoseNet
from dd_jax.networks.resnet import ResNet, feature_channels

CASES = {
    "default": {},
    "no_ssim": {"ssim": 0.0},
    "no_auto_mask": {"auto_mask": False},
    "no_dynamic_mask": {"weight_mask": False},
    "no_min": {"source_min": False},
    "v1": {},
}


def raw(image):
    """RGB in [0, 1], which our networks normalise themselves."""
    return jnp.asarray(nhwc(image)) * 0.225 + 0.45


def pose(vector):
    return pose_from_euler(vector[:, 3:], vector[:, :3])


def warp(other, other_depth, depth, K, T):
    """(warped image, sampled depth, depth of the points in the other camera), with the reference's coordinates."""
    h, w = depth.shape[1:]
    coords = reproject(depth, K, T) * jnp.array([w / (w - 1), h / (h - 1)]) - 0.5
    found = sample_zeros(jnp.concatenate([other, other_depth[..., None]], axis=-1), coords)
    z = jnp.sum(T[:, None, None, 2, :3] * backproject(depth, K), axis=-1) + T[:, 2, 3, None, None]
    return found[..., :3], found[..., 3], jnp.maximum(z, 1e-3)


def compare_as_published(image, depth, other, other_depth, K, T, config):
    warped, projected, computed = warp(other, other_depth, depth, K, T)
    seen = (jnp.mean(jnp.abs(warped), -1) > 1e-3) & (jnp.mean(jnp.abs(image), -1) > 1e-3)
    return compare(image, other, warped, projected, computed, seen, config)


def frames(golden):
    names = ["tgt", "ref"] + (["ref"] if "in.ref_img_1" in golden else [])
    suffixes = ["", "_0", "_1"]
    images = [jnp.asarray(nhwc(golden[f"in.{name}_img{end}"])) for name, end in zip(names, suffixes, strict=False)]
    depths = [jnp.asarray(golden[f"in.{name}_depth{end}"][:, 0]) for name, end in zip(names, suffixes, strict=False)]
    return images, depths, jnp.asarray(golden["in.intrinsics"])


@pytest.mark.golden("c12_sc_warp")
def test_warp(golden):
    images, depths, K = frames(golden)

    def run(depth, other_depth, vector):
        return warp(images[1], other_depth, depth, K, pose(vector))

    vector = jnp.asarray(golden["in.pose_0"])
    warped, projected, computed = jax.jit(run)(*depths, vector)
    golden.check("out.projected_img", nchw(warped))
    golden.check("out.projected_depth", projected[:, None])
    golden.check("out.computed_depth", computed[:, None])
    golden.check("out.ssim", nchw(ssim.distance(images[1], ssim.windowed(images[0], 3), 3)))
    still = jnp.tile(jnp.eye(4), (len(K), 1, 1))
    golden.check("out.identity.projected_img", nchw(warp(images[1], depths[1], depths[0], K, still)[0]))

    def objective(*args):
        warped, projected, computed = run(*args)
        weights = nhwc(golden["in.grad_w"]), golden["in.grad_w_projected"][:, 0], golden["in.grad_w_computed"][:, 0]
        return sum(jnp.sum(x * w) for x, w in zip((warped, projected, computed), weights, strict=True))

    by_depth, by_other, by_pose = jax.jit(jax.grad(objective, (0, 1, 2)))(*depths, vector)
    golden.check("out.grad_tgt_depth", by_depth[:, None])
    golden.check("out.grad_ref_depth_0", by_other[:, None])
    golden.check("out.grad_pose_0", by_pose)


@pytest.mark.golden("c12_sc_pairwise")
def test_pairwise_losses(golden):
    images, depths, K = frames(golden)
    for case in ("default", "no_ssim", "no_auto_mask", "no_dynamic_mask"):
        config = ScDepthConfig(**CASES[case])
        found = compare_as_published(
            images[0], depths[0], images[1], depths[1], K, pose(jnp.asarray(golden["in.pose_0"])), config
        )
        maps = {
            "diff_img": found.photometric,
            "valid_mask": found.valid.astype(jnp.float32),
            "diff_color": found.colour,
            "diff_depth": found.inconsistency,
        }
        for name, value in maps.items():
            if f"out.{case}.{name}" in golden:
                golden.check(f"out.{case}.{name}", value[:, None])


def published_terms(images, depths, K, vectors, config):
    """Photometric and geometry loss, and the weight of the target's pixels, with the minimum over the maps of both directions."""
    found = []
    for place in (1, 2):
        for one, two, vector in ((0, place, vectors[f"pose_{place - 1}"]), (place, 0, vectors[f"pose_inv_{place - 1}"])):
            found.append(compare_as_published(images[one], depths[one], images[two], depths[two], K, pose(vector), config))
    maps = jax.tree.map(lambda *x: jnp.stack(x), *found)
    target, sources = (jax.tree.map(lambda x, start=start: x[start::2], maps) for start in (0, 1))
    weight = static_weight(target)
    if config.source_min:
        winner = jnp.argmin(maps.colour, axis=0)[None]
        target = jax.tree.map(lambda x: jnp.take_along_axis(x, winner, axis=0), maps)
        sources = jax.tree.map(lambda x: x[:0], maps)
    planes = valid_planes(target, sources, dataclasses.replace(config, source_min=False), None)
    return mean_photometric(planes, None), mean_inconsistency(planes, None), weight


@pytest.mark.golden("c12_sc_photo_geometry")
def test_photo_and_geometry(golden):
    images, depths, K = frames(golden)
    vectors = {name: jnp.asarray(golden[f"in.{name}"]) for name in ("pose_0", "pose_1", "pose_inv_0", "pose_inv_1")}
    for case, changes in CASES.items():
        config = ScDepthConfig(**changes)
        terms = jax.jit(functools.partial(published_terms, images, K=K, config=config))
        photometric, geometry, weight = terms(depths=depths, vectors=vectors)
        golden.check(f"out.{case}.photo_loss", photometric)
        golden.check(f"out.{case}.geometry_loss", geometry)
        if f"out.{case}.dynamic_mask" in golden:
            golden.check(f"out.{case}.dynamic_mask", weight[:, None])
        if f"out.{case}.grad_tgt_depth" in golden:

            def objective(depths, vectors, terms=terms):
                photometric, geometry, _ = terms(depths=depths, vectors=vectors)
                return photometric + 0.1 * geometry

            by_depth, by_pose = jax.jit(jax.grad(objective, (0, 1)))(depths, vectors)
            for name, value in zip(("tgt_depth", "ref_depth_0", "ref_depth_1"), by_depth, strict=True):
                golden.check(f"out.{case}.grad_{name}", value[:, None])
            for name, value in by_pose.items():
                golden.check(f"out.{case}.grad_{name}", value)
    same = published_terms([images[0]] * 3, depths, K, vectors, ScDepthConfig())
    golden.check("out.few_valid.photo_loss", same[0])
    golden.check("out.few_valid.geometry_loss", same[1])
    golden.leave_out("out.smooth_*", "smoothness of depth belongs to SC-DepthV1 and V2, which are not implemented")


@pytest.mark.golden("c12_sc_mask_ranking")
def test_ranking(golden):
    depth, prior, weight = (jnp.asarray(golden[f"in.{name}"][:, 0]) for name in ("pred_depth", "pseudo_depth", "dynamic_mask"))
    golden.check("out.unreliable_mask", least(weight)[:, None])
    pairs = dict(zip(("dynamic", "global"), drawn_pairs(golden), strict=True))

    def loss(depth):
        totals, counts = zip(*(ranking_of_pairs(depth, prior, samples) for samples in pairs.values()), strict=True)
        return ranking_mean(sum(totals), sum(counts), None), (totals, counts)

    (value, (totals, counts)), gradient = jax.value_and_grad(loss, has_aux=True)(depth)
    golden.check("out.loss", value)
    golden.check("out.grad_pred_depth", gradient[:, None])
    golden.check("out.sum_dynamic", totals[0])
    golden.check("out.sum_global", totals[1])
    golden.check("out.count", np.array([int(count) for count in counts], np.int32))
    flat = np.asarray(prior).reshape(len(prior), -1)
    for kind, samples in pairs.items():
        for end, indices in zip("AB", zip(*samples, strict=True), strict=True):
            golden.check(f"out.pairs.{kind}.{end}", np.concatenate(indices).astype(np.int32))
        one, other = (np.concatenate([row[index] for row, index in zip(flat, ends)]) for ends in zip(*samples, strict=True))
        order = np.where(one >= 1.15 * other, 1, np.where(other > 1.15 * one, -1, 0)) * ((one > 0) | (other > 0))
        golden.check(f"out.pairs.{kind}.target", order.astype(np.int32))


@pytest.mark.golden("c12_sc_pose_net")
def test_pose_net(golden):
    state = torch_names.split_sc_depth({f"pose_net.{key}": value for key, value in golden.weights("pose_net").items()})
    graph, params, stats = imported(PoseNet(64, draws=Draws()), "pose", state)
    images = [raw(golden[f"in.image_{name}"]) for name in "ab"]

    @functools.partial(jax.jit, static_argnums=0)
    def run(train):
        model = nnx.merge(graph, params, stats, copy=True)
        model.train() if train else model.eval()
        found = model(*images), model(*reversed(images))
        return found, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    for mode in ("eval", "train"):
        found, running = run(mode == "train")
        for order, (angles, translation) in zip(("ab", "ba"), found, strict=True):
            golden.check(f"out.{mode}.{order}.pose", jnp.concatenate([translation, angles], axis=-1))
            golden.check(f"out.{mode}.{order}.matrix", pose_from_euler(angles, translation)[:, :3])
    renamed = exported("pose/encoder", running["encoder"])
    for name in golden.names("out.train.stats.*"):
        golden.check(name, renamed[name.removeprefix("out.train.stats.encoder.")])
    vector = jnp.asarray(golden["in.vec"])
    golden.check("out.vec.matrix", pose(vector)[:, :3])
    golden.check("out.vec.grad", jax.grad(lambda v: jnp.sum(pose(v)[:, :3] * golden["in.grad_w"]))(vector))


@pytest.mark.golden("c12_sc_depth_net")
def test_depth_net(golden):
    state = torch_names.split_sc_depth({f"depth_net.{key}": value for key, value in golden.weights("depth_net").items()})
    encoder = imported(ResNet(18, 64, draws=Draws()), "teacher/encoder", {"mono_encoder": state["mono_encoder"]})
    decoder = imported(
        DepthDecoder(feature_channels(18, 64), smooth=True, draws=Draws()), "teacher/decoder", {"mono_depth": state["mono_depth"]}
    )
    image = raw(golden["in.image"])

    @functools.partial(jax.jit, static_argnums=0)
    def run(train, params):
        networks = [nnx.merge(net[0], tree, net[2], copy=True) for net, tree in zip((encoder, decoder), params, strict=True)]
        for network in networks:
            network.train() if train else network.eval()
        features = networks[0](image)
        depths = [disp_to_depth(disp, 1 / 10.01, 100.0) for disp in networks[1](features)]
        objective = jnp.sum(jnp.log(depths[0]) * golden["in.grad_w"][:, 0])
        return objective, (features[-1], depths, nnx.to_pure_dict(nnx.state(networks[0], nnx.BatchStat)))

    params = encoder[1], decoder[1]
    for mode in ("eval", "train"):
        _, (deepest, depths, running) = run(mode == "train", params)
        golden.check(f"out.{mode}.feat4", nchw(deepest))
        for scale, depth in enumerate(depths):
            golden.check(f"out.{mode}.depth{scale}", depth[:, None])
        renamed = exported("teacher/encoder", running)
        for name in golden.names(f"out.{mode}.stats.*"):
            golden.check(name, renamed[name.removeprefix(f"out.{mode}.stats.encoder.")])
    by_encoder, by_decoder = jax.grad(lambda p: run(True, p)[0])(params)
    ours = {"mono_encoder": exported("teacher/encoder", by_encoder), "mono_depth": exported("teacher/decoder", by_decoder)}
    gradient = {key: published(ours, f"depth_net.{key}") for key in golden.meta["grad_keys"]}
    golden.check("out.grad_norm", np.array([np.linalg.norm(value) for value in gradient.values()], np.float32))
    for name in golden.names("out.grad.*"):
        golden.check(name, gradient[name.removeprefix("out.grad.")])


def published(state_dicts, key):
    """The array that the published code calls ``key``, of {network: {our exported key: array}}."""
    ((network, names),) = torch_names.split_sc_depth({key: np.zeros(1)}).items()
    (name,) = names
    value = state_dicts[network][name]
    return np.concatenate([value[3:6], value[:3]]) if network == "pose" and name.startswith("net.3.") else value


@pytest.mark.golden("c12_sc_train")
def test_training_step(golden):
    config = Config()
    config.sc.enabled, config.model.student = True, False
    state = {f"{net}.{key}": value for net in ("depth_net", "pose_net") for key, value in golden.weights(net).items()}
    params, stats = torch_names.from_torch(torch_names.split_sc_depth(state), networks.initialise(config, 0))
    names = "tgt_img", "ref_img_0", "ref_img_1"
    recorded = [jnp.asarray(nhwc(golden[f"in.{name}"])) for name in names]
    prior, K = jnp.asarray(golden["in.pseudo_depth"][:, 0]), jnp.asarray(golden["in.intrinsics"])
    prior_normals = depth_to_normals(prior, K)
    red = jnp.repeat(recorded[0][..., :1], 3, axis=-1)  # the reference uses one channel only
    chains = []
    for kind, edge in zip(("image", "normal"), find_edges(red, prior, prior_normals, None), strict=True):
        candidates = edge_pixels(edge.strength)
        for b in range(len(prior)):
            ranks, distances = (jnp.asarray(golden[f"in.rand.{b}.{kind}.{name}"])[None] for name in ("anchor", "distance"))
            direction = jnp.abs(edge.direction[b, None])  # the reference loses the sign of the slope
            chains.append((b, sample_across_edges(candidates[b, None], direction, ranks, distances)))
    pairs = [[np.concatenate(ends) for ends in zip(*kinds, strict=True)] for kinds in zip(*drawn_pairs(golden), strict=True)]

    def objective(params, depths, vectors):
        model = networks.merge(params, stats, config, None, train=True)
        images = [raw(golden[f"in.{name}"]) for name in names]
        depths = [disp_to_depth(model.teacher(image)[0], 1 / 10.01, 100.0) + extra for image, extra in zip(images, depths)]
        orders = {"pose_0": (0, 1), "pose_1": (0, 2), "pose_inv_0": (1, 0), "pose_inv_1": (2, 0)}
        for name, (one, other) in orders.items():
            vectors[name] += jnp.concatenate(model.pose(images[one], images[other])[::-1], axis=-1)
        photometric, geometry, weight = published_terms(recorded, depths, K, vectors, ScDepthConfig())
        normals = depth_to_normals(depths[0], K)
        turns = [relative_normal_error(normals[b, None], prior_normals[b, None], chain).ravel() for b, chain in chains]
        terms = {
            "photo": photometric,
            "geometry": geometry,
            "normal_l1": normal_l1(Surfaces(normals[None], prior_normals[None]), None)[0],
            "mask_ranking": ranking_mean(*ranking_of_pairs(depths[0], prior, pairs), None),
            "normal_ranking": jnp.mean(jnp.concatenate(turns)),
        }
        total = terms["photo"] + 0.1 * sum(value for name, value in terms.items() if name != "photo")
        return total, (terms | {"": total}, depths, vectors, weight, networks.split(model)[1])

    zeros = [jnp.zeros_like(prior)] * 3, {f"pose_{end}": jnp.zeros((len(prior), 6)) for end in ("0", "1", "inv_0", "inv_1")}
    run = jax.jit(jax.grad(objective, (0, 1, 2), has_aux=True))
    (by_params, by_depths, by_vectors), (terms, depths, vectors, weight, running) = run(params, *zeros)
    for name, value in terms.items():
        golden.check(f"out.losses.{name}_loss" if name else "out.losses.loss", value)
    for name, depth, gradient in zip(("tgt_depth", "ref_depth_0", "ref_depth_1"), depths, by_depths, strict=True):
        golden.check(f"out.{name}", depth[:, None])
        if f"out.grad_{name}" in golden:
            golden.check(f"out.grad_{name}", gradient[:, None])
    for name, vector in vectors.items():
        golden.check(f"out.{name}", vector)
        if f"out.grad_{name}" in golden:
            golden.check(f"out.grad_{name}", by_vectors[name])
    golden.check("out.dynamic_mask", weight[:, None])
    golden.check("out.unreliable_mask", least(weight)[:, None])
    arrays = torch_names.to_torch(by_params, running)
    gradients = {key: published(arrays, key.replace("/", ".", 1)) for key in golden.meta["grad_keys"]}
    golden.check("out.grad_norm", np.array([np.linalg.norm(value) for value in gradients.values()], np.float32))
    golden.check("out.grad_proj", np.array([projection(golden, *item) for item in gradients.items()], np.float32))
    norms = [np.linalg.norm(published(arrays, key.replace("/", ".", 1))) for key in golden.meta["stat_keys"]]
    golden.check("out.stat_norm", np.array(norms, np.float32))


def least(weight):
    """Unreliable pixels: in each image, a fixed share with the least weight."""
    flat = np.asarray(weight).reshape(len(weight), -1)
    chosen = np.zeros(flat.shape, bool)
    order = np.argsort(flat, axis=1, kind="stable")[:, : int(UNRELIABLE * flat.shape[1])]
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen.reshape(weight.shape)


def drawn_pairs(golden):
    """Two lists of (A, B) per sample, from the recorded draws: pairs of unreliable and reliable pixels, then pairs of all pixels.

    Of the latter, pairs with no prior depth at either end are dropped, so samples may have different numbers of pairs.
    """
    mask = golden["out.unreliable_mask"].reshape(len(golden["out.unreliable_mask"]), -1)
    anywhere = golden["in.rand.uniform"].ravel() >= 0.9
    first, second = np.flatnonzero(anywhere), np.flatnonzero(anywhere[golden["in.rand.permutation"]])
    known = golden["in.pseudo_depth"].reshape(mask.shape) > 0
    dynamic, wide = [], []
    for b, unreliable in enumerate(mask):
        dynamic.append((np.flatnonzero(unreliable), np.flatnonzero(~unreliable)[golden[f"in.rand.{b}.reliable"]]))
        kept = known[b][first] | known[b][second]
        wide.append((first[kept], second[kept]))
    return dynamic, wide


def ranking_of_pairs(depth, prior, samples):
    """Sum and number of pairs, given as (A, B) per sample."""
    found = [ranking(depth[b, None], prior[b, None], *(jnp.asarray(end)[None] for end in ends)) for b, ends in enumerate(samples)]
    return tuple(map(sum, zip(*found, strict=True)))


@pytest.mark.golden("c12_sc_eval")
def test_evaluation(golden):
    """All nine errors with the published depth ranges and crops of KITTI, DDAD and NYU.

    SC-Depth clamps depth only after median scaling; we, as DynamicDepth, clamp before as well. Without clamping the unit of depth
    does not matter, so the test chooses the unit that centres the predicted depths in the range (in log depth).
    """
    for name, farthest, crop in (("kitti", 80.0, "eigen"), ("ddad", 200.0, "none"), ("nyu", 10.0, "none")):
        config = EvalConfig(min_depth=0.1, max_depth=farthest, crop=crop, resize="depth", median="lower")
        depths, truths = golden[f"in.pred_{name}"][:, 0], golden[f"in.gt_{name}"]
        units = [np.sqrt(0.1 * farthest / (depth.min() * depth.max())) for depth in depths]
        if name == "nyu":
            inside = np.zeros(truths.shape, bool)
            inside[:, 45:471, 41:601] = True
            truths = np.where(inside, truths, 0)
        results = [
            metrics.evaluate_image(1 / (unit * depth), truth, {}, config)
            for unit, depth, truth in zip(units, depths, truths, strict=True)
        ]
        mean = metrics.summarize(results)["all"]
        order = ("abs_diff", "abs_rel", "sq_rel", "log10", "rmse", "rmse_log", "a1", "a2", "a3")
        limit = np.mean([rounding(result["all"]["pixels"], order) for result in results], axis=0)
        golden.check(f"out.errors_{name}", [mean[error] for error in order], at_least=limit)
