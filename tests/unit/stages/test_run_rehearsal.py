"""The pre-flight of a run: what it says of a sound one, and which runs it stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmops.config import load_recipe
from slmops.errors import FingerprintError, TrainingError
from slmops.files import read_json, write_jsonl
from slmops.models.resolve import resolve
from slmops.stages.context import Context, ModelAt, rows_of
from slmops.stages.learning import Lesson
from slmops.stages.pairs import check_pairs
from slmops.stages.preparing import gold_of, prepare_data
from slmops.stages.rehearsal import FACTS, STAGE, TABLE, Rehearsal
from slmops.stages.teaching import TRAINING
from slmops.training import rehearsal
from slmops.training.batches import collate
from slmops.workspace import Step, Workspace
from tests.pipeline.tiny_line import write_recipe


@pytest.fixture
def lesson(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What students learn from, in a run whose teacher is taken as it is."""
    monkeypatch.setattr("slmops.models.vocabulary.MARGIN", 5)

    def make(**changes: Any) -> Lesson:
        given = {"teacher": {"model": str(tiny_model), "precision": "float32"}, "chat_template": "compact"}
        limits = {"answers": {"max_new_tokens": 4, "min_success": 0, "chunk_rows": 64}}
        recipe = load_recipe(write_recipe(tmp_path, tiny_model, **{**given, **limits, **changes}))
        context, model = Context(recipe, Workspace(recipe.output_path)), resolve(str(tiny_model))
        base = ModelAt(model.path, model.fingerprint)
        data = prepare_data(context, base)
        return Lesson.of(context, data, gold_of(context, data), base, base)

    return make


def steps(lesson: Lesson) -> list[Step]:
    return [step for step in lesson.context.workspace.steps if step.stage == STAGE]


