"""The README's commands run, its figures' commands exist, and its map matches the tree."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from slmops.files import write_jsonl
from tests.commands import Call

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    ")]


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder with what the README's commands name: rows, a model, a recipe."""
    rows = [{"text": f"where is parcel {n}", "label": "delivery"} for n in range(20)]
    rows += [{"text": f"refund order {n}", "label": "refund"} for n in range(20)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    write_jsonl(tmp_path / "test.jsonl", rows[::2])
    write_jsonl(tmp_path / "pool.jsonl", [{"text": f"is order {n} here"} for n in range(20)])
    shutil.copytree(tiny_model, tmp_path / "teacher")
    return tmp_path


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("slmops ")])
def test_commands_of_the_readme_run(
    command: str, place: Path, call: Call, measured_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    arguments = [word.replace("smollm2-135m-instruct", "teacher") for word in shlex.split(command)[1:]]
    arguments = ["support-routing" if word == "RECIPE" else word for word in arguments]
    if arguments[0] in ("distill", "run"):
        done = call(*arguments, *([] if "--plan" in arguments else ["--plan"]))
        assert done.code == 0, done.err
        assert "distilled" in done.out
    elif arguments[0] == "probe":
        done = call(*arguments, "--task", "classification", "--plan")
        assert done.code == 0, done.err
    elif arguments[0] == "evaluate":
        shutil.copytree("teacher", "runs/mine")
        done = call(*arguments, "--set", "evaluation.latency_requests=6", "--set", "evaluation.concurrency=[1]")
        assert done.code in (0, 1, 3), done.err
        assert Path("evaluation/report.html").is_file()
    elif arguments[0] in ("serve", "ask", "review"):
        done = call(*arguments)
        assert done.code == 2
        assert "there is no such folder" in done.err
    else:
        assert call(*arguments).code == 0


def test_the_map_names_the_folders_of_the_package() -> None:
    folders = {path.name for path in (ROOT / "slmops").iterdir() if path.is_dir() and not path.name.startswith("__")}
    mapped = set(re.findall(r"\b([a-z_]+)/", README.partition("## Map")[2]))
    assert folders <= mapped, folders - mapped
