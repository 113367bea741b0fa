"""The one object that crosses the stages: a directory with a manifest.

The manifest is written last (temporary name, fsync, rename), so its existence means that the stage completed. An
artifact's id is a hash of its stage, the stage's version, its configuration and the ids of its parents; it is known
before anything runs. Caching, resuming and lineage follow: same id, nothing to do; a directory without a manifest,
resume; parents, lineage.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from slmops import __version__
from slmops.errors import ArtifactError
from slmops.files import digest, file_digest, read_json, write_json

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
WORK = "work"

Kind = Literal["dataset", "answers", "signals", "model", "candidate", "measurement", "report", "bundle"]


class Manifest(BaseModel):
    """What ``manifest.json`` holds; ``files`` maps relative paths to SHA-256, ``parents`` roles to ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    stage: str
    id: str
    schema_version: int = SCHEMA_VERSION
    stage_version: int
    code_version: str
    created: float
    seconds: float
    config: dict[str, Any]
    parents: dict[str, str]
    seed: int | None = None
    facts: dict[str, Any] = {}
    measures: dict[str, float] = {}
    files: dict[str, str]


@dataclass(frozen=True)
class StageKey:
    """What determines a stage's result; ``id`` is its hash.

    Args:
        stage: Name in the pipeline, unique in a run, such as ``train.distilled``.
        kind: Kind of artifact it makes.
        version: Raised when the stage's code changes its result.
        config: The values of the recipe it reads, and nothing else.
        parents: Role to id of the artifacts (or fingerprints of outside models and files) it reads.
    """

    stage: str
    kind: Kind
    version: int
    config: Mapping[str, Any]
    parents: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Hex digest of all that determines the result."""
        return digest([self.stage, self.kind, self.version, dict(self.config), dict(self.parents)])


@dataclass(frozen=True)
class Artifact:
    """A completed stage on disk."""

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """The artifact's id."""
        return self.manifest.id

    @classmethod
    def load(cls, path: Path, kind: Kind | None = None) -> Artifact:
        """Open an artifact.

        Raises:
            ArtifactError: No manifest, one that cannot be read, or of another kind than asked for.
        """
        file = path / MANIFEST
        if not file.is_file():
            raise ArtifactError(
                "no completed result here", where=str(path), fix="run the command that makes it again; it continues"
            )
        try:
            manifest = Manifest.model_validate(read_json(file))
        except (ValidationError, ValueError) as error:
            raise ArtifactError(
                f"the manifest cannot be read: {error}", where=str(file), fix="remove the folder and run again"
            ) from error
        if kind is not None and manifest.kind != kind:
            raise ArtifactError(f"this is a {manifest.kind}, not a {kind}", where=str(path))
        return cls(path, manifest)

    def verify(self) -> None:
        """Compare every file with its hash in the manifest.

        Raises:
            ArtifactError: A file is missing or has changed.
        """
        for name, expected in self.manifest.files.items():
            file = self.path / name
            if not file.is_file() or file_digest(file) != expected:
                raise ArtifactError(
                    "the file is missing or was changed after the stage completed",
                    where=str(file),
                    fix="remove its folder and run again",
                )


def is_complete(path: Path) -> bool:
    """Whether a stage completed in this directory."""
    return (path / MANIFEST).is_file()


def complete(
    path: Path,
    key: StageKey,
    *,
    started: float,
    seed: int | None = None,
    facts: Mapping[str, Any] | None = None,
    measures: Mapping[str, float] | None = None,
) -> Artifact:
    """Hash the files of a finished stage and write its manifest; ``work/`` (checkpoints, chunks) is left out.

    Temporary files that a killed attempt left behind are removed.
    """
    for leftover in path.rglob(".*.tmp"):
        leftover.unlink()
    files = {
        file.relative_to(path).as_posix(): file_digest(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and file != path / MANIFEST and file.relative_to(path).parts[0] != WORK
    }
    manifest = Manifest(
        kind=key.kind,
        stage=key.stage,
        id=key.id,
        stage_version=key.version,
        code_version=__version__,
        created=time.time(),
        seconds=round(time.time() - started, 3),
        config=dict(key.config),
        parents=dict(key.parents),
        seed=seed,
        facts=dict(facts or {}),
        measures=dict(measures or {}),
        files=files,
    )
    write_json(path / MANIFEST, manifest.model_dump())
    return Artifact(path, manifest)