def test_what_it_says_of_a_sound_run(lesson: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = lesson()
    made = run.rehearse()
    table = (made.path / TABLE).read_text()
    assert [line.split("  ")[1] for line in table.splitlines()[1:] if "hint" not in line] == [
        "teacher as student",
        "cached against live",
        "trained text",
        "trained tokens a row",
        "loss",
        "gradients",
        "time",
        "memory",
    ]
    assert table.splitlines()[1].strip() in capsys.readouterr().err
    facts = read_json(made.path / FACTS)
    assert facts == made.facts
    assert facts["agreement"]["self_kl"] < 1e-4
    assert facts["agreement"]["largest"] < 1e-3
    assert facts["selected"]["example"] == "delivery<|im_end|>"
    assert (facts["tokens"]["rows"], facts["tokens"]["without"], facts["tokens"]["too_long"]) == (32, 0, 0)
    assert [pull["name"] for pull in facts["pulls"]] == ["cross_entropy", "forward_kl"]
    assert facts["ratio"] == pytest.approx(facts["pulls"][1]["norm"] / facts["pulls"][0]["norm"])
    assert (facts["cost"]["trainings"], facts["cost"]["updates"]) == (3, 32)
    assert run.distilled().facts["steps"] == 32


def test_it_is_made_once(lesson: Any) -> None:
    run = lesson()
    run.rehearse()
    run.rehearse()
    assert [step.state for step in steps(run)] == ["run", "done"]


def test_a_plan_computes_nothing(lesson: Any) -> None:
    run = lesson()
    planning = Workspace(run.context.workspace.root, planning=True)
    context = Context(run.context.recipe, planning)
    Rehearsal(context, run.teacher, run.data, run.answers, run.signals, run.untuned, 3).stage()
    assert [(step.stage, step.state) for step in planning.steps] == [(STAGE, "run")]
    assert not list(run.context.workspace.root.glob(f"artifacts/{STAGE}-*"))


def test_signals_that_are_not_the_live_teachers_stop_the_run(lesson: Any) -> None:
    run = lesson()
    file = run.signals.path / "ids.npy"
    ids = np.load(file)
    np.save(file, ids[::-1])
    with pytest.raises(
        FingerprintError, match=r"signals-\w+: the cached signals are not the teacher's: \d+\.\d% of what is cached"
    ):
        run.rehearse()
    np.save(file, ids)
    assert run.rehearse().facts["agreement"]["apart"] < 0.01


def test_signals_of_tokens_drawn_from_the_teacher_pass(lesson: Any) -> None:
    facts = lesson(signals={"form": "sampled"}).rehearse().facts
    assert facts["agreement"]["self_kl"] < facts["agreement"]["self_kl_most"] < 0.2


def test_a_student_with_fewer_tokens_is_rehearsed_under_its_own(lesson: Any, capsys: pytest.CaptureFixture[str]) -> None:
    facts = lesson(student={"layers": 2, "vocabulary": "trim"}).rehearse().facts
    assert facts["agreement"]["self_kl"] < 1e-4
    assert facts["pulls"][1]["norm"] > 0
    assert "rows fit the student's" not in capsys.readouterr().err  # that is for the training to say, of all rows


def test_where_the_teacher_gives_no_signals_the_table_says_so(lesson: Any) -> None:
    run = lesson()
    made = Rehearsal(run.context, run.teacher, run.data, run.answers, None, run.untuned, 2).stage()
    assert made.facts["agreement"] is None
    assert "not applicable: there are no signals of the teacher" in (made.path / TABLE).read_text()
    assert [pull["name"] for pull in made.facts["pulls"]] == ["cross_entropy"]


def test_rows_that_are_all_too_long_stop_the_run(lesson: Any) -> None:
    run = lesson(training={"max_length": 8})
    with pytest.raises(TrainingError, match=r"training\.max_length: none of 32 rows fits into max_length 8"):
        run.rehearse()
    assert [step.state for step in steps(run)] == ["run"]
    assert not list(run.context.workspace.root.glob("artifacts/distilled-*"))


def test_a_mask_that_selects_the_prompt_stops_the_run(lesson: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_too_early(*arguments: Any, **options: Any) -> Any:
        batch = collate(*arguments, **options)
        return {**batch, "logits_to_keep": batch["logits_to_keep"] - 1}

    monkeypatch.setattr(rehearsal, "collate", one_too_early)
    with pytest.raises(TrainingError, match=r"of 4 of 4 rows are not the answer and its end: .*train\.jsonl:1: '\\ndelivery'"):
        lesson().rehearse()


def test_pairs_of_texts_are_trained_beside_the_answers(lesson: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An nli recipe from files to the distilled student; rows of the pool are pairs by what the teacher says."""
    labels = ("entailment", "neutral", "contradiction")
    rows = [
        {"premise": f"where is my parcel {n}", "hypothesis": f"the address {n}", "label": labels[n % 3] if n < 18 else None}
        for n in range(30)
    ]
    write_jsonl(tmp_path / "nli.jsonl", rows)
    terms = [{"name": "cross_entropy"}, {"name": "forward_kl"}, {"name": "contrastive", "weight": 0.1, "margin": 0.5}]
    run = lesson(
        task_type="nli",
        data={"source": {"name": "files", "train": str(tmp_path / "nli.jsonl")}, "quality": {"near_duplicates": None}},
        training={"objectives": terms, "max_steps": 2},
    )
    check_pairs(run.context, run.data)
    pulls = run.rehearse().facts["pulls"]
    assert [(pull["name"], pull["weight"]) for pull in pulls] == [("cross_entropy", 1), ("forward_kl", 1), ("contrastive", 0.1)]
    assert pulls[2]["norm"] > 0
    assert run.distilled().facts["steps"] == 2
    said = capsys.readouterr().err
    trained = rows_of(run.answers, TRAINING)
    same, different = (sum(row.answer == label for row in trained) for label in ("entailment", "contradiction"))
    assert same > 0 < different
    assert f"contrastive: {same + different} of {len(trained)} rows are pairs, {same} same, {different} different" in said
    assert "contrastive" not in str(run.answers_only().artifact.manifest.config)


def test_an_adapter_and_frozen_embeddings_are_rehearsed_too(lesson: Any) -> None:
    training = {"lora": {"r": 4, "alpha": 8}, "freeze_embeddings": True, "objectives": [{"name": "cross_entropy"}], "max_steps": 7}
    facts = lesson(training=training).rehearse().facts
    assert facts["pulls"][0]["norm"] > 0
    assert facts["cost"]["updates"] == 7
