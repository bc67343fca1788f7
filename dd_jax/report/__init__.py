"""Output for people: progress, curves, images and the report page."""

from dd_jax.report.curves import line_chart, scatter_chart
from dd_jax.report.html import ReportSample, write_html
from dd_jax.report.logger import Logger, NoLogger, read_history
from dd_jax.report.pictures import colorize_depth, colorize_error, panel
from dd_jax.report.tables import format_table, write_tables

__all__ = [
    "Logger",
    "NoLogger",
    "ReportSample",
    "colorize_depth",
    "colorize_error",
    "format_table",
    "line_chart",
    "panel",
    "read_history",
    "scatter_chart",
    "write_html",
    "write_tables",
]
