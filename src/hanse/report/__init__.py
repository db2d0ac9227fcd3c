"""The HTML report of a run."""

from hanse.report.html import render_report, write_report

__all__ = ["render_report", "write_report"]
