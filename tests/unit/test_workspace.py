"""A stage is made once, goes on after an interruption, and says why it is made again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slmops import workspace as module
from slmops.artifact import MANIFEST, Artifact, StageKey
from slmops.errors import ResourceError
from slmops.files import write_text
from slmops.workspace import Abandoned, Made, Undecided, Workspace, link_or_copy, remove_tree

CONFIG = {"training": {"learning_rate": 0.0005, "epochs": 3}, "labels": ["a"]}


def key_of(version: int = 1, parents: dict[str, str] | None = None, config: dict[str, object] | None = None) -> StageKey:
    return StageKey("student", "model", version, config or CONFIG, parents or {"data": "d1", "teacher": "t1"})


class Stage:
    """Writes one file in two steps and counts how often each is done."""

    def __init__(self) -> None:
        self.first, self.second, self.interrupt = 0, 0, False

    def __call__(self, folder: Path, work: Path) -> Made:
        if not (work / "half").is_file():
            self.first += 1
            write_text(work / "half", "half")
        if self.interrupt:
            raise KeyboardInterrupt
        self.second += 1
        write_text(folder / "rows.txt", "whole")
        return Made({"rows": 1}, {"loss": 0.5}, seed=4)


def why(root: Path, key: StageKey) -> str:
    """What the plan says of a stage."""
    planned = Workspace(root, planning=True)
    planned.stage(key, Stage())
    (step,) = planned.steps
    return f"{step.state}: {step.why}"


def test_a_stage_is_made_once(tmp_path: Path) -> None:
    stage, space = Stage(), Workspace(tmp_path)
    made = space.stage(key_of(), stage)
    again = Workspace(tmp_path).stage(key_of(), stage)
    assert (stage.first, stage.second) == (1, 1)
    assert made.path == again.path
    assert made.id == again.id == key_of().id
    assert again.facts == {"rows": 1}
    assert (again.artifact.manifest.measures, again.artifact.manifest.seed) == ({"loss": 0.5}, 4)
    assert not (made.path / "work").exists()
    assert why(tmp_path, key_of()) == "done: "


def test_an_interrupted_stage_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage, space = Stage(), Workspace(tmp_path)
    stage.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        space.stage(key_of(), stage)
    assert why(tmp_path, key_of()) == "resume: begun before"
    stage.interrupt = False
    assert Workspace(tmp_path).stage(key_of(), stage).facts == {"rows": 1}
    assert (stage.first, stage.second) == (1, 1)
    assert "[student] going on: begun before" in capsys.readouterr().err


def test_a_kill_before_the_manifest_is_written_leaves_the_stage_to_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object, **options: object) -> Artifact:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "complete", killed)
        with pytest.raises(KeyboardInterrupt):
            Workspace(tmp_path).stage(key_of(), Stage())
    folder = Workspace(tmp_path).folder(key_of())
    assert (folder / "rows.txt").is_file()
    assert not (folder / MANIFEST).exists()
    assert why(tmp_path, key_of()) == "resume: begun before"


def test_a_kill_after_the_manifest_leaves_only_the_work_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "remove_tree", killed)
        with pytest.raises(KeyboardInterrupt):
            Workspace(tmp_path).stage(key_of(), Stage())
    stage = Stage()
    made = Workspace(tmp_path).stage(key_of(), stage)
    assert stage.second == 0
    assert not (made.path / "work").exists()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (
            key_of(config={**CONFIG, "training": {"learning_rate": 0.001, "epochs": 3}}),
            "run: training.learning_rate: 0.0005 → 0.001",
        ),
        (
            key_of(config={"training": {"learning_rate": 0.0005, "epochs": 4}, "labels": ["b"]}),
            "run: labels: ['a'] → ['b']; training.epochs: 3 → 4",
        ),
        (key_of(config={**CONFIG, "lora": {"r": 16}}), "run: lora: None → {'r': 16}"),
        (key_of(parents={"data": "d1", "teacher": "t2"}), "run: teacher is another"),
        (key_of(parents={"data": "d2", "teacher": "t2"}), "run: data is another; teacher is another"),
        (key_of(parents={"data": "d1"}), "run: its inputs changed"),
        (key_of(version=2), "run: this version of slmops makes it differently"),
    ],
)
def test_a_plan_says_why_a_stage_is_made_again(tmp_path: Path, key: StageKey, reason: str) -> None:
    Workspace(tmp_path).stage(key_of(), Stage())
    assert why(tmp_path, key) == reason


def test_the_last_run_is_what_a_stage_is_compared_with(tmp_path: Path) -> None:
    """Not the newest result, which may be of a trial in between."""
    trial = key_of(config={**CONFIG, "seed": 9})
    kept = Workspace(tmp_path)
    kept.stage(key_of(), Stage())
    kept.remember()
    Workspace(tmp_path).stage(trial, Stage())
    assert why(tmp_path, key_of(version=1, config={**CONFIG, "seed": 1})) == "run: seed: None → 1"


def test_a_stage_with_a_longer_name_is_another_stage(tmp_path: Path) -> None:
    longer = StageKey("student-cut", "model", 1, {"seed": 1}, {})
    Workspace(tmp_path).stage(longer, Stage())
    assert why(tmp_path, key_of()) == "run: not made yet"


def test_a_damaged_result_of_another_run_does_not_stop_this_one(tmp_path: Path) -> None:
    made = Workspace(tmp_path).stage(key_of(), Stage())
    (made.path / MANIFEST).write_text("{")
    assert why(tmp_path, key_of(version=2)) == "run: not made yet"


def test_planning_writes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "run"
    planned = Workspace(root, planning=True)
    stage = Stage()
    result = planned.stage(key_of(), stage)
    assert not root.exists()
    assert stage.first == 0
    assert result.id == key_of().id
    with pytest.raises(Undecided):
        _ = result.facts


def test_planning_leaves_an_interrupted_run_as_it_is(tmp_path: Path) -> None:
    stage = Stage()
    stage.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        Workspace(tmp_path).stage(key_of(), stage)
    before = sorted(tmp_path.rglob("*"))
    assert why(tmp_path, key_of()) == "resume: begun before"
    assert sorted(tmp_path.rglob("*")) == before


HOLD = """
import sys
from pathlib import Path
from slmops.workspace import Workspace
with Workspace(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_kept_out_until_the_first_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(ResourceError, match="another process is at work in this folder"):
                with Workspace(tmp_path).lock():
                    raise AssertionError("two processes at work")
        finally:
            holder.kill()
    with Workspace(tmp_path).lock():
        pass


def test_a_file_gets_a_second_name_or_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a", "text")
    link_or_copy(tmp_path / "a", tmp_path / "in" / "b")
    assert (tmp_path / "in" / "b").samefile(tmp_path / "a")
    link_or_copy(tmp_path / "a", tmp_path / "in" / "b")  # after an interruption
    write_text(tmp_path / "other", "other")
    link_or_copy(tmp_path / "other", tmp_path / "in" / "b")
    assert ((tmp_path / "a").read_text(), (tmp_path / "in" / "b").read_text()) == ("text", "other")

    def no_links(*names: Path) -> None:
        raise OSError("this file system has no links")

    monkeypatch.setattr("os.link", no_links)
    link_or_copy(tmp_path / "a", tmp_path / "in" / "c")
    assert (tmp_path / "in" / "c").read_text() == "text"
    assert not (tmp_path / "in" / "c").samefile(tmp_path / "a")
    remove_tree(tmp_path / "in")
    remove_tree(tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_a_stage_that_is_given_up_for_good_leaves_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)

    def give_up(folder: Path, work: Path) -> Made:
        write_text(work / "half", "half")
        raise Abandoned

    with pytest.raises(Abandoned):
        workspace.stage(key_of(), give_up)
    assert not workspace.folder(key_of()).exists()


def test_a_stage_that_another_process_makes_is_waited_for(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.unit.test_workspace import key_of;"
        "from slmops.workspace import Made, Workspace;"
        "make = lambda folder, work: (print('in', flush=True), time.sleep(0.5), Made())[-1];"
        f"Workspace(Path({str(tmp_path)!r})).stage(key_of(), make)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    stage = Stage()
    Workspace(tmp_path).stage(key_of(), stage)
    assert (stage.first, other.wait()) == (0, 0)
