"""Which charts a report has, in their order."""

from __future__ import annotations

from slmops.evaluation.answer_figures import quality_figure, reliability_figure
from slmops.evaluation.cost_figures import against_figure, latency_figure, throughput_figure
from slmops.evaluation.origin_figures import curve_figure
from slmops.evaluation.page import Figure
from slmops.evaluation.schema import Report


def figures(report: Report) -> list[Figure]:
    """All charts that the report has data for; the confusion matrix and the stages apart, since they stand by themselves."""
    drawn = [
        quality_figure(report),
        latency_figure(report),
        against_figure(report, "latency_p50_ms"),
        against_figure(report, "size_mb"),
        against_figure(report, "memory_mb"),
        throughput_figure(report),
        reliability_figure(report),
        curve_figure(report),
    ]
    return [figure for figure in drawn if figure is not None]
