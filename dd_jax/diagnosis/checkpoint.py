"""The diagnosis of a trained model on a split of its data set."""

import dataclasses
from pathlib import Path
from typing import Any

from dd_jax import report
from dd_jax.checkpoints import saved
from dd_jax.config import protocols, to_dict
from dd_jax.data.loader import open_split
from dd_jax.diagnosis.diagnose import diagnose
from dd_jax.diagnosis.page import chapters
from dd_jax.diagnosis.result import Diagnosis
from dd_jax.evaluation.evaluate import has_truth, training_truth
from dd_jax.evaluation.results import make_folder
from dd_jax.evaluation.trained_model import restore, workdir_of
from dd_jax.runtime import versions


@dataclasses.dataclass(frozen=True)
class Diagnosed:
    """A diagnosis and what it is of."""

    diagnosis: Diagnosis
    about: dict[str, Any]  # config (its name), step, split, versions
    page: Path | None  # the report

    def as_json(self) -> dict[str, Any]:
        """One object with everything but the arrays."""
        return self.about | self.diagnosis.as_json()


def diagnose_checkpoint(
    directory: str | Path,
    split: str = "test",
    which: str = "best",
    out: str | Path | None = None,
    max_frames: int = 0,
    **changes: str | bool,
) -> Diagnosed:
    """Diagnoses a trained model with the config of its checkpoint and writes a report.

    Args:
      directory, split, which: as in :func:`dd_jax.evaluation.evaluate.evaluate_checkpoint`.
      out: gets ``diagnosis.html``; default: the workdir, or no report for a bundled model or one of the hub.
      max_frames: number of samples, evenly spaced; 0 = all.
      changes: further arguments of :func:`dd_jax.evaluation.trained_model.restore`, ``data_root`` above all.

    Raises:
      ConfigError: an unknown checkpoint, data or poses that cannot be read, or an ``out`` that cannot be written.
    """
    restored, train_data, _ = restore(directory, which, **changes)
    config = restored.config
    if out is None and not saved.is_name(directory):
        out = workdir_of(directory)
    source = open_split(config.data, split)
    if out is not None:
        make_folder(out)
    train_truth = training_truth(train_data, config.eval) if has_truth(source, config.eval) else None
    found = diagnose(restored.state, config, source, train_truth=train_truth, max_frames=max_frames, progress=True)
    about = {"config": config.name, "step": restored.step, "split": split, "versions": versions.versions()}
    if out is None:
        return Diagnosed(found, about, None)
    page = Path(out) / "diagnosis.html"
    report.write_html(
        page,
        f"{config.name}: diagnosis, {split} split",
        facts={"samples": f"{found.samples:,}", "checkpoint, step": f"{restored.step:,}"},
        chapters=chapters(found) | {"Protocol": f"<p>{protocols.describe(config.eval)}</p>"},
        config=to_dict(config),
        versions=about["versions"],
    )
    return Diagnosed(found, about, page)
