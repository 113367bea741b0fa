"""Data sets of the Hugging Face hub, read through the library ``datasets``: its caches first, then a download.

No code of a data set is run: the versions of the library that are taken have none of that.
"""

from __future__ import annotations

import os
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from slmops.data.folders import Part
from slmops.data.sources import TableSource
from slmops.data.split_syntax import split_name
from slmops.errors import DataError, MissingExtraError
from slmops.files import digest
from slmops.models.hub import first_line, hub_cache_dir, hub_endpoint, is_hub_id, is_switched_off, unreachable
from slmops.progress import say

if TYPE_CHECKING:
    from datasets import DatasetDict

_FILE_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".tab", ".parquet", ".arrow", ".txt", ".md", ".conll", ".py")


class HubSource(TableSource):
    """Rows of a data set on the hub, ``owner/name``.

    A data set that was fetched before is taken from the caches of ``datasets`` and of the hub's client (``HF_HOME``) where the hub
    is switched off (``HF_HUB_OFFLINE``) or cannot be reached. For private ones the token is taken that ``hf auth login`` stored.

    Args:
        id: Of the data set; what stands behind a colon is its configuration.
        config: Its configuration, where it has several.
        revision: Branch, tag or commit.
    """

    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+(:[\w.-]+)?$")
    config: str | None = None
    revision: str | None = None

    def fingerprint(self) -> str:
        """Hash of the options, of the commit that the data are from, and of further files."""
        options = self.model_dump(exclude={"pool", "validation", "test", "revision"})
        given = self._given()
        further = {role: part.digest() for role, part in self.tables().items() if part != given.get(role)}
        return digest([options, self._fetched[0], further])

    def _given(self) -> dict[str, Part]:
        name, _, _ = self.id.partition(":")
        return {split_name(split): Part(Path(name, split), files) for split, files in self._fetched[1].items()}

    @cached_property
    def _fetched(self) -> tuple[str, dict[str, tuple[Path, ...]]]:
        """The commit, and the Arrow files of each split."""
        name, _, config = self.id.partition(":")
        return fetch(name, self.config or config or None, self.revision)


def is_hub_data(reference: Path) -> bool:
    """Whether what ``--data_name`` names is a hub data set: no path, but ``owner/name``, perhaps with ``:configuration``."""
    if reference.exists() or reference.suffix.lower() in _FILE_ENDINGS or reference.parent.is_dir():
        return False
    return is_hub_id(str(reference).partition(":")[0])


def fetch(name: str, config: str | None, revision: str | None) -> tuple[str, dict[str, tuple[Path, ...]]]:
    """The commit of a data set's revision, and the Arrow files of its splits in the cache of ``datasets``.

    Raises:
        DataError: The hub has no such data set, configuration or revision, cannot be reached and nothing of it is cached, or its
            data cannot be read.
        MissingExtraError: ``datasets`` is not installed.
    """
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_UPDATE_DOWNLOAD_COUNTS="0")
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "hub", without="a local file: --data_name train.jsonl") from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    endpoint = hub_endpoint()
    problem = "HF_HUB_OFFLINE is set" if is_switched_off("HF_DATASETS_OFFLINE") else unreachable(endpoint)
    try:
        if problem is None:
            return _prepared(datasets.load_dataset(name, config, revision=revision))
        # What the variable of that name does: the cache alone is looked at.
        datasets.config.HF_HUB_OFFLINE = True
        found = _cached(name, config, revision)
    except Exception as error:  # besides its own errors the library lets those of the hub's client and of parsers through
        tried = f"{problem}, and it is not in the cache {hub_cache_dir().parent}" if problem else f"{endpoint} was asked"
        raise DataError(
            f"no path of this name is here, and as a hub data set it cannot be had: {tried} ({first_line(error)})",
            where=f"{name}:{config}" if config else name,
            fix="give a file or a folder (--data_name train.jsonl), or check name, configuration (--data_config) and, for a "
            "private one, the login (hf auth login)",
        ) from error
    say(f"  {name}: {problem}; taken from the cache, commit {found[0][:12]}")
    return found


def _cached(name: str, config: str | None, revision: str | None) -> tuple[str, dict[str, tuple[Path, ...]]]:
    """What is in the cache of ``datasets``, else what the hub's client fetched.

    Raises:
        FileNotFoundError: Nothing of the revision that is asked for.
    """
    import datasets

    repository = hub_cache_dir() / f"datasets--{name.replace('/', '--')}"
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    try:
        found = _prepared(datasets.load_dataset(name, config))
    except Exception:
        if commit is None or not (snapshot := repository / "snapshots" / commit).is_dir():
            raise
        return commit, _prepared(datasets.load_dataset(str(snapshot), config))[1]
    if revision is not None and found[0] != commit:
        raise FileNotFoundError(f"there is the commit {found[0]}, not the revision {revision}")
    return found


def _prepared(splits: DatasetDict) -> tuple[str, dict[str, tuple[Path, ...]]]:
    """The commit, which the folder in the cache is called by, and the Arrow files of each split."""
    files = {str(split): tuple(Path(file["filename"]) for file in rows.cache_files) for split, rows in splits.items()}
    (folder,) = {file.parent for of_split in files.values() for file in of_split}
    return folder.name, files
