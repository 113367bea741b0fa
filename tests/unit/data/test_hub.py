"""Data sets of a hub over loopback: fetched once, taken from the caches, and what is said where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slmops.data.given import named_source
from slmops.data.hub import HubSource, is_hub_data
from slmops.errors import ConfigError, MissingExtraError
from tests.data_hub import DATA_SET, DataHub, serving

datasets: Any = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")

Hub = tuple[str, type[DataHub]]
# The library reads its settings when it is imported, so each try needs a fresh process.
_SCRIPT = """
import json, sys
from slmops.data.hub import HubSource
source = HubSource(**json.loads(sys.argv[1]))
raw = source.read()
rows = [[(row.question, row.answer, row.origin) for row in rows] for rows in (raw.labelled, raw.validation)]
print(json.dumps({"fingerprint": source.fingerprint(), "rows": rows}))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    datasets.disable_progress_bars()
    features = datasets.Features({"phrase": datasets.Value("string"), "tone": datasets.ClassLabel(names=["warm", "cold"])})
    for split, count in (("train", 6), ("validation", 2)):
        rows = [{"phrase": f"{split} {number}", "tone": number % 2} for number in range(count)]
        datasets.Dataset.from_list(rows, features=features).to_parquet(str(folder / f"data/{split}-00000-of-00001.parquet"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    with serving(repository) as found:
        yield found


def read(endpoint: str, home: Path, id: str = DATA_SET, offline: bool = False, **options: str) -> tuple[Any, str]:
    """What the source reads in a process of its own, and what it says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = kept | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)} | ({"HF_HUB_OFFLINE": "1"} if offline else {})
    given = json.dumps({"id": id, "text_template": "{phrase} => {tone}", **options})
    done = subprocess.run([sys.executable, "-c", _SCRIPT, given], env=environment, capture_output=True, text=True, timeout=120)
    return (json.loads(done.stdout) if done.returncode == 0 else None), done.stderr


def test_it_is_fetched_once_and_then_taken_from_the_caches(hub: Hub, tmp_path: Path) -> None:
    endpoint, server = hub
    first, said = read(endpoint, tmp_path, train_split="train[1:3]", validation_split="validation[:1]")
    assert first is not None, said
    train = [["train 1", "cold", f"{DATA_SET}/train:2"], ["train 2", "warm", f"{DATA_SET}/train:3"]]
    assert first["rows"] == [train, [["validation 0", "warm", f"{DATA_SET}/validation:1"]]]

    def downloads() -> list[str]:
        return [path for path in server.asked if path.endswith(".parquet")]

    assert downloads()
    server.asked.clear()
    again, _ = read(endpoint, tmp_path, train_split="train[1:3]", validation_split="validation[:1]")
    assert (again, downloads()) == (first, [])
    # The same data from the cache, with the hub switched off and with one that is not there.
    off, said = read(endpoint, tmp_path, offline=True, train_split="train[1:3]", validation_split="validation[:1]")
    assert (off, server.asked) == (first, server.asked)
    assert "HF_HUB_OFFLINE is set; taken from the cache, commit cccccccccccc" in said
    gone, said = read("http://127.0.0.1:9", tmp_path, train_split="train[1:3]", validation_split="validation[:1]")
    assert gone == first
    assert "cannot be reached" in said
    # Another commit is other data.
    server.commit = "d" * 40
    changed, _ = read(endpoint, tmp_path, train_split="train[1:3]", validation_split="validation[:1]")
    assert changed["rows"] == first["rows"]
    assert changed["fingerprint"] != first["fingerprint"]


def test_what_the_hubs_client_fetched_is_read_without_a_hub(repository: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / f"hub/datasets--{DATA_SET.replace('/', '--')}/snapshots" / ("e" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(repository)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs/main").write_text("e" * 40)
    found, said = read("http://127.0.0.1:9", tmp_path, offline=True)
    assert found is not None, said
    assert [len(rows) for rows in found["rows"]] == [6, 2]
    assert "commit eeeeeeeeeeee" in said
    missing, said = read("http://127.0.0.1:9", tmp_path, offline=True, revision="v2")
    assert missing is None


def test_what_cannot_be_had_says_what_was_tried_and_what_to_do(hub: Hub, tmp_path: Path) -> None:
    found, said = read(hub[0], tmp_path, offline=True)
    assert found is None
    assert f"DataError: {DATA_SET}: no path of this name is here, and as a hub data set it cannot be had: HF_HUB_OFFLINE is" in said
    assert "give a file or a folder (--data_name train.jsonl)" in said
    found, said = read(hub[0], tmp_path, id="some/other")
    assert found is None
    assert f"{hub[0]} was asked (Dataset 'some/other' doesn't exist on the Hub or cannot be accessed.)" in said
    found, said = read(hub[0], tmp_path, id=f"{DATA_SET}:german")
    assert found is None
    assert f"{DATA_SET}:german" in said


def test_a_path_is_no_hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/train").write_text("")
    names = {"some/tones": True, "some/tones:en": True, "some/tones.v2": True, "rows/train": False, "rows/trian": False}
    assert {name: is_hub_data(Path(name)) for name in names} == names
    assert not any(is_hub_data(Path(name)) for name in ("train.jsonl", "data/train.jsonl", "/some/tones", "a/b/c", "tones"))
    assert named_source(Path("some/tones"), "en") == {"name": "hub", "id": "some/tones", "config": "en"}
    assert named_source(Path("rows/train")) == {"name": "files", "train": str(tmp_path / "rows/train")}
    with pytest.raises(ConfigError, match="--data_config"):
        named_source(Path("rows/train"), "en")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"slmops\[hub\]"):
        HubSource(id=DATA_SET).fingerprint()
