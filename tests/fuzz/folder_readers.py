"""Readers of what this library wrote: saved models, runs, stores, results and exported files."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cityscapes_tree
import jax
import jax.numpy as jnp
import made_up_results
import mutations
import small_runs
import tiny
from reader import Reader, finite

from dd_jax.ablations import measure, result
from dd_jax.checkpoints import model_card, run_folder, saved
from dd_jax.config import Config, to_dict
from dd_jax.data.tfds import builders, store
from dd_jax.export import artifacts
from dd_jax.inference import predict
from dd_jax.prepare import tfds_store
from dd_jax.report import logger


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _part_of(make: Callable[[Path], None], part: str) -> Callable[[Path], list[bytes]]:
    """The content of a file in a folder that ``make`` writes beside the reader's file."""

    def seeds(path: Path) -> list[bytes]:
        make(path.parent / "whole")
        return [_target(path, part).read_bytes()]

    return seeds


def _target(path: Path, part: str) -> Path:
    return next((path.parent / "whole").glob(part))


def _put(path: Path, part: str) -> Path:
    """Writes the variant to its place; returns the folder around it."""
    _target(path, part).write_bytes(path.read_bytes())
    return path.parent / "whole"


def _saved_model(folder: Path) -> None:
    saved.write(folder, tiny.restored(tiny.config()))
    about = json.loads((folder / saved.ABOUT).read_text())
    (folder / saved.ABOUT).write_text(json.dumps({name: about[name] for name in about if name != "sha256"}))
    (folder / saved.CARD).unlink()  # otherwise all changes of the weights show by their digest


def _is_restored(found: run_folder.Restored) -> None:
    assert isinstance(found.config, Config) and type(found.step) is int
    finite(*jax.tree.leaves(found.state.params), found.state.depth_range)


def _model(part: str) -> Reader:
    return Reader(
        "variant",
        _part_of(_saved_model, part),
        lambda path: saved.read(_put(path, part)),
        _is_restored,
        repair=mutations.safetensors,
        dear=True,
        in_messages=part,
    )


def _run(folder: Path) -> None:
    small_runs.save_steps(folder, {2: 0.5, 4: 0.3}, Config())


def _checkpoint(part: str) -> Reader:
    return Reader(
        "variant",
        _part_of(_run, f"checkpoints/4/{part}"),
        lambda path: run_folder.restore_params(_put(path, f"checkpoints/4/{part}"), "best"),
        _is_restored,
        dear=True,
        in_messages="checkpoint",
    )


def _store(folder: Path) -> None:
    tree = cityscapes_tree.CityscapesTree(folder)
    tree.frames(range(5))
    tree.camera(2)
    tree.split("train", [("ulm", "000064", 2)])
    tfds_store.build(dataclasses.replace(tree.config, threads=1), folder, splits=("train",), depth=())


def _open_store(path: Path, part: str) -> tuple[store.Listing, Any]:
    folder = _put(path, part) / "cityscapes_triplets"
    if not part.endswith(store.NOTE):  # the sizes of all shards fit, so that the rest is reached
        note = json.loads((folder / store.NOTE).read_text())
        note["shards"] = {name: (folder / name).stat().st_size for name in note["shards"]}
        (folder / store.NOTE).write_text(json.dumps(note))
    config = cityscapes_tree.CityscapesTree(folder).config
    listing, frames = store.open_store(dataclasses.replace(config, source="tfds"), "train")
    return listing, frames.decode(0)


def _is_listing(found: tuple[store.Listing, Any]) -> None:
    listing, frame = found
    finite(listing.K)
    assert len(listing.names) == len(listing.triplets) and frame.image.size
    assert (listing.triplets >= -1).all() and (listing.triplets < len(listing.files)).all()


def _stored(part: str) -> Reader:
    return Reader(
        "variant",
        _part_of(_store, f"cityscapes_triplets/{part}"),
        lambda path: _open_store(path, f"cityscapes_triplets/{part}"),
        _is_listing,
        (*Reader.errors, store.UnreadableFrame),
        dear=True,
        in_messages="cityscapes_triplets",
    )


HISTORY = "".join(json.dumps({"step": step, "kind": "train", "total": 0.5, "x": "nan"}) + "\n" for step in (10, 20, 30)).encode()


def _history(found: list) -> None:
    assert all(type(record["step"]) is int and isinstance(record["kind"], str) for record in found)


