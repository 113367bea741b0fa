"""What ``--data_name`` names, as the source of a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slmops.config import TEXT, build, plugin
from slmops.data.hub import is_hub_data
from slmops.data.sources import SOURCES, look_at
from slmops.errors import ConfigError


def named_source(data: Path, config: str | None = None) -> dict[str, Any]:
    """A hub data set, or a file or folder by its whole path.

    Raises:
        ConfigError: A configuration, and no hub data set.
    """
    if is_hub_data(data):
        return {"name": "hub", "id": str(data), **({"config": config} if config else {})}
    if config:
        raise ConfigError(f"only hub data sets have a configuration, {data} is a path", where="--data_config", fix="leave it out")
    return {"name": "files", "train": str(data.absolute())}


def open_named(source: Mapping[str, Any]) -> Any:
    """The source that options name.

    Raises:
        UsageError: No such source.
        ConfigError: An option it does not know.
    """
    name, options = plugin(source, where="data.source")
    return build(SOURCES.get(name), options, where=f"source {name!r}")


def detect_task(named: Mapping[str, Any], options: Mapping[str, Any], task_type: str | None) -> tuple[dict[str, Any], str, str]:
    """The source with its options, the kind of work, and what was taken for what, in words.

    Args:
        named: Of :func:`named_source`.
        options: Columns, template and splits, as the sources of tables call them.
        task_type: As a person named it; left out: ``text`` where the template has a single slot, else by the rows' answers.

    Raises:
        ConfigError: Texts with an answer.
        DataError: The data cannot be read, or its columns cannot be told apart.
    """
    slots = set(re.findall(r"\{(\w+)\}", options.get("text_template", "")))
    if (task_type or "").strip().casefold() == TEXT or (task_type is None and len(slots) == 1):
        if "answer_field" in options:
            raise ConfigError("texts have no answer", where="answer_field", fix="leave it out, or name another --task_type")
        reference = named.get("train") or ":".join(str(part) for part in (named["id"], named.get("config")) if part)
        renamed = {{"input_field": "text_field"}.get(name, name): value for name, value in options.items()}
        return {"name": "texts", "train": reference, **renamed}, TEXT, f"{reference}: texts without answers, learned as a whole"
    source = {**named, **options}
    detected = look_at(open_named(source))
    return source, task_type or detected.task_type, detected.describe()
