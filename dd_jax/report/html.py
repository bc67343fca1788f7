"""The report of a run: one self-contained HTML file."""

import base64
import dataclasses
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from dd_jax.report.curves import Series, line_chart

LARGE_CHARTS = 36
"""Largest number of charts of single metrics."""

METRIC_NAMES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
HIGHER_IS_BETTER = ("a1", "a2", "a3")

REGIONS = {
    "all": "all pixels with ground truth",
    "dynamic": "potentially moving objects: vehicles and people, also parked ones",
    "moving": "moving objects (known for rendered drives only)",
    "static": "everything else",
}

PREDICTORS = {
    "student": "multi-frame network: the final result",
    "teacher": "single-frame network that the student learns from",
    "single_frame": "single-frame network: the final result",
    "predictions": "read from files",
    "constant": "the same depth everywhere",
    "mean_map": "mean depth of the training set per pixel: the same for every image",
}

STYLE = """
:root { --ink: #1f2328; --quiet: #656d76; --rule: #e4e7eb; --soft: #f6f8fa; --accent: #2563eb; }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; color: var(--ink); background: #fff; }
header { position: sticky; top: 0; z-index: 1; background: #fffffff2; border-bottom: 1px solid var(--rule); }
header div { max-width: 1340px; margin: auto; padding: 10px 24px; display: flex; gap: 24px; align-items: baseline; }
header b { font-size: 17px; } header a { color: var(--quiet); text-decoration: none; } header a:hover { color: var(--accent); }
main { max-width: 1340px; margin: auto; padding: 8px 24px 64px; }
section { scroll-margin-top: 56px; } h2 { font-size: 20px; margin: 36px 0 4px; } h3 { font-size: 15px; margin: 20px 0 6px; }
p { max-width: 78ch; margin: 4px 0 12px; } .quiet, figcaption { color: var(--quiet); font-size: 14px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } .scroll { overflow-x: auto; }
th, td { padding: 5px 14px 5px 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; color: var(--quiet); } th:first-child, td:first-child { text-align: left; }
td.best { font-weight: 700; color: #047857; } td span { color: var(--quiet); font-size: 13px; margin-left: 8px; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
.card { background: var(--soft); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 16px; min-width: 130px; }
.card b { display: block; font-size: 22px; } .card span { color: var(--quiet); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 8px 24px; }
.charts img { width: 100%; }
figure { margin: 18px 0 28px; } img { max-width: 100%; border-radius: 4px; display: block; } figcaption { margin-top: 6px; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--accent); }
pre { background: var(--soft); border: 1px solid var(--rule); padding: 12px; overflow-x: auto; font-size: 13px; }
"""


@dataclasses.dataclass(frozen=True)
class ReportSample:
    """One evaluated sample: its panel and its scores (predictor -> region -> name -> number)."""

    name: str
    panel: UInt8[np.ndarray, "_ _ 3"]
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]]


def write_html(
    path: str | Path,
    title: str,
    *,
    results: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    protocol: str = "",
    history: Sequence[Mapping[str, Any]] = (),
    panels: Mapping[str, UInt8[np.ndarray, "_ _ 3"]] | None = None,
    worst: Sequence[ReportSample] = (),
    best: Sequence[ReportSample] = (),
    facts: Mapping[str, str] | None = None,
    chapters: Mapping[str, str] = MappingProxyType({}),
    config: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
) -> None:
    """Writes the page.

    Args:
      path: the file; its folder is created.
      title: of the page.
      results: metrics of ``evaluate``, predictor -> region -> name -> number or None; None: no ground truth.
      protocol: a sentence on the evaluation protocol.
      history: records of ``metrics.jsonl``.
      panels: caption -> image.
      worst, best: the samples with the largest and the smallest abs_rel of the first predictor, most extreme first.
      facts: label -> value, shown at the top (speed, step, number of images).
      chapters: heading -> HTML, after the facts.
      config, versions: of the run, collapsed; further facts that its numbers depend on may be among the versions.
    """
    sections = {
        "Summary": _facts(facts or {}),
        "Alarms": _alarms(history),
        **chapters,
        "Scores": _scores(results, protocol) if results else "",
        "Images": _images(panels or {}, bool(results)),
        "Worst and best": _extremes(worst, best),
        "Curves": _curves(history),
        "Setup": _setup(config, versions),
    }
    sections = {name: body for name, body in sections.items() if body}
    places = {name: name.split()[0].lower() for name in sections}
    links = "".join(f'<a href="#{place}">{name}</a>' for name, place in places.items())
    body = "".join(f'<section id="{places[name]}"><h2>{name}</h2>{text}</section>' for name, text in sections.items())
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<header><div><b>{escape(title)}</b>{links}</div></header><main>{body}</main></body></html>\n",
        encoding="utf-8",
    )


def _facts(facts: Mapping[str, str]) -> str:
    cards = "".join(f'<div class="card"><b>{escape(str(v))}</b><span>{escape(k)}</span></div>' for k, v in facts.items())
    return f'<div class="cards">{cards}</div>' if cards else ""


