"""All stages on the CPU: data → teacher → training → export → evaluation → package → served answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from slmops.artifact import Artifact
from slmops.evaluation.schema import parse_report
from slmops.runtimes.folders import served_folder
from slmops.serving.client import ask_once
from tests.pipeline.conftest import Run, slmops
from tests.pipeline.tiny_line import write_recipe


def started(text: str) -> list[str]:
    """Stages that a run's progress says it worked on."""
    return [line.partition("]")[0].lstrip("[") for line in text.splitlines() if line.startswith("[") and "done in" not in line]


def test_the_report_has_every_row_and_the_package_is_the_one_it_names(finished: Run) -> None:
    report = parse_report(json.loads((finished.output / "report.json").read_text()))
    assert [row.name for row in report.rows] == [
        "tfidf",
        "teacher",
        "teacher-quantized",
        "untuned",
        "control",
        "answers-only",
        "distilled",
        "packaged",
    ]
    assert report.row("distilled").measures["accuracy"] > 0.9 > report.row("untuned").measures["accuracy"]
    assert report.packaged is not None
    assert report.verdict.packaged in {"control", "answers-only", "distilled", "teacher-quantized"}
    assert "Packaged:" in finished.stdout
    assert (finished.output / "report.html").read_text().lower().startswith("<!doctype html>")


def test_a_pre_flight_comes_before_the_first_student(finished: Run) -> None:
    stages = started(finished.stderr)
    assert stages[stages.index("untuned") :][:3] == ["untuned", "pre-flight", "distilled"]
    found = json.loads((finished.output / "run.json").read_text())["stages"]["pre-flight"]
    table = (finished.output / "artifacts" / found / "pre-flight.txt").read_text().splitlines()
    assert "\n".join(f"  {line}" for line in table) in finished.stderr
    notes = json.loads((finished.output / "report.json").read_text())["notes"]
    assert any("the teacher was compared with its cached signals" in note for note in notes)


def test_nothing_but_loopback_was_asked(finished: Run) -> None:
    assert not finished.sockets.exists(), finished.sockets.read_text()


def test_the_guard_of_that_test_does_refuse(finished: Run, tmp_path: Path) -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    noted = tmp_path / "sockets.txt"
    environment = {"PYTHONPATH": str(finished.recipe.parent / "guard"), "SLMOPS_TEST_SOCKETS": str(noted)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False).returncode != 0
    assert "192.0.2.1" in noted.read_text()


def test_a_second_run_does_nothing_and_needs_no_torch(finished: Run) -> None:
    code = (
        "import sys; from pathlib import Path; from slmops.config import load_recipe; from slmops.pipeline import run;"
        f"run(load_recipe(Path({str(finished.recipe)!r}))); assert 'torch' not in sys.modules"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert started(again.stderr) == []


def test_a_changed_value_touches_exactly_the_stages_that_read_it(finished: Run) -> None:
    planned = slmops("run", finished.recipe, "training.learning_rate=0.002", "--plan", "--json")
    steps = {step["stage"]: step for step in json.loads(planned.stdout)}
    redone = {name for name, step in steps.items() if step["state"] == "run"}
    assert redone >= {"distilled", "answers-only", "control"}
    assert redone.isdisjoint({"data", "teacher", "answers", "signals", "untuned", "measure.teacher", "measure.tfidf"})
    assert steps["distilled"]["why"] == "learning_rate: 0.003 → 0.002"


def test_people_can_compare_what_was_packaged_with_another_row(finished: Run, tmp_path: Path) -> None:
    done = slmops("review", finished.output, "--a", "packaged", "--b", "untuned", "--output_path", tmp_path / "review", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["compared"], facts["rejected"]) == (40, 0)
    assert 0 < facts["shown"] == 40 - facts["equal"]


def test_the_package_is_a_folder_for_foundry_local(finished: Run) -> None:
    package = finished.output / "package"
    assert (package / "genai_config.json").is_file()
    assert "model-index:" in (package / "README.md").read_text(encoding="utf-8")
    foundry = json.loads((package / "inference_model.json").read_text())
    assert foundry["Name"] == "tiny"
    assert foundry["PromptTemplate"]["prompt"] == "<|im_start|>user\n{Content}<|im_end|>\n<|im_start|>assistant\n"


def test_every_artifact_still_has_the_bytes_of_its_manifest(finished: Run) -> None:
    for manifest in (finished.output / "artifacts").glob("*/manifest.json"):
        Artifact.load(manifest.parent).verify()


def test_the_packaged_model_answers_the_official_client(finished: Run) -> None:
    assert ask_once(served_folder(finished.output), "please refund the money 901") == "refund"


def test_too_many_bad_rows_stop_the_run_before_the_teacher_starts(tmp_path: Path, tiny_model: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model)
    train = tmp_path / "train.jsonl"
    train.write_text(train.read_text() + '{"text": broken\n' * 40)
    stopped = slmops("run", recipe)
    assert stopped.returncode == 2
    assert f"{train}:33" in stopped.stderr
    assert started(stopped.stderr) == ["data"]
    assert slmops("run", recipe, "data.max_bad_share=0.9", "--plan").returncode == 0


def test_no_package_and_exit_code_1_where_no_model_passes_its_gates(finished: Run) -> None:
    failed = slmops("run", finished.recipe, "gates=[size_mb <= 0.0001]")
    assert failed.returncode == 1
    assert "no model passes the gates" in failed.stderr
    assert not (finished.output / "package").exists()
    assert slmops("run", finished.recipe).returncode == 0
    assert (finished.output / "package" / "genai_config.json").is_file()
