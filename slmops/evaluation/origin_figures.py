"""Charts about how models were made: learning curves, and which stage was made from which."""

from __future__ import annotations

from slmops.evaluation.formats import number
from slmops.evaluation.grids import Node, lineage_chart
from slmops.evaluation.lines import Curve, curve_chart
from slmops.evaluation.page import Figure
from slmops.evaluation.schema import Report
from slmops.evaluation.series import series
from slmops.progress import duration

_FEWEST = 3


def curve_figure(report: Report) -> Figure | None:
    """Losses of the trainings by step."""
    colours = series(report)
    runs = [training for training in report.training if training.curve]
    if not runs:
        return None
    curves = [
        Curve(
            run.name,
            colours[run.name],
            [(point.step, point.loss) for point in run.curve],
            [(point.step, point.validation) for point in run.curve if point.validation is not None],
        )
        for run in runs
    ]
    stuck = [run.name for run in runs if run.curve[-1].loss >= run.curve[0].loss]
    title = f"The loss did not fall in {', '.join(stuck)}" if stuck else "The loss falls in every training"
    caption = "Smoothed; single steps behind it. Trainings differ in what their loss is made of: compare shapes, not heights."
    if any(curve.validation for curve in curves):
        caption += " Dashed with dots: validation."
    described = "; ".join(
        f"{run.name}: {run.steps} steps, from {number(run.curve[0].loss)} to {number(run.curve[-1].loss)}" for run in runs
    )
    return Figure.drawn(
        "curves", title, caption, described, lambda frame: curve_chart(curves, frame, x_axis="Step", y_axis="Training loss")
    )


def lineage_figure(report: Report) -> Figure | None:
    """Which stage was made from which; nothing where a line of text says as much."""
    place = {stage.id: at for at, stage in enumerate(report.stages)}
    nodes = [
        Node(
            stage.stage,
            duration(stage.seconds),
            sorted({place[parent] for parent in stage.parents.values() if place.get(parent, at) < at}),
        )
        for at, stage in enumerate(report.stages)
    ]
    if len(nodes) < _FEWEST:
        return None
    slowest = max(report.stages, key=lambda stage: stage.seconds)
    title = f"{len(nodes)} stages; {slowest.stage} took longest, {duration(slowest.seconds)}"
    caption = "Arcs lead from a stage to what was made of it; one that another stage stands for is left out."
    described = "; ".join(
        f"{node.label} from {', '.join(nodes[parent].label for parent in node.parents) or 'outside'}" for node in nodes
    )
    return Figure.drawn("stages-graph", title, caption, described, lambda frame: lineage_chart(nodes, frame))
