"""Figures of a report, as images inside the page."""
