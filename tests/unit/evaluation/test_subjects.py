"""How a user names what is evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.errors import ModelError, UsageError
from slmops.evaluation.subjects import subjects_of
from slmops.files import write_jsonl


def test_a_folder_takes_its_engine_and_its_last_part_as_name(tiny_model: Path) -> None:
    (subject,) = subjects_of([str(tiny_model)])
    assert (subject.kind, subject.runtime, subject.path) == ("folder", "torch", tiny_model)
    assert subject.name == tiny_model.name.lower()


def test_names_are_given_or_made_unique(tiny_model: Path) -> None:
    names = [subject.name for subject in subjects_of([str(tiny_model), f"teacher={tiny_model}", str(tiny_model)])]
    assert names == [tiny_model.name, "teacher", f"{tiny_model.name}-2"]


def test_one_name_several_times_is_one_model_with_several_seeds(tiny_model: Path) -> None:
    found = subjects_of([f"student={tiny_model}", f"student={tiny_model}", f"teacher={tiny_model}"])
    assert [(subject.name, subject.seed, subject.key) for subject in found] == [
        ("student", 0, "student"),
        ("student", 1, "student.seed1"),
        ("teacher", 0, "teacher"),
    ]


def test_a_url_an_api_and_recorded_answers(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "answers.jsonl", [{"input": "a", "teacher_output": "b"}])
    served, api, recorded = subjects_of(["http://127.0.0.1:8000/v1#tiny", "gpt-4o", f"old={tmp_path / 'answers.jsonl'}"])
    assert (served.kind, served.name, served.source) == ("endpoint", "served", "http://127.0.0.1:8000/v1")
    assert (api.kind, api.name) == ("teacher", "gpt-4o")
    assert (recorded.kind, recorded.name, recorded.source) == ("teacher", "old", "recorded answers")


def test_the_fingerprint_follows_the_content(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    before, same = subjects_of([str(tiny_model), str(copy)])
    assert before.fingerprint == same.fingerprint
    (copy / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert subjects_of([str(copy)])[0].fingerprint != before.fingerprint


@pytest.mark.parametrize("reference", ["no-such-model", "teacher=no-such-model"])
def test_an_unknown_name_is_refused(reference: str) -> None:
    with pytest.raises(ModelError, match="there is no model 'no-such-model'"):
        subjects_of([reference])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model here"):
        subjects_of([str(tmp_path)])


def test_nothing_named_is_refused() -> None:
    with pytest.raises(UsageError, match="no model is named"):
        subjects_of([])
