"""Where a run's artifacts lie, and the one way a stage is run, skipped, resumed or planned."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slmops.artifact import WORK, Artifact, StageKey, complete, is_complete
from slmops.errors import ArtifactError, ResourceError
from slmops.files import read_json, write_json
from slmops.progress import duration, say

_INDEX = "run.json"
_LOCKS = ".locks"


@dataclass(frozen=True)
class Made:
    """What a stage says of its result, for the manifest."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True)
class Step:
    """One stage in a plan: whether its result is there, a part of it is, or it must be made, and why."""

    stage: str
    state: str  # "done", "resume", "run"
    why: str


class Abandoned(Exception):
    """While a stage is made: it is given up for good, and what it wrote is removed."""


class Undecided(Exception):
    """While planning: what comes next depends on a result that is not there yet."""


@dataclass
class Workspace:
    """The folder of a run.

    Args:
        root: ``output_path`` of the recipe.
        planning: Only say what would be done; nothing is written.
    """

    root: Path
    planning: bool = False
    steps: list[Step] = field(default_factory=list)
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    def folder(self, key: StageKey) -> Path:
        """Where a stage's result lies."""
        return self.root / "artifacts" / f"{key.stage}-{key.id[:12]}"

    def stage(self, key: StageKey, make: Callable[[Path, Path], Made]) -> StageResult:
        """The result of a stage: the one on disk, or what ``make(folder, work)`` writes to ``folder``.

        ``work`` holds chunks and checkpoints of an interrupted run and is removed when the stage completed.
        """
        folder = self.folder(key)
        if self.planning and not is_complete(folder):
            self.steps.append(self._step(key, folder))
            return StageResult(key.id, folder)
        with self._alone(folder):
            return self._done(key, folder) if is_complete(folder) else self._made(key, folder, make)

    def _done(self, key: StageKey, folder: Path) -> StageResult:
        self.steps.append(Step(key.stage, "done", ""))
        if not self.planning:
            remove_tree(folder / WORK)
        return self._keep(key, Artifact.load(folder, key.kind))

    def _step(self, key: StageKey, folder: Path) -> Step:
        state, why = ("resume", "begun before") if folder.is_dir() else ("run", self._why(key))
        return Step(key.stage, state, why)

    def _made(self, key: StageKey, folder: Path, make: Callable[[Path, Path], Made]) -> StageResult:
        step = self._step(key, folder)
        self.steps.append(step)
        state, why = step.state, step.why
        say(f"[{key.stage}] {'going on' if state == 'resume' else 'start'}: {why}")
        started = time.time()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            made = make(folder, folder / WORK)
        except Abandoned:
            remove_tree(folder)
            raise
        artifact = complete(folder, key, started=started, seed=made.seed, facts=made.facts, measures=made.measures)
        remove_tree(folder / WORK)
        say(f"[{key.stage}] done in {duration(artifact.manifest.seconds)}")
        return self._keep(key, artifact)

    @contextlib.contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        """Of several processes one makes a stage, and the others wait for it."""
        if self.planning:
            yield
            return
        from filelock import FileLock

        locks = self.root / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / folder.name):
            yield

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second process out of this folder; the lock ends with the process, however it ends.

        Raises:
            ResourceError: Another process is at work here.
        """
        from filelock import FileLock, Timeout

        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.root / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise ResourceError(
                "another process is at work in this folder", where=str(self.root), fix="wait for it, or choose another output_path"
            ) from error

    def remember(self) -> None:
        """Write which artifacts make up this run."""
        write_json(self.root / _INDEX, {"stages": {stage: artifact.path.name for stage, artifact in self.artifacts.items()}})

    def _keep(self, key: StageKey, artifact: Artifact) -> StageResult:
        self.artifacts[key.stage] = artifact
        return StageResult(key.id, artifact.path, artifact)

    def _why(self, key: StageKey) -> str:
        before = self._previous(key.stage)
        if before is None:
            return "not made yet"
        manifest = before.manifest
        if manifest.stage_version != key.version:
            return "this version of slmops makes it differently"
        changes = _changes(manifest.config, key.config)
        changes += [f"{role} is another" for role, parent in key.parents.items() if manifest.parents.get(role) != parent]
        return "; ".join(changes) or "its inputs changed"

    def _previous(self, stage: str) -> Artifact | None:
        """The result of this stage in the last completed run, else the newest one there is; it only serves to explain."""
        index, folder = self.root / _INDEX, self.root / "artifacts"
        last = read_json(index)["stages"].get(stage) if index.is_file() else None
        found = []
        for path in folder.glob(f"{stage}-*"):
            with contextlib.suppress(ArtifactError):
                found.append(Artifact.load(path))
        same = [artifact for artifact in found if artifact.manifest.stage == stage]
        return max(same, key=lambda artifact: (artifact.path.name == last, artifact.manifest.created), default=None)


@dataclass(frozen=True)
class StageResult:
    """A stage's result as the next stages see it; while planning it may not be there yet."""

    id: str
    path: Path
    _artifact: Artifact | None = None

    @property
    def artifact(self) -> Artifact:
        """The artifact on disk.

        Raises:
            Undecided: Planning, and it is not there yet.
        """
        if self._artifact is None:
            raise Undecided
        return self._artifact

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the stage said of its result."""
        return self.artifact.manifest.facts


def remove_tree(folder: Path) -> None:
    """Remove a folder if it is there."""
    import shutil

    if folder.is_dir():
        shutil.rmtree(folder)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file where the file system can, else a copy; what an interrupted attempt left there is replaced."""
    import shutil

    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    changes = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += _changes(old, new, f"{prefix}{name}.")
        elif old != new:
            changes.append(f"{prefix}{name}: {_short(old)} → {_short(new)}")
    return changes


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def replace_folder(target: Path, source: Path) -> None:
    """Put the files of a folder in the place of another, linked where they can be."""
    fresh = target.with_name(f".{target.name}.new")
    remove_tree(fresh)
    for file in source.iterdir():
        link_or_copy(file, fresh / file.name)
    remove_tree(target)
    fresh.rename(target)
