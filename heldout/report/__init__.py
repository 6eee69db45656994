"""The report of an experiment: a page for the browser, and a few lines for the terminal."""

from heldout.report.page import PageOptions
from heldout.report.rendering import ReportConfig, ReportResult, render
from heldout.report.summary import text_summary

__all__ = ["PageOptions", "ReportConfig", "ReportResult", "render", "text_summary"]
