"""What several answerings cost and met, added up.

Facts of one teacher are ``teacher`` (its identity), and where it is behind an API ``calls``, ``prompt_tokens``,
``completion_tokens``, ``cost``, ``lost``, ``faults`` and ``masked``. Those of several have the same sums and ``members``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from slmops.files import canonical

SUMS = ("calls", "prompt_tokens", "completion_tokens", "cost", "lost")
_COUNTS = ("faults", "masked")


def merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts of several answerings as one.

    What a teacher has cost is counted from the beginning of its cache, so of two answerings by one teacher the higher figures
    stand; those of different teachers are added. Faults are counted by answering, so they are added in any case.
    """
    teachers: dict[str, dict[str, Any]] = {}
    others: dict[str, Any] = {}
    for facts in parts:
        for one in facts.get("members") or [facts]:
            key = canonical(one.get("teacher"))
            teachers[key] = _together(teachers[key], one) if key in teachers else dict(one)
        if "members" in facts:
            others = {name: value for name, value in facts.items() if name not in (*SUMS, *_COUNTS, "members")} | others
    members = list(teachers.values())
    if len(members) < 2:
        return {**(members[0] if members else {}), **others}
    sums: dict[str, Any] = {name: sum(one.get(name, 0) for one in members) for name in SUMS if _any_has(members, name)}
    counts = {name: dict(sum((Counter(one.get(name, {})) for one in members), Counter())) for name in _COUNTS}
    return {**others, **sums, **{name: value for name, value in counts.items() if _any_has(members, name)}, "members": members}


def _any_has(members: Iterable[Mapping[str, Any]], name: str) -> bool:
    return any(name in one for one in members)


def _together(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Two answerings by one teacher; of what was masked, the rows of the second are among those of the first."""
    joined = {**b, **a}
    for name in SUMS:
        if name in a or name in b:
            joined[name] = max(a.get(name, 0), b.get(name, 0))
    if "faults" in joined:
        joined["faults"] = dict(Counter(a.get("faults", {})) + Counter(b.get("faults", {})))
    if "masked" in joined:
        joined["masked"] = dict(Counter(a.get("masked", {})) | Counter(b.get("masked", {})))
    return joined
