import csv
import json

import numpy as np
import pytest
from fakes import FakeSource, oracle, settings

from dd_jax.config import ConfigError
from dd_jax.evaluation import evaluate
from dd_jax.evaluation.results import make_folder, write_results
from dd_jax.report import format_table


class Partly(FakeSource):
    """Of 8 samples, 1 and 4 have no ground truth, and that of 6 has no valid pixel."""

    def __init__(self):
        super().__init__(8)
        self.depth[6] = 0

    def ground_truth(self, index, kind):
        return None if index in (1, 4) else super().ground_truth(index, kind)


def test_coverage_counts_images_with_valid_ground_truth(tmp_path):
    source = Partly()
    results = evaluate.evaluate(oracle(source), source, settings(), num_panels=2)
    assert (results.measured, len(results.images), results.coverage) == (5, 8, "5 of 8")
    write_results(results, tmp_path, "title", settings(), {}, [], {})
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert [written[who]["all"]["images"] for who in ("student", "teacher")] == [5, 5]
    with (tmp_path / "per_image.csv").open() as file:
        assert len({line["image"] for line in csv.DictReader(file)}) == 5
    page = (tmp_path / "report.html").read_text()
    assert "<b>5 of 8</b><span>images measured</span>" in page and "pixels in 5 images" in page
    assert format_table(results.metrics, results.scales).splitlines()[1].split()[-2] == "5"


def test_region_counts_its_images():
    source = FakeSource(4)
    source.moving[:3] = False
    found = evaluate.evaluate(oracle(source), source, settings(), ("student",)).metrics["student"]
    assert {region: found[region]["images"] for region in evaluate.REGIONS} == {"all": 4, "dynamic": 4, "moving": 1, "static": 4}
    assert found["moving"]["pixels"] == (source.moving[3] & (source.depth[3] > 0)).sum()


def test_coverage_text(tmp_path):
    whole, without = FakeSource(3), FakeSource(3, measured=False)
    assert evaluate.evaluate(oracle(whole), whole, settings()).coverage == "3"
    results = evaluate.evaluate(oracle(without), without, settings())
    assert (results.measured, results.coverage) == (0, "0 of 3")
    write_results(results, tmp_path, "title", settings(), {}, [], {})
    assert 'id="scores"' not in (tmp_path / "report.html").read_text()
    assert np.sum([row["images"] for row in results.metrics["student"].values()]) == 0


def test_folder_created_before_evaluation(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out=.*file/x cannot be created \(Not a directory\)"):
        make_folder(tmp_path / "file" / "x")
