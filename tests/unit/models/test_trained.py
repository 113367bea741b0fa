"""What ``slmops adapters`` finds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slmops.data.chat import ChatTemplate
from slmops.export.adapter_set import AdapterEntry, AdapterSet, Agreement
from slmops.files import write_json
from tests.adapters import save_adapter
from tests.commands import Call


@pytest.fixture
def place(tiny_model: Path, tmp_path: Path) -> Path:
    """A run with its adapter twice, an adapter of PEFT, a package, and one that cannot be read."""
    run = tmp_path / "tone"
    save_adapter(tiny_model, run / "adapter", target_modules=["v_proj", "q_proj"])
    shutil.copytree(run / "adapter", run / "artifacts/tuned-1234/adapter")
    curve = [{"step": 2, "validation": 2.5}, {"step": 4, "validation": None}, {"step": 6, "validation": 1.25}]
    write_json(run / "finetune.json", {"method": "qlora", "curve": curve})
    save_adapter(tiny_model, tmp_path / "loose", use_dora=True, target_modules=["q_proj"], rank_pattern={"layers.0.*": 6})
    entry = AdapterEntry(
        name="generator",
        source="adapters/generator",
        fingerprint="",
        sha256="",
        rank=16,
        targets=("down_proj",),
        parameters=10,
        chat_template=ChatTemplate("x"),
        agreement=Agreement(rows=0, equal=0, same_tokens=True, questions=""),
    )
    package = AdapterSet(name="multi", base="models/base", scheme="int4", key="", agreement=entry.agreement, adapters=(entry,))
    package.write(tmp_path / "multi")
    (tmp_path / "multi/adapters").mkdir()
    (tmp_path / "multi" / entry.file).write_bytes(bytes(2_500_000))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/adapter_config.json").write_text("{")
    (tmp_path / "broken/adapter_model.safetensors").touch()
    return tmp_path


def test_adapters_of_runs_of_peft_and_of_packages_are_found_once(place: Path, tiny_model: Path, call: Call) -> None:
    result = call("adapters", place, "--json")
    assert result.code == 0, result.err
    loose, generator, tone = json.loads(result.out)["adapters"]
    facts = ("name", "base", "method", "rank", "targets", "validation_loss", "package")
    assert [loose[fact] for fact in facts] == ["loose", str(tiny_model), "dora", 6, ["q_proj"], None, None]
    assert [generator[fact] for fact in facts] == [
        "generator", "models/base", "lora", 16, ["down_proj"], None, str(place / "multi")
    ]  # fmt: skip
    assert [tone[fact] for fact in facts] == ["tone", str(tiny_model), "qlora", 4, ["q_proj", "v_proj"], 1.25, None]
    assert generator["size_mb"] == 2.5
    assert tone["path"] == str(place / "tone/adapter")
    assert tone["made"].endswith("+00:00")
    assert f"{place / 'broken'}: left out" in result.err


def test_the_table_has_a_line_an_adapter(place: Path, call: Call) -> None:
    lines = call("adapters", place).out.splitlines()
    assert [line.split()[0] for line in lines] == ["adapter", "loose", "generator", "tone"]
    assert "q_proj,v_proj" in lines[3]
    assert " 1.250 " in lines[3]


def test_where_there_is_none_that_is_said(call: Call, tmp_path: Path) -> None:
    assert call("adapters", tmp_path).out == f"no adapters below {tmp_path}\n"
    missing = call("adapters", tmp_path / "typo")
    assert (missing.code, "no such folder" in missing.err) == (2, True)
