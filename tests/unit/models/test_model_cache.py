"""Folders of the model cache are there whole or not at all; hashes of big files are remembered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from slmops.files import file_digest
from slmops.models.cache import FACTS, cache_dir, cached_digest, entry_path, fingerprint, make_entry, read_entry


def fill(folder: Path) -> dict[str, str]:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return {"source": "test"}


def refuse(folder: Path) -> dict[str, str]:
    raise AssertionError("made again although it was complete")


def test_a_complete_folder_is_made_once(own_cache: Path) -> None:
    folder = entry_path("Tiny Model!", "a" * 64, 1)
    assert folder.parent == own_cache / "models"
    assert make_entry(folder, fill)["source"] == "test"
    assert make_entry(folder, refuse)["fingerprint"] == fingerprint(folder)


def test_another_source_or_conversion_has_another_folder() -> None:
    paths = {entry_path("m", "a" * 64, 1), entry_path("m", "b" * 64, 1), entry_path("m", "a" * 64, 2)}
    assert len(paths) == 3


def test_a_folder_left_by_a_killed_process_is_made_again(tmp_path: Path) -> None:
    folder = entry_path("tiny", "a" * 64, 1)
    script = f"""
        import os, signal
        from pathlib import Path
        from slmops.models.cache import make_entry
        def die(work):
            (work / "config.json").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        make_entry(Path({str(folder)!r}), die)
    """
    killed = run_python(script)
    assert killed.wait() == -signal.SIGKILL
    assert [path for path in folder.parent.iterdir() if path.suffix == ".tmp"]
    assert read_entry(folder) is None
    make_entry(folder, fill)
    assert read_entry(folder) is not None
    assert (folder / "config.json").read_text() == "{}"
    assert not [path for path in folder.parent.iterdir() if path.suffix == ".tmp"]


@pytest.mark.parametrize("damage", ["facts missing", "weights changed", "weights missing"])
def test_a_damaged_folder_is_made_again(damage: str) -> None:
    folder = entry_path("tiny", "a" * 64, 1)
    make_entry(folder, fill)
    if damage == "facts missing":
        (folder / FACTS).unlink()
    elif damage == "weights changed":
        (folder / "model.safetensors").write_bytes(b"weightz")
    else:
        (folder / "model.safetensors").unlink()
    assert read_entry(folder) is None
    make_entry(folder, fill)
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_an_error_while_making_leaves_nothing() -> None:
    folder = entry_path("tiny", "a" * 64, 1)

    def fail(work: Path) -> dict[str, str]:
        fill(work)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        make_entry(folder, fail)
    assert not [path for path in folder.parent.iterdir() if path.is_dir()]


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    folder, log = entry_path("tiny", "a" * 64, 1), tmp_path / "log"
    script = f"""
        import time
        from pathlib import Path
        from slmops.models.cache import make_entry
        def fill(work):
            with open({str(log)!r}, "a") as file:
                file.write("made\\n")
            (work / "config.json").write_text("{{}}")
            time.sleep(0.5)
            return {{}}
        make_entry(Path({str(folder)!r}), fill)
    """
    assert [process.wait() for process in [run_python(script), run_python(script)]] == [0, 0]
    assert log.read_text() == "made\n"


def test_a_remembered_hash_is_that_of_the_content_and_follows_changes(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(os.urandom(2_000_000))
    first = cached_digest(file)
    assert first == cached_digest(file) == file_digest(file)
    file.write_bytes(os.urandom(2_000_000))
    os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns + 1_000_000))
    assert cached_digest(file) == file_digest(file) != first


def test_the_second_hash_of_a_big_file_takes_milliseconds(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with file.open("wb") as stream:
        stream.truncate(200_000_000)
    cached_digest(file)
    started = time.perf_counter()
    cached_digest(file)
    assert time.perf_counter() - started < 0.05


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in-the-way").write_text("")
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "in-the-way"))
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(2_000_000))
    assert cached_digest(file) == file_digest(file)


def test_the_fingerprint_follows_weights_config_and_tokenizer_only(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json", "README.md"):
        (tmp_path / name).write_text(name)
    before = fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("other")
    assert fingerprint(tmp_path) == before
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("other")
        assert fingerprint(tmp_path) != before
        (tmp_path / name).write_text(name)


def test_the_cache_lies_where_the_platform_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLMOPS_CACHE")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_dir() == Path("/home/ada/.cache/slmops")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big/cache")
    assert cache_dir() == Path("/big/cache/slmops")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_dir() == Path("/home/ada/Library/Caches/slmops")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/users/ada/local")
    assert cache_dir() == Path("/users/ada/local/slmops")


def run_python(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stderr=subprocess.DEVNULL)
