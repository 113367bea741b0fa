"""What ``report.json`` may hold, and its JSON Schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from slmops.errors import ArtifactError
from slmops.evaluation.report import render_html
from slmops.evaluation.schema import json_schema, parse_report
from tests.unit.evaluation.sample_report import sample_report
from tests.unit.evaluation.sample_variants import empty_report, sample_evaluation

DOCUMENTED = Path(__file__).parents[3] / "docs" / "report.schema.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda report: report.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda report: report["rows"][0].update(speed=1), "rows.0.speed: Extra inputs"),
        (lambda report: report.pop("notes"), "notes: Field required"),
        (lambda report: report.pop("schema_version"), "schema_version: Field required"),
        (lambda report: report["slices"][0].update(measure="speed"), "not explained under measures: speed"),
        (lambda report: report["verdict"].update(word="maybe"), "verdict.word"),
        (lambda report: report["measures"].pop("size_mb"), "not explained under measures: size_mb"),
        (lambda report: report["confusion"]["matrix"].pop(), "must be 18 × 18"),
        (lambda report: report["rows"][0]["measures"].update(accuracy=float("nan")), "rows.0.measures.accuracy"),
    ],
)
def test_a_report_that_does_not_follow_the_schema_is_refused(change: Any, message: str) -> None:
    report = sample_report()
    change(report)
    with pytest.raises(ArtifactError, match=re.escape(message)):
        parse_report(report)


def test_the_schema_reads_back_what_it_writes() -> None:
    report = parse_report(sample_report())
    assert parse_report(report.model_dump(mode="json")) == report


@pytest.mark.parametrize("report", [sample_report(), sample_evaluation(), empty_report()])
def test_every_sample_follows_the_schema(report: dict[str, Any]) -> None:
    assert parse_report(json.loads(json.dumps(report))).name == report["name"]


def test_an_evaluation_alone_has_no_distillation_in_it() -> None:
    assert parse_report(sample_report()).distilled
    assert not parse_report(sample_evaluation()).distilled


def test_a_report_of_another_version_is_refused_with_what_to_do() -> None:
    with pytest.raises(ArtifactError) as refused:
        parse_report({**sample_report(), "schema_version": 1})
    assert "version 1, and this slmops reads version 2" in str(refused.value)
    assert "run the evaluation again" in str(refused.value)


def test_the_documented_json_schema_is_current() -> None:
    assert json.loads(DOCUMENTED.read_text(encoding="utf-8")) == json_schema(), "run: python tools/report_schema.py"


def test_every_field_of_the_json_schema_says_what_it_is() -> None:
    schema = json_schema()
    fields = [
        (f"{name}.{key}", field)
        for name, part in [("Report", schema), *schema["$defs"].items()]
        for key, field in part["properties"].items()
    ]
    assert [name for name, field in fields if not field.get("description")] == []


def test_the_json_schema_needs_only_what_every_report_has() -> None:
    required = set(json_schema()["required"])
    assert {"schema_version", "verdict", "rows", "measures", "reproduce"} <= required
    assert not required & {"data", "answers", "headline", "export", "training", "stages"}


def test_conversions_are_compared_by_a_measure_of_their_own() -> None:
    report = sample_report()
    rate = {"title": "Win rate", "unit": "", "better": "higher", "help": "By a judge."}
    judged = {
        **report,
        "primary_measure": "win_rate",
        "export_measure": "accuracy",
        "measures": {**report["measures"], "win_rate": rate},
    }
    assert '<th scope="col" class="n">Accuracy</th><th scope="col" class="n">Before export</th>' in render_html(judged)
    with pytest.raises(ArtifactError, match="not explained under measures: token_f1"):
        parse_report({**judged, "export_measure": "token_f1"})
