"""The model cache on disk: where it is, hashes of big files, folders of converted models."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from slmops.files import digest, file_digest, read_json, write_json
from slmops.progress import say

FACTS = "slmops_model.json"
"""Written last into a folder of the model cache: it holds where the model comes from."""

MODEL_FILES = re.compile(
    r"(.*\.safetensors|(.*\.)?index\.json|config\.json|bottleneck_config\.json|generation_config\.json|tokenizer.*\.(json|model)|spiece\.model"
    r"|vocab\.(json|txt)|merges\.txt|added_tokens\.json|special_tokens_map\.json|chat_template\.(jinja|json))"
)
"""Names of the files that make up a model: weights, configuration, tokenizer."""

_HASH_CACHE_FROM_BYTES = 1_000_000


def cache_dir() -> Path:
    """The folder of everything slmops keeps between runs: ``SLMOPS_CACHE``, else the platform's cache folder."""
    if chosen := os.environ.get("SLMOPS_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "slmops"


def fingerprint(path: Path) -> str:
    """SHA-256 over the names and hashes of a model folder's weights, config and tokenizer files, as hex."""
    files = sorted(file for file in path.iterdir() if MODEL_FILES.fullmatch(file.name))
    return digest([[file.name, cached_digest(file)] for file in files])


def cached_digest(file: Path) -> str:
    """SHA-256 of a file, as hex; that of a big one is remembered by its path, size and time of change."""
    state = file.stat()
    if state.st_size < _HASH_CACHE_FROM_BYTES:
        return file_digest(file)
    place = str(file.resolve())
    known = [place, state.st_size, state.st_mtime_ns]
    note = cache_dir() / "hashes" / f"{digest(place)[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = read_json(note)
        if kept["file"] == known:
            return str(kept["sha256"])
    value = file_digest(file)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
        write_json(note, {"file": known, "sha256": value})
    return value


def entry_path(name: str, source_sha256: str, conversion: int) -> Path:
    """The folder of the model made from a source file by that version of the conversion."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.") or "model"
    return cache_dir() / "models" / f"{slug}-{digest([source_sha256, conversion])[:12]}"


def read_entry(folder: Path) -> dict[str, Any] | None:
    """The facts of a complete folder of the cache; ``None`` where it is missing, half-written or changed since."""
    try:
        facts: dict[str, Any] = read_json(folder / FACTS)
        return facts if facts["fingerprint"] == fingerprint(folder) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def make_entry(folder: Path, make: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Make a folder of the cache unless it is complete, and return its facts.

    It is made under a temporary name and renamed, so that a killed process leaves nothing that looks complete; a lock
    keeps two processes from making the same one.

    Args:
        folder: From :func:`entry_path`.
        make: Fills the folder it is given and returns facts to be kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    with _announced(lock, folder.name):
        if (facts := read_entry(folder)) is not None:
            return facts
        work = folder.with_name(f".{folder.name}.tmp")
        for leftover in (work, folder):
            if leftover.exists():
                shutil.rmtree(leftover)
        work.mkdir()
        try:
            facts = dict(make(work))
            facts |= {"fingerprint": fingerprint(work), "made": time.time()}
            for file in work.iterdir():
                _sync(file)
            write_json(work / FACTS, facts)
            work.replace(folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        fingerprint(folder)  # remembers the hashes under the final path
        return facts


@contextlib.contextmanager
def _announced(lock: FileLock, what: str) -> Any:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        say(f"waiting for another process that is preparing {what}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sync(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
