"""A report as one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from slmops.evaluation.answer_figures import confused_pairs, confusion_figure
from slmops.evaluation.charts import difference_chart
from slmops.evaluation.data_page import PAGE
from slmops.evaluation.figures import figures
from slmops.evaluation.formats import figure, headline_value, inside, signed
from slmops.evaluation.origin_figures import lineage_figure
from slmops.evaluation.page import render_page
from slmops.evaluation.parts import Difference, Headline
from slmops.evaluation.schema import Report, parse_report
from slmops.evaluation.series import series
from slmops.evaluation.svg import Frame
from slmops.evaluation.tables import (
    batch_sentences,
    class_table,
    leakage_sentence,
    loads,
    main_columns,
    margin_words,
    marked,
    worst_slices,
)


def render_html(report: Mapping[str, Any]) -> str:
    """One HTML file with everything in it: no script, no outside resource, for wide and small screens and for paper.

    Args:
        report: The content of ``report.json`` (see :class:`slmops.evaluation.schema.Report`).

    Raises:
        ArtifactError: The content does not follow the schema.
    """
    checked = parse_report(report)
    columns = main_columns(checked)
    return render_page(
        "report.html.j2",
        report=checked,
        data_page=PAGE,
        headline_value=headline_value,
        figure=figure,
        signed=signed,
        columns=columns,
        other_columns=[key for key in checked.measures if key not in columns],
        colours=series(checked),
        figures=figures(checked),
        confusion=confusion_figure(checked),
        confused=confused_pairs(checked)[:8],
        differences=[
            (item, _in_words(checked, item), margin_words(checked, item), chart)
            for item, chart in _with_charts(checked.differences)
        ],
        leakage=leakage_sentence(checked),
        batching=batch_sentences(checked),
        classes=class_table(checked),
        slices=worst_slices(checked),
        loads=loads(checked),
        pairs=[(item, marked(item.a_answer, item.b_answer)) for item in checked.disagreements],
        lineage=lineage_figure(checked),
        meters=[_meter(item) for item in checked.headline],
        stage_names={stage.id: stage.stage for stage in checked.stages},
        most_label_rows=max((max(item.train, item.test) for item in (checked.data.labels if checked.data else ())), default=1) or 1,
        slowest=max((stage.seconds for stage in checked.stages), default=1) or 1,
    )


def _in_words(report: Report, item: Difference) -> str:
    a, b, measure = report.title(item.a), report.title(item.b), report.measures.get(item.measure)
    name = inside(measure.title) if measure else item.measure
    if item.word == "INCONCLUSIVE":
        return f"{a} and {b} cannot be told apart in {name}"
    return f"{a} is {item.word} than {b} in {name}"


def _with_charts(differences: Sequence[Difference]) -> list[tuple[Difference, Markup]]:
    bound = max((abs(value) for item in differences for value in (*item.interval, item.difference)), default=1) or 1
    charts = []
    for index, item in enumerate(differences):
        described = f"{item.difference:+.3f}, between {item.interval[0]:+.3f} and {item.interval[1]:+.3f}"
        frame = Frame(f"difference-{index}", 150, f"{item.a} − {item.b}", described)
        charts.append((item, Markup(difference_chart(item.difference, item.interval, frame, bound=bound))))
    return charts


def _meter(item: Headline) -> tuple[float, float]:
    """Lengths of the value's bar and of the target's mark, in percent of the meter."""
    value = max(item.value or 0.0, 0.0)
    top = 100.0 if item.unit == "percent less" else max(1.0 if item.unit == "share" else 0.0, 1.08 * max(value, item.target)) or 1.0
    return min(100.0, 100 * value / top), min(100.0, 100 * item.target / top)
