"""A diagnosis as chapters of the report page."""

from html import escape
from itertools import pairwise

from dd_jax import report
from dd_jax.diagnosis.matching import EDGES
from dd_jax.diagnosis.result import Diagnosis
from dd_jax.diagnosis.tables import BY_RANGE, Table, tables

CURVES = ("teacher", "student", "matching_predicted_poses", "matching_true_poses")


def chapters(found: Diagnosis) -> dict[str, str]:
    """Heading -> HTML: the findings, then one chapter per question, some with a chart."""
    charts = {"Depth by range": _error_by_range(found), "Poses": _speeds(found)}
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in found.findings)
    answers = {table.title: _html(table) + charts.get(table.title, "") for table in tables(found)}
    return {"Findings": f"<ul>{listed}</ul>" if listed else "<p>None.</p>"} | answers


def _html(table: Table) -> str:
    lines = [
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in line) + "</tr>"
        for tag, lines in (("th", [table.head]), ("td", table.rows))
        for line in lines
    ]
    body = f'<div class="scroll"><table>{"".join(lines)}</table></div>' if table.rows else ""
    return f"<p>{escape(table.note)}.</p>{body}"


def _error_by_range(found: Diagnosis) -> str:
    if found.by_range is None:
        return ""
    rows = [row for name, row in found.by_range.items() if name != "all"]
    centres = [(near + far) / 2 for near, far in pairwise(EDGES)]
    series = {}
    for key in CURVES:
        errors = [float("nan") if row.get(key) is None else row[key] for row in rows]
        if any(error == error for error in errors):
            series[BY_RANGE[key][0]] = (centres, errors)
    return _chart("median relative error by true depth in metres", report.line_chart(series, logarithmic=True))


def _speeds(found: Diagnosis) -> str:
    if found.motion is None:
        return ""
    predicted, true = found.motion.speeds
    chart = report.scatter_chart(true.tolist(), predicted.tolist(), "true metres per frame", "predicted")
    return _chart("predicted by true speed, a point per sample", chart)


def _chart(title: str, chart: str) -> str:
    return f'<div class="charts"><div><h3>{title}</h3>{chart}</div></div>'