def _alarms(history: Sequence[Mapping[str, Any]]) -> str:
    """The alarms of the training in their order, with the steps in which they held."""
    events = [record for record in history if record["kind"] == "alarm"]
    ends = {(record["alarm"], record["since"]): record["step"] for record in events if record["state"] == "cleared"}
    items = []
    for record in events:
        if record["state"] == "raised":
            end = ends.get((record["alarm"], record["since"]))
            steps = f"steps {record['since']:,} to " + (f"{end:,}" if end else "the end")
            items.append(f"<li><b>{escape(record['alarm'])}</b>, {steps}: {escape(record['text'])}</li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _scores(results: Mapping[str, Mapping[str, Mapping[str, Any]]], protocol: str) -> str:
    intro = (
        f"{escape(protocol)} Errors (abs_rel to rmse_log): lower is better. Accuracies (a1 to a3): higher is better. "
        "The best of each column is green."
    )
    if "mean_map" in results:
        intro += " A trained network should beat the mean map."
    tables = []
    regions = next(iter(results.values()))
    for region in regions:
        rows = {predictor: values[region] for predictor, values in results.items()}
        pixels, images = (next(iter(rows.values()))[name] for name in ("pixels", "images"))
        counts = f"{pixels:,} pixels in {images:,} image{'s' if images > 1 else ''}"
        note = f"{escape(REGIONS.get(region, ''))}; {counts}" if pixels else "no such pixels in this data"
        tables.append(f'<h3>{escape(region)} <span class="quiet">{note}</span></h3>' + (_table(rows) if pixels else ""))
    return f"<p>{intro}</p>" + "".join(tables)


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    best = {}
    for name in METRIC_NAMES:
        values = [row[name] for row in rows.values() if row[name] is not None]
        if values and len(rows) > 1:
            best[name] = max(values) if name in HIGHER_IS_BETTER else min(values)
    head = "".join(f"<th>{name}</th>" for name in ("", *METRIC_NAMES))
    lines = []
    for predictor, row in rows.items():
        cells = "".join(
            f"<td{' class=best' if row[name] is not None and row[name] == best.get(name) else ''}>{_score(row[name])}</td>"
            for name in METRIC_NAMES
        )
        lines.append(f"<tr><td>{escape(predictor)}<span>{escape(PREDICTORS.get(predictor, ''))}</span></td>{cells}</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _score(value: int | float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _images(panels: Mapping[str, np.ndarray], with_truth: bool) -> str:
    if not panels:
        return ""
    note = "Near is bright, far is dark"
    if with_truth:
        note += (
            "; predictions and ground truth of a sample share one scale. In the error map blue is 0, red is 30 % error, and grey "
            "pixels are not scored"
        )
    note += (
        ". In disentangled frames, each moving object of the previous frame is at its current position, as if only the camera "
        "had moved, and the pixels that it covered before are black holes."
    )
    return f"<p>{note}</p>" + "".join(_figure(panel, escape(caption)) for caption, panel in panels.items())


def _figure(panel: UInt8[np.ndarray, "h w 3"], caption: str, below: str = "") -> str:
    image = f'<img alt="{caption}" src="{data_uri(panel)}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption>{below}</figure>"


def _extremes(worst: Sequence[ReportSample], best: Sequence[ReportSample]) -> str:
    if not worst:
        return ""
    parts = [f"<p>The samples with the largest and the smallest abs_rel of {escape(next(iter(worst[0].scores)))}.</p>"]
    for title, frames in (("Largest error", worst), ("Smallest error", best)):
        parts.append(f"<h3>{title}</h3>")
        for frame in frames:
            rows = {predictor: regions["all"] for predictor, regions in frame.scores.items()}
            first = frame.scores[next(iter(frame.scores))]
            caption = f"{frame.name}: {first['all']['pixels']:,} pixels, scale to metres {first['scale']['ratio']:.3g}"
            parts.append(_figure(frame.panel, escape(caption), _table(rows)))
    return "".join(parts)


def data_uri(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """The image as a JPEG data URI."""
    done, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not done:
        raise ValueError(f"an image of shape {image.shape} could not be encoded")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _curves(history: Sequence[Mapping[str, Any]]) -> str:
    train = _series([record for record in history if record["kind"] == "train"])
    val = _series([record for record in history if record["kind"] == "val"])
    charts = []
    for region in REGIONS:
        scores = {name.split("/")[0]: xy for name, xy in val.items() if name.endswith(f"/{region}/abs_rel")}
        if scores:
            charts.append(_chart(f"abs_rel on the validation split, {region}", scores))
    names = sorted(train, key=lambda name: (name != "total", "/" in name, name))
    charts += [_chart(name, {name: train[name]}, "images" not in name) for name in names[:LARGE_CHARTS]]
    if not charts:
        return ""
    intro = "<p>By training step; each point is the mean over the steps since the previous point.</p>"
    return f'{intro}<div class="charts">{"".join(charts)}</div>'


def _chart(title: str, series: Mapping[str, Any], logarithmic: bool = False) -> str:
    return f"<div><h3>{escape(title)}</h3>{line_chart(series, logarithmic)}</div>"


def _series(records: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    series: dict[str, tuple[list, list]] = {}
    for record in records:
        for name, value in record.items():
            if name not in ("step", "kind"):
                steps, values = series.setdefault(name, ([], []))
                steps.append(record["step"])
                values.append(float(value))
    return series


def _setup(config: Mapping[str, Any] | None, versions: Mapping[str, str] | None) -> str:
    parts = []
    if versions:
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>" for name, value in versions.items())
        parts.append(f"<details><summary>versions, seed, data</summary><table>{rows}</table></details>")
    if config:
        text = escape(json.dumps(config, indent=2))
        parts.append(f"<details><summary>config, every field</summary><pre>{text}</pre></details>")
    return "".join(parts)
