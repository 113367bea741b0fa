"""A stage's result: known before it runs by its id, complete with its manifest."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from slmops.artifact import MANIFEST, Artifact, StageKey, complete, is_complete
from slmops.errors import ArtifactError
from slmops.files import read_json, write_json, write_text

KEY = StageKey("train.student", "model", 1, {"epochs": 3, "lora": {"r": 16}}, {"data": "d1", "base": "b1"})


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    write_text(tmp_path / "model" / "weights", "1234")
    write_text(tmp_path / "rows.jsonl", "{}")
    write_text(tmp_path / "work" / "chunk", "unfinished")
    return complete(tmp_path, KEY, started=time.time() - 5, seed=3, facts={"rows": 7}, measures={"loss": 0.5})


def test_the_id_is_that_of_what_determines_the_result() -> None:
    same = StageKey("train.student", "model", 1, {"lora": {"r": 16}, "epochs": 3}, {"base": "b1", "data": "d1"})
    assert same.id == KEY.id
    others = [
        StageKey("train.teacher", KEY.kind, KEY.version, KEY.config, KEY.parents),
        StageKey(KEY.stage, "candidate", KEY.version, KEY.config, KEY.parents),
        StageKey(KEY.stage, KEY.kind, 2, KEY.config, KEY.parents),
        StageKey(KEY.stage, KEY.kind, KEY.version, {"epochs": 3, "lora": {"r": 8}}, KEY.parents),
        StageKey(KEY.stage, KEY.kind, KEY.version, {**KEY.config, "seed": 0}, KEY.parents),
        StageKey(KEY.stage, KEY.kind, KEY.version, KEY.config, {"data": "d2", "base": "b1"}),
        StageKey(KEY.stage, KEY.kind, KEY.version, KEY.config, {"data": "b1", "base": "d1"}),
    ]
    assert len({key.id for key in (KEY, *others)}) == 8


def test_a_completed_stage_is_described_by_its_manifest(artifact: Artifact) -> None:
    manifest = Artifact.load(artifact.path, "model").manifest
    assert (manifest.id, manifest.kind, manifest.stage, manifest.seed) == (KEY.id, "model", "train.student", 3)
    assert (manifest.config, manifest.parents) == (KEY.config, KEY.parents)
    assert (manifest.facts, manifest.measures) == ({"rows": 7}, {"loss": 0.5})
    assert 5 <= manifest.seconds < 60
    assert set(manifest.files) == {"model/weights", "rows.jsonl"}


def test_without_a_manifest_a_stage_is_not_complete(tmp_path: Path) -> None:
    write_text(tmp_path / "rows.jsonl", "{}")
    assert not is_complete(tmp_path)
    with pytest.raises(ArtifactError, match="no completed result here"):
        Artifact.load(tmp_path)


def test_a_changed_byte_is_noticed(artifact: Artifact) -> None:
    artifact.verify()
    (artifact.path / "model" / "weights").write_text("1235")
    with pytest.raises(ArtifactError, match="weights: the file is missing or was changed"):
        artifact.verify()


def test_a_missing_file_is_noticed(artifact: Artifact) -> None:
    (artifact.path / "rows.jsonl").unlink()
    with pytest.raises(ArtifactError, match=r"rows\.jsonl"):
        artifact.verify()


def test_a_file_that_happens_to_be_called_like_the_manifest_is_hashed_too(tmp_path: Path) -> None:
    write_text(tmp_path / "model" / MANIFEST, "{}")
    assert set(complete(tmp_path, KEY, started=0).manifest.files) == {f"model/{MANIFEST}"}


def test_what_a_killed_attempt_left_half_written_is_removed(tmp_path: Path) -> None:
    write_text(tmp_path / "rows.jsonl", "{}")
    (tmp_path / ".rows.jsonl.x7.tmp").write_text("{")
    assert set(complete(tmp_path, KEY, started=0).manifest.files) == {"rows.jsonl"}
    assert not (tmp_path / ".rows.jsonl.x7.tmp").exists()


def test_another_kind_than_asked_for_is_refused(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="this is a model, not a dataset"):
        Artifact.load(artifact.path, "dataset")


@pytest.mark.parametrize("change", [{"kind": "poem"}, {"surprise": 1}, {"files": None}])
def test_a_manifest_of_another_form_is_refused(artifact: Artifact, change: dict[str, object]) -> None:
    file = artifact.path / MANIFEST
    write_json(file, {**read_json(file), **change})
    with pytest.raises(ArtifactError, match="the manifest cannot be read"):
        Artifact.load(artifact.path)
    file.write_text("{")
    with pytest.raises(ArtifactError, match="the manifest cannot be read"):
        Artifact.load(artifact.path)
