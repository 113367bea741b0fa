"""``slmops generate-adapter`` on what ``slmops finetune`` left: two runs on one base, one package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slmops.files import read_json
from tests.commands import Call

LABELS = ("delivery", "refund", "account")
FIXED = ("data.quality.language=any", "data.quality.near_duplicates=null", "training.precision=float32")


@pytest.fixture
def runs(tiny_model: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two adapters of unlike shape, trained on rows with templates of their own."""
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))
    rows = [{"phrase": f"please {LABELS[n % 3]} number {n}", "tone": LABELS[n % 3]} for n in range(60)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kinds = {
        "classifier": ("{phrase} => {tone}", "4", "q_proj,v_proj"),
        "generator": ("Q: {phrase}\\nA:{tone}", "8", "down_proj,o_proj"),
    }
    for name, (template, rank, targets) in kinds.items():
        given = ["--model_name_or_path", tiny_model, "--data_name", tmp_path / "train.jsonl", "--text_template", template]
        more = ["--lora_r", rank, "--target_modules", targets, "--max_steps", "12", "--learning_rate", "2e-2"]
        done = call("finetune", *given, *more, "--output_path", tmp_path / "adapters" / name, *FIXED)
        assert done.code == 0, done.err
    return [tmp_path / "adapters" / name for name in kinds]


def test_two_runs_become_one_package_whose_answers_are_theirs(
    runs: list[Path], tiny_model: Path, tmp_path: Path, call: Call
) -> None:
    left = tmp_path / "models/.multi.staged"
    left.mkdir(parents=True)
    (left / "half.onnx").write_text("of an attempt that was killed")
    command = ["generate-adapter", "--base_model_path", tiny_model, "--output_path", tmp_path / "models/multi", "--rows", "5"]
    command += ["--adapter_paths", f"{runs[0]},{runs[1] / 'adapter'}", "--names", "tone,talk"]
    done = call(*command)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[1:4] == [
        ["(none)", "5", "of", "5", "general", "questions"],
        ["tone", "4", "5", "of", "5", "validation", "rows"],
        ["talk", "8", "5", "of", "5", "validation", "rows"],
    ]
    assert sorted(file.name for file in (tmp_path / "models").iterdir()) == ["multi", "multi.log"]
    assert {"adapters", "adapters.json", "genai_config.json", "model.onnx", "tokenizer.json"} <= {
        file.name for file in (tmp_path / "models/multi").iterdir()
    }
    tone, talk = read_json(tmp_path / "models/multi/adapters.json")["adapters"]
    assert "' =>'" in tone["chat_template"]["jinja"].replace('"', "'")
    assert talk["targets"] == ["down_proj", "o_proj"]

    again = call(*command, "--json")
    assert json.loads(again.out)["adapters"] == [tone, talk]
    assert "is there already" in again.err

    listed = json.loads(call("adapters", tmp_path, "--json").out)["adapters"]
    assert [adapter["name"] for adapter in listed] == ["classifier", "generator", "talk", "tone"]
    assert all(adapter["validation_loss"] for adapter in listed[:2])


def test_a_run_that_trained_all_weights_is_no_adapter(tiny_model: Path, tmp_path: Path, call: Call) -> None:
    shutil.copytree(tiny_model, tmp_path / "full/model")
    given = ["--base_model_path", tiny_model, "--output_path", tmp_path / "multi"]
    result = call("generate-adapter", *given, "--adapter_paths", tmp_path / "full")
    assert (result.code, "there is no adapter here" in result.err) == (2, True)
