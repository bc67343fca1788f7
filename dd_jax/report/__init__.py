"""What a person looks at: the progress line, curves, pictures and the report page."""

from dd_jax.report.html import write_html
from dd_jax.report.logger import Logger, read_history
from dd_jax.report.pictures import colorize_depth, colorize_error, panel

__all__ = ["Logger", "colorize_depth", "colorize_error", "panel", "read_history", "write_html"]
