import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np

from dd_jax.report import ReportSample, write_html

VOID = {"meta", "img", "br", "link"}


class Checker(HTMLParser):
    """Checks that every element is closed; collects references."""

    def __init__(self):
        super().__init__()
        self.open, self.references = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag, attributes):
        self.references += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def scores(value, pixels=1000):
    names = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
    return {name: value if pixels else None for name in names} | {"pixels": pixels, "images": min(pixels, 3)}


def write_example(path, **changes):
    arguments = {
        "results": {
            "student": {"all": scores(0.111), "moving": scores(0, 0)},
            "constant": {"all": scores(0.333), "moving": scores(0, 0)},
        },
        "history": [{"step": s, "kind": "train", "total": 1 / s, "skipped": 0.0, "x": "nan"} for s in range(1, 30)]
        + [{"step": 10, "kind": "val", "student/all/abs_rel": 0.3}],
        "panels": {"drive <1>": np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)},
        "facts": {"images / s": "12.5"},
        "config": {"model": {"width": 64}, "name": "<script>"},
        "versions": {"jax": "0.10.2"},
    }
    write_html(path, "A & B", **(arguments | changes))
    return path.read_text()


def test_page_is_well_formed_and_self_contained(tmp_path):
    text = write_example(tmp_path / "new" / "report.html")
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    local = ("data:image/jpeg;base64,", "data:image/svg+xml;base64,", "#")
    assert all(reference.startswith(local) for reference in checker.references)
    assert "http" not in re.sub(r"data:[^\"]*", "", text) and "@import" not in text and "url(" not in text
    assert "<script>" not in text and "drive &lt;1&gt;" in text and "A &amp; B" in text


def test_page_shows_every_part(tmp_path):
    text = write_example(tmp_path / "report.html")
    counts = "1,000 pixels in 3 images", "no such pixel"
    for expected in ("0.111", "0.333", *counts, "12.5", "0.10.2", "&quot;width&quot;: 64", "data:image/svg+xml"):
        assert expected in text
    assert "Worst" not in text
    # The best of a column is marked: student for errors, constant for accuracies.
    assert len(re.findall("class=best>0.111", text)) == 4
    assert len(re.findall("class=best>0.333", text)) == 3


def test_chapters_follow_the_facts(tmp_path):
    text = write_example(tmp_path / "report.html", chapters={"Two words": "<p>a <b>chapter</b></p>"})
    assert '<a href="#two">Two words</a>' in text
    assert (
        text.index('id="summary"')
        < text.index('<section id="two"><h2>Two words</h2><p>a <b>chapter</b></p>')
        < text.index('id="scores"')
    )


def test_worst_and_best_samples_with_scores(tmp_path):
    def frame(name, error):
        measured = {who: {"all": scores(e), "scale": {"ratio": 31.4}} for who, e in (("student", error), ("constant", 0.7))}
        return ReportSample(name, np.zeros((20, 30, 3), np.uint8), measured)

    text = write_example(
        tmp_path / "report.html", protocol="Protocol eigen <1>.", worst=[frame("hard <2>", 0.618)], best=[frame("easy", 0.05)]
    )
    checker = Checker()
    checker.feed(text)
    assert checker.open == [] and "Protocol eigen &lt;1&gt;." in text and 'href="#worst"' in text
    hard, easy = text.index("hard &lt;2&gt;: 1,000 pixels, scale to metres 31.4"), text.index("easy: 1,000 pixels")
    assert hard < text.index("0.618", hard) < text.index("Smallest error") < easy < text.index("0.050", easy)
    assert "the smallest abs_rel of student" in text and "mean map" not in text


def test_image_embedded(tmp_path):
    picture = np.full((16, 24, 3), (200, 30, 60), np.uint8)
    text = write_example(tmp_path / "report.html", panels={"red": picture})
    encoded = re.search(r'data:image/jpeg;base64,([^"]+)"', text)[1]
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - picture).max() < 6


def test_without_ground_truth_only_images(tmp_path):
    text = write_example(tmp_path / "report.html", results=None, history=[], config=None, versions=None, facts=None)
    assert "<figure>" in text and "<table>" not in text and "image/svg" not in text and "abs_rel" not in text
