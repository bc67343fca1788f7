import csv
import json
import math

import numpy as np

from dd_jax.report import format_table, write_tables

NAMES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3", "abs_diff")


def row(value, pixels, images=None):
    counts = {"pixels": pixels} if images is None else {"pixels": pixels, "images": images}
    return dict.fromkeys(NAMES, value if pixels else None) | counts


def image(error, pixels, moving, ratio):
    return {"all": row(error, pixels), "moving": row(error, moving) if moving else {"pixels": 0}, "scale": {"ratio": ratio}}


IMAGES = [
    ("one", {"net": image(0.1, 1000, 0, 30.0), "flat": image(0.5, 1000, 0, 30.0)}),
    ("two", {"net": image(0.2, 500, 20, 31.0), "flat": image(0.6, 500, 20, 31.0)}),
    ("three", {}),
]
SCORES = {
    "net": {"all": row(0.15, 1500, 2), "moving": row(0.2, 20, 1), "static": row(0, 0, 0)},
    "flat": {"all": row(0.55, 1500, 2), "moving": row(0.6, 20, 1), "static": row(0, 0, 0)},
}


def test_files_have_the_scores(tmp_path):
    write_tables(tmp_path / "new" / "out", SCORES, IMAGES)
    written = json.loads((tmp_path / "new" / "out" / "metrics.json").read_text())
    for who, regions in SCORES.items():
        for region, scores in regions.items():
            assert written[who][region] == {name: value for name, value in scores.items() if name != "abs_diff"}
    with (tmp_path / "new" / "out" / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 6 and list(table[0]) == ["predictor", "region", *NAMES, "pixels", "images"]
    with (tmp_path / "new" / "out" / "per_image.csv").open() as file:
        images = list(csv.DictReader(file))
    assert list(images[0]) == ["image", "predictor", "region", *NAMES, "pixels", "scale"]
    for line in table[:2] + table[3:5]:
        own = [image for image in images if (image["predictor"], image["region"]) == (line["predictor"], line["region"])]
        assert int(line["images"]) == len(own)
        assert int(line["pixels"]) == sum(int(image["pixels"]) for image in own)
        assert math.isclose(float(line["abs_rel"]), np.mean([float(image["abs_rel"]) for image in own]))
    assert table[2]["abs_rel"] == "" and table[2]["pixels"] == "0"
    assert [image["scale"] for image in images if image["region"] == "moving"] == ["31.0", "31.0"]


def test_text_aligned_without_empty_regions():
    text = format_table(SCORES, {"net": {"median": 30.5, "relative_std": 0.016}}).splitlines()
    assert len({len(line) for line in text[:-1]}) == 1 and len(text) == 6
    assert text[1].split() == ["all", "net", *["0.1500"] * 7, "2", "1,500"]
    assert text[-1] == "scale to metres: net 30.5 ± 1.6%"
    assert "no ground truth: no scores" in format_table({"net": {"all": row(0, 0, 0)}}, {})
