"""From what a recipe says to a teacher that can be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.config import build, plugin
from slmops.data.rows import Row
from slmops.files import file_digest
from slmops.tasks.base import Task
from slmops.teachers.api import ApiTeacher
from slmops.teachers.base import Teacher
from slmops.teachers.combiners import COMBINERS, Combiner, Tools
from slmops.teachers.masking import finder_names
from slmops.teachers.recorded import RecordedTeacher
from slmops.teachers.remote import RemoteTeacher
from slmops.teachers.replies import AskParams
from slmops.teachers.spec import Member, TeacherSpec
from slmops.teachers.weights import Load, WeightsTeacher

if TYPE_CHECKING:
    from slmops.data.templates import Template
    from slmops.teachers.local import LocalTeacher

REQUESTS = "requests.sqlite"
"""Name of the file with the answers that were paid for, one a workspace or folder of answers."""

_CHUNK_ROWS = 16


def open_teacher(
    spec: TeacherSpec,
    task: Task,
    *,
    cache: Path,
    template: Callable[[Path], Template] | None = None,
    precision: str = "auto",
    engine: str = "auto",
    chunk_rows: int = _CHUNK_ROWS,
) -> Teacher:
    """The teacher that a recipe names: an API, a model on this machine, recorded answers, or an ensemble of these.

    Nothing is sent, fetched or loaded yet, and no key is needed.

    Args:
        spec: Who answers.
        task: Reads, verifies and compares answers.
        cache: File of the answers that were paid for.
        template: How a model folder on this machine renders prompts; without it, by its own template.
        precision: Type in which models on this machine compute.
        engine: What runs them: a runtime's name, or ``auto``.
        chunk_rows: Rows a batch of a model on this machine.

    Raises:
        UsageError: Nothing is known by a name.
        ConfigError: An option is wrong, or the members do not go together.
        ModelError: A model cannot be fetched or used.
        DataError: A file holds no recorded answer.
    """
    finders = finder_names(spec.finders) if spec.mask_personal_data else ()

    together: list[RemoteTeacher] = []

    def load(member: Member) -> LocalTeacher:
        from slmops.models.resolve import resolve
        from slmops.teachers.local import LocalTeacher

        model = resolve(member.model)
        return LocalTeacher.load(model.path, (template or _own_template)(model.path), precision)

    def fitting(member: Member) -> Load:
        def load_for(rows: Sequence[Row], params: AskParams, work: Path) -> LocalTeacher:
            from slmops.models.resolve import resolve
            from slmops.teachers.local import LocalTeacher

            folder = resolve(member.model).path
            rendered = (template or _own_template)(folder)
            return LocalTeacher.fitting(
                folder, rendered, precision, engine=engine, rows=rows, max_new_tokens=params.max_new_tokens, work=work
            )

        return load_for

    def open_member(member: Member) -> Teacher:
        kind = member.kind
        if kind == "recorded":
            return RecordedTeacher.read(member.files)
        if kind == "api":
            together.append(RemoteTeacher(ApiTeacher.find(member.model, member.api), cache, spec.requests, finders, together))
            return together[-1]
        return WeightsTeacher(member.model, lambda: _weights(member.model, precision), fitting(member), chunk_rows)

    if spec.combine is None:
        return open_member(spec.members[0])
    name, options = plugin(spec.combine, where="combine")
    combiner: Combiner = build(COMBINERS.get(name), options, where=f"combine {name!r}")
    return combiner.over(spec.members, Tools(task, open_member, load, chunk_rows))


def identity_of(spec: TeacherSpec) -> dict[str, Any]:
    """What determines the answers of a teacher, without opening it; models that are not here yet are said to be so.

    Raises:
        UsageError: Nothing is known by a name.
    """
    finders = list(finder_names(spec.finders)) if spec.mask_personal_data else []
    return {
        "members": [_member_identity(member) for member in spec.members],
        "combine": spec.combine,
        "masked_by": finders if any(member.kind == "api" for member in spec.members) else [],
    }


def _member_identity(member: Member) -> dict[str, Any]:
    shape = {**member.model_dump(mode="json", include={"weight", "when"}), "top_logprobs": member.api.top_logprobs}
    if member.kind == "recorded":
        return {**shape, "files": sorted(file_digest(file) for file in member.files)}
    if member.kind == "api":
        return {**shape, **ApiTeacher.find(member.model, member.api).model.identity}
    from slmops.models.resolve import ResolvedModel, find

    found = find(member.model)
    return {**shape, "model": member.model, "fingerprint": found.fingerprint if isinstance(found, ResolvedModel) else None}


def _weights(reference: str, precision: str) -> dict[str, str]:
    from slmops.models.resolve import resolve

    model = resolve(reference)
    return {"model": model.reference, "fingerprint": model.fingerprint, "precision": precision}


def _own_template(model: Path) -> Template:
    from slmops.data.templates import choose_template
    from slmops.models.load import load_tokenizer

    return choose_template(load_tokenizer(model), "own")
