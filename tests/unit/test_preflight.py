"""What a recipe cannot mean is refused before anything expensive starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops import preflight
from slmops.config import Recipe, build
from slmops.data.rows import Row
from slmops.errors import ConfigError, MissingExtraError, ResourceError, UsageError
from slmops.evaluation.gates import Gate
from slmops.files import write_json, write_jsonl
from slmops.models import fit
from slmops.models.fit import memory_beside_mb, memory_needed_mb
from slmops.models.resolve import resolve
from slmops.stages.context import Context
from slmops.testing.tiny import save_tiny_model
from slmops.workspace import StageResult, Workspace


def recipe(tmp_path: Path, **changes: Any) -> Recipe:
    values = {
        "name": "x",
        "task_type": "classification",
        "output_path": str(tmp_path / "out"),
        "data": {"source": {"name": "files", "train": "train.jsonl"}},
        "teacher": {"model": "m"},
        **changes,
    }
    return build(Recipe, values, where="test")


@pytest.mark.parametrize(
    ("changes", "nearest"),
    [
        ({"task_type": "clasification"}, "'classification'"),
        ({"export": {"schemes": ["int-4"]}}, "'int4'"),
        ({"export": {"runtime": "ort-gen"}}, "'ort-genai'"),
        ({"training": {"objectives": [{"name": "forward-kl"}]}}, "'forward_kl'"),
        ({"teacher": {"model": "m", "tune": {"objectives": [{"name": "cross_entropi"}]}}}, "'cross_entropy'"),
        ({"gates": ["acuracy >= 0.5"]}, "'accuracy'"),
        ({"gates": ["accuracy >= 0.9 * techer"]}, "'teacher'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path, changes: dict[str, Any], nearest: str) -> None:
    with pytest.raises(UsageError, match=nearest):
        preflight.check_names(recipe(tmp_path, **changes))


def test_the_names_of_a_sound_recipe_pass(tmp_path: Path) -> None:
    preflight.check_names(recipe(tmp_path, gates=["accuracy >= 0.9 * teacher", "size_mb <= 100"]))


@pytest.mark.parametrize(
    ("objective", "problem"),
    [
        ({"name": "jsd", "beta": 2}, "objective 'jsd': beta: Input should be less than or equal to 1"),
        (
            {"name": "uld", "weight": {"from": 0, "too": 1}},
            "weight of uld: to: Field required; too: unknown key; did you mean 'to'",
        ),
        ({"name": "own", "file": "nowhere.py:Loss"}, "nowhere.py: no such file"),
    ],
)
def test_a_loss_that_cannot_be_made_is_refused(tmp_path: Path, objective: dict[str, Any], problem: str) -> None:
    for changes in ({"training": {"objectives": [objective]}}, {"teacher": {"model": "m", "tune": {"objectives": [objective]}}}):
        preflight.check_names(recipe(tmp_path, **changes))
        with pytest.raises(ConfigError, match=problem):
            preflight.check_objectives(recipe(tmp_path, **changes))
    preflight.check_objectives(recipe(tmp_path))


def test_drawn_signals_are_refused_where_a_loss_needs_more(tmp_path: Path) -> None:
    changes = {"signals": {"form": "sampled"}, "training": {"objectives": [{"name": "cross_entropy"}, {"name": "jsd"}]}}
    with pytest.raises(ConfigError, match=r"jsd is not defined for tokens sampled from the teacher\n.*signals\.form to topk"):
        preflight.check_objectives(recipe(tmp_path, **changes))
    preflight.check_objectives(recipe(tmp_path, signals={"form": "sampled"}, training={"objectives": [{"name": "forward_kl"}]}))


def test_own_samples_need_a_loss_that_compares_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.on_policy: no objective compares"):
        preflight.check_objectives(recipe(tmp_path, training={"on_policy": {}}))
    preflight.check_objectives(recipe(tmp_path, training={"on_policy": {"share": 0}}))
    preflight.check_objectives(recipe(tmp_path, training={"on_policy": {}, "objectives": [{"name": "jsd"}]}))


def test_own_samples_need_a_teacher_that_reads_them(tmp_path: Path, tiny_model: Path) -> None:
    training = {"on_policy": {}, "objectives": [{"name": "jsd"}]}
    mixture = {"members": [{"model": str(tiny_model)}] * 2, "combine": {"name": "mixture"}}
    for teacher in ({"model": str(tiny_model)}, mixture):
        preflight.check_teacher(recipe(tmp_path, teacher=teacher, training=training))
    for teacher in ({"model": "gpt-4o", "api": {"top_logprobs": 5}}, {**mixture, "combine": {"name": "vote"}}):
        preflight.check_teacher(recipe(tmp_path, teacher=teacher))
        with pytest.raises(ConfigError, match=r"training\.on_policy: this teacher does not tell.*\n.*on this machine"):
            preflight.check_teacher(recipe(tmp_path, teacher=teacher, training=training))
    tuned = {"model": str(tiny_model), "tune": {"on_policy": {"share": 0.1}}}
    with pytest.raises(ConfigError, match=r"teacher\.tune\.on_policy: nobody teaches"):
        preflight.check_teacher(recipe(tmp_path, teacher=tuned))


def test_own_samples_of_other_tokens_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    teacher, other = resolve(tiny_model), resolve(save_tiny_model(tmp_path / "other", layers=2, vocab_size=420))
    chosen = recipe(tmp_path, training={"on_policy": {}, "objectives": [{"name": "jsd"}]})
    with pytest.raises(ConfigError, match=r"training\.on_policy: .*other tokens than its own"):
        preflight.check_machine(chosen, teacher, other)
    preflight.check_machine(chosen, teacher, teacher)
    preflight.check_machine(recipe(tmp_path), teacher, other)


def test_a_teacher_beside_its_student_needs_memory(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = resolve(tiny_model)
    both = memory_needed_mb(model.parameters, "training-full") + memory_beside_mb(model.parameters)
    monkeypatch.setattr(fit, "memory_available_mb", lambda: both - 1)
    preflight.check_machine(recipe(tmp_path), model, model)
    with pytest.raises(ResourceError, match=r"for full training beside a model of 0 million"):
        preflight.check_machine(recipe(tmp_path, training={"on_policy": {}, "objectives": [{"name": "jsd"}]}), model, model)


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None if name == "onnxruntime_genai" else object())
    with pytest.raises(MissingExtraError, match=r"slmops\[export\]"):
        preflight.check_extras(recipe(tmp_path))


def test_what_nobody_can_report_to_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    preflight.check_extras(recipe(tmp_path, training={"report_to": "tensorboard"}))
    with pytest.raises(ConfigError, match="tensorbord"):
        preflight.check_extras(recipe(tmp_path, training={"report_to": "tensorbord"}))


@pytest.mark.parametrize(("package", "option"), [("datasketch", {"near_duplicates": None}), ("py3langid", {"language": "any"})])
def test_a_look_at_the_data_needs_its_extra_or_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, option: dict[str, Any]
) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(MissingExtraError, match=rf"slmops\[quality\]', or do without: data.quality.{next(iter(option))}="):
        preflight.check_extras(recipe(tmp_path))
    preflight.check_extras(recipe(tmp_path, data={"source": {"name": "files"}, "quality": option}))


def test_a_gate_by_a_measure_of_another_task_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [Row.of("2 + 2?", "4").as_dict()])
    write_json(tmp_path / "task.json", {})
    context = Context(recipe(tmp_path, task_type="math"), Workspace(tmp_path))
    data = StageResult("data", tmp_path)
    good = ("numeric_match >= 0.5", "share_of_teacher >= 0.9", "size_mb <= 100")
    preflight.check_gates([Gate.parse(text) for text in good], context, data)
    with pytest.raises(ConfigError, match=r"accuracy is no measure of this task\n.*numeric_match, valid_share"):
        preflight.check_gates([Gate.parse("accuracy >= 0.9 * teacher")], context, data)


def test_more_layers_than_there_are_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    model = resolve(tiny_model)
    with pytest.raises(ConfigError, match="4 layers, not 9"):
        preflight.check_machine(recipe(tmp_path, student={"layers": 9}), model, model)


def test_a_full_disk_is_refused(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = resolve(tiny_model)
    monkeypatch.setattr(preflight, "disk_mb", lambda teacher, student: 1e12)
    with pytest.raises(ResourceError, match="of disk are needed"):
        preflight.check_machine(recipe(tmp_path), model, model)
    monkeypatch.undo()
    preflight.check_machine(recipe(tmp_path), model, model)