def _resume(path: Path) -> list:
    logger.truncate_history(path, 20)
    return logger.read_history(path.parent)


def _result(path: Path) -> list[bytes]:
    result.write(path, made_up_results.finished("row", 1))
    return [path.read_bytes()]


def _scores(path: Path) -> list[bytes]:
    return [_json(dataclasses.asdict(made_up_results.finished("row", 1).scores))]


def _drives(found: result.Scores) -> None:
    finite(*(score for by in found.abs_rel.values() for drives in by.values() for score in drives.values()))


METRICS = {
    who: {region: dict.fromkeys((*artifacts_metrics, "pixels", "images"), 0.5) for region in ("all", "moving")}
    for artifacts_metrics in [("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")]
    for who in ("student", "teacher", "constant")
}
ABOUT = {"format": 1, "step": 7, "score": 0.1, "versions": {"jax": "0.10"}, "config": to_dict(tiny.config())}
KNOWN = {"model": "x", "K": [[1.0, 0, 0]], "size": [3, 4], "rate": 10.0, predict.INPUT: ["a 1-2", "b 1-2"]}


def _check_output(path: Path) -> None:
    predict.check_output_folder(path.parent, KNOWN, 0)


def _exported(kind: str) -> Callable[[Path], list[bytes]]:
    def seeds(path: Path) -> list[bytes]:
        def run(image: jax.Array) -> dict[str, jax.Array]:
            return {"inverse_depth": jnp.tanh(image).sum(-1) * 0.1 + 1}

        port = {"image": artifacts.Port((4, 6, 3), "float32", "", "")}
        program = artifacts.Program("teacher", port, {"inverse_depth": artifacts.Port((4, 6), "float32", "", "x")}, run)
        return [(artifacts.as_onnx if kind == "onnx" else artifacts.as_stablehlo)(program)]

    return seeds


FOLDERS = {
    "config of a saved model": Reader(
        saved.ABOUT, lambda path: [_json(ABOUT)], lambda path: saved.config_of(path.parent), lambda config: to_dict(config)
    ),
    "scores of a model": Reader(
        saved.SCORES, lambda path: [_json(METRICS)], lambda path: saved.scores_of(path.parent), model_card.measured
    ),
    "saved model, config": _model(saved.ABOUT),
    "saved model, weights": _model(saved.WEIGHTS),
    "checkpoint, metadata": _checkpoint("_CHECKPOINT_METADATA"),
    "checkpoint, score": _checkpoint("metrics/metrics"),
    "checkpoint, list of arrays": _checkpoint("state/_METADATA"),
    "checkpoint, manifest": _checkpoint("state/manifest.ocdbt"),
    "checkpoint, arrays": _checkpoint("state/d/*"),
    "store, note": _stored("store.json"),
    "store, description": _stored(f"triplets/{builders.VERSION}/dataset_info.json"),
    "store, features": _stored(f"triplets/{builders.VERSION}/features.json"),
    "store, samples": _stored(f"triplets/{builders.VERSION}/*.array_record*"),
    "store, frames": _stored(f"frames/{builders.VERSION}/*.array_record*"),
    "log of a run": Reader(logger.HISTORY, lambda path: [HISTORY], lambda path: logger.read_history(path.parent), _history),
    "log of a run that continues": Reader(logger.HISTORY, lambda path: [HISTORY], _resume, _history),
    "result of an ablation": Reader("result.json", _result, result.read, lambda found: _drives(found.scores)),
    "scores of an ablation": Reader(measure.FILE, _scores, result.read_scores, _drives),
    "settings of a prediction": Reader(
        f"out/{predict.SETTINGS}", lambda path: [_json(KNOWN)], _check_output, lambda found: None, in_messages="out"
    ),
    "StableHLO": Reader("teacher.stablehlo", _exported("stablehlo"), artifacts.load, callable, dear=True),
    "ONNX": Reader("teacher.onnx", _exported("onnx"), artifacts.load_onnx, callable, dear=True),
    "signature of exported files": Reader(
        artifacts.SIGNATURE,
        lambda path: [_json({"system": {"digest": "x"}, "artifacts": {"a.onnx": {"sha256": "0"}}})],
        lambda path: artifacts._listed(path.parent),
        lambda found: found.get("teacher.onnx"),
    ),
}
