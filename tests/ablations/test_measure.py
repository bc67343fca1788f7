import numpy as np
import pytest
from fakes import FakeSource, oracle, settings

from dd_jax.ablations.measure import by_drive
from dd_jax.ablations.result import LOOKUPS, PREDICTORS
from dd_jax.config import ConfigError
from dd_jax.diagnosis.diagnose import errors_by_lookup, images_by_lookup
from dd_jax.evaluation import metrics


class Drives(FakeSource):
    """Two drives, of two and of three samples; the first sample shows nothing that moves."""

    def __init__(self, **options):
        super().__init__(5, **options)
        self.moving[0] = False

    def name(self, index):
        return f"{'ab'[index > 1]} {index}"


@pytest.fixture
def source():
    return Drives()


def noisy(source):
    """The true depth, worse from sample to sample, and worse without a lookup frame."""
    exact = oracle(source)

    def predict(batch):
        found, index = exact(batch), batch.images[:, 1, 0, 0, 0].astype(int)
        tilt = np.linspace(1, 2 + np.where(batch.exists[:, 0], 0.1, 0.3) * index, found.student.shape[2]).T[:, None]
        return found.replace(student=found.student * tilt)

    return predict


def test_scores_are_means_over_the_images_of_a_drive(source):
    images = images_by_lookup(noisy(source), source, settings(), LOOKUPS)
    scores = by_drive(images)
    assert scores.counts["all"] == {"a": 2, "b": 3} and scores.counts["moving"] == {"a": 1, "b": 3}
    assert set(scores.abs_rel) == set(PREDICTORS)
    for who in PREDICTORS:
        summary = metrics.summarize([own for _, own in images[who]])
        for region, drives in scores.abs_rel[who].items():
            counts = scores.counts[region]
            mean = sum(counts[drive] * drives[drive] for drive in drives) / sum(counts.values())
            assert mean == pytest.approx(summary[region]["abs_rel"], abs=1e-6)
    assert scores.abs_rel["none"]["all"]["b"] > scores.abs_rel["previous"]["all"]["b"] > 0.1


def test_every_lookup_is_predicted_once(source):
    calls = []
    images_by_lookup(lambda batch: calls.append(batch) or oracle(source)(batch), source, settings(batch_size=5), LOOKUPS)
    assert len(calls) == len(LOOKUPS)


def test_means_of_the_images_are_those_of_the_diagnosis(source):
    images = images_by_lookup(noisy(source), source, settings(), LOOKUPS)
    errors = errors_by_lookup(noisy(source), source, settings(), None, 0)
    for who in PREDICTORS:
        assert errors[who]["all"] == np.mean([own["all"]["abs_rel"] for _, own in images[who]])


def test_without_ground_truth_there_is_nothing_to_compare():
    source = Drives(measured=False)
    with pytest.raises(ConfigError, match="no image of the test split has ground truth"):
        by_drive(images_by_lookup(oracle(source), source, settings(), LOOKUPS))
