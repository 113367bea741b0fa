"""Measures, statistics, comparison, gates and the report."""
