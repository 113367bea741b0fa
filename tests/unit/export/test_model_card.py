"""Model cards in Hugging Face's format, read back by the hub's own library."""

from __future__ import annotations

from typing import Any

import pytest

from slmops.errors import UsageError
from slmops.evaluation.schema import parse_report
from slmops.export.model_card import model_card
from tests.unit.evaluation.sample_report import sample_report
from tests.unit.evaluation.sample_variants import sample_evaluation

hub = pytest.importorskip("huggingface_hub")


def read(report: dict[str, Any], row: str | None = None, **known: Any) -> Any:
    """The card as the hub's library reads it, which refuses a model-index that is none."""
    card = hub.ModelCard(model_card(parse_report(report), row, **known), ignore_metadata_errors=False)
    assert card.data.model_name == report["name"]
    return card


def test_the_hub_reads_every_measure_of_the_packaged_row_with_its_interval() -> None:
    report = sample_report()
    card = read(report, languages=["en"])
    results = {result.metric_name: result for result in card.data.eval_results}
    packaged = report["rows"][-1]
    assert sorted(result.metric_value for result in results.values()) == sorted(packaged["measures"].values())
    accuracy = results["Accuracy"]
    assert (accuracy.metric_type, accuracy.metric_value, accuracy.dataset_split) == ("accuracy", 0.858, "test")
    assert (accuracy.task_type, accuracy.task_name) == ("text-classification", "classification")
    assert accuracy.metric_args == {"confidence": 0.95, "low": 0.8238, "high": 0.8922}
    assert results["Macro F1"].metric_type == "f1"
    assert "Latency p50 (ms)" in results


def test_the_front_matter_says_what_the_hub_searches_by() -> None:
    data = read(sample_report(), languages=["en", "de"], datasets=["me/tickets"]).data
    assert (data.license, data.base_model) == ("apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert (data.language, data.datasets, data.pipeline_tag) == (["en", "de"], ["me/tickets"], "text-generation")
    assert data.tags == ["slmops", "distillation", "onnx"]
    assert data.metrics == ["accuracy", "f1", "valid_share"]


@pytest.mark.parametrize(
    ("name", "license", "expected"),
    [
        ("owner/model", "MIT", ("owner/model", "mit", None)),
        ("/home/me/model", "Llama 3.1 Community License", (None, "llama3.1", None)),
        ("gemma-9", "Own: see / LICENSE!", (None, "other", "own-see-license")),
        ("x", "???", (None, "other", "unknown")),
    ],
)
def test_licences_and_base_models_have_the_names_of_the_hub_or_are_left_out(
    name: str, license: str, expected: tuple[Any, ...]
) -> None:
    report = sample_report()
    report["models"][1] |= {"name": name, "license": license}
    data = read(report).data
    assert (data.base_model, data.license, data.get("license_name")) == expected


def test_an_evaluation_alone_has_a_card_for_the_row_that_is_named() -> None:
    card = read(sample_evaluation(), "notes-small")
    assert {result.task_type for result in card.data.eval_results} == {"summarization"}
    assert card.data.base_model is None
    assert card.data.tags == ["slmops"]
    assert "**Leakage.** 12 of 400 test rows" in card.text
    assert "label = exchange size: ROUGE-L 0.212 on 22 rows" in card.text


def test_of_several_rows_one_must_be_named() -> None:
    with pytest.raises(UsageError, match="name one: notes-small, served"):
        model_card(parse_report(sample_evaluation()))
    with pytest.raises(UsageError, match="the report has no row 'notes'"):
        model_card(parse_report(sample_evaluation()), "notes")


def test_the_text_has_the_table_of_rows_weak_spots_limits_and_commands() -> None:
    text = read(sample_report()).text
    assert "| Distilled, as packaged (this model) | 56.6 M | 56.0 |" in text
    assert "0.858 \\[0.824, 0.892\\]" in text
    assert "Labels with the lowest F1: gift card 0.693" in text
    assert "- Six times the requests per second was not reached" in text
    assert "    slmops run support-routing.yaml" in text


def test_texts_of_users_stay_text() -> None:
    report = sample_report()
    report["notes"] = ["first\n# second | <b>"]
    report["rows"][0]["title"] = "a|b"
    text = read(report).text
    assert "- first \\# second \\| \\<b\\>" in text
    assert "| a\\|b | 41.3 k |" in text
