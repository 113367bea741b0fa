"""What can be evaluated, and how a user names it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slmops.config import build
from slmops.data.chat import PLAIN, ChatTemplate, template_text, token_text
from slmops.errors import UsageError
from slmops.export.card import BundleCard
from slmops.files import digest, read_json
from slmops.models.cache import cached_digest
from slmops.models.classifier import is_classifier
from slmops.runtimes.base import Runtime
from slmops.runtimes.folders import engine_of, known_engine, served_folder
from slmops.teachers.spec import Member, TeacherSpec

Kind = Literal["folder", "endpoint", "teacher", "loaded"]

_NAMED = re.compile(r"^([A-Za-z][\w.-]*)=(.+)$", re.DOTALL)
_URL = re.compile(r"^https?://")
_REPORT = "report.json"
_USUAL_CONTEXT = 2048


@dataclass(frozen=True)
class Subject:
    """One model of an evaluation.

    Args:
        name: Its row in the comparison.
        reference: As the user named it.
        kind: A model ``folder`` on this machine, an OpenAI-compatible ``endpoint``, a ``teacher``, which is an API of the catalogue
            or recorded answers, or a model that is ``loaded`` already.
        fingerprint: What tells it from others.
        source: Where it comes from.
        license: Its licence or terms, if they are known.
        path: Folder of the model.
        runtime: Registry name of its engine.
        task_type: The task that it was made for, where it says so.
        labels: The answers that it was made for.
        seed: Number of the training seed, where several models are one with other seeds.
    """

    name: str
    reference: str
    kind: Kind
    fingerprint: str
    source: str
    license: str = "unknown"
    path: Path | None = None
    runtime: str | None = None
    task_type: str | None = None
    labels: tuple[str, ...] = ()
    seed: int = 0

    @property
    def key(self) -> str:
        """Its name, with the number of the seed where that is not the first."""
        return self.name if self.seed == 0 else f"{self.name}.seed{self.seed}"


@dataclass(frozen=True)
class Loaded:
    """A model that is in memory already, and how conversations become its prompts."""

    runtime: Runtime
    chat: ChatTemplate

    @classmethod
    def of(cls, given: Any) -> Loaded:
        """From ``(model, tokenizer)`` of transformers, or a pipeline of it, which has both.

        Raises:
            UsageError: It is neither.
        """
        pair = isinstance(given, tuple) and len(given) == 2
        model, tokenizer = given if pair else (getattr(given, "model", None), getattr(given, "tokenizer", None))
        if model is None or not hasattr(model, "forward") or not callable(tokenizer):
            raise UsageError(
                f"a {type(given).__name__} cannot be evaluated",
                fix="give a path, a name, a URL, or (model, tokenizer) of transformers",
            )
        from slmops.runtimes.torch_runtime import TorchRuntime

        context = int(getattr(model.config, "max_position_embeddings", None) or _USUAL_CONTEXT)
        jinja = template_text(tokenizer.chat_template) or PLAIN
        chat = ChatTemplate(jinja, token_text(tokenizer.bos_token), token_text(tokenizer.eos_token))
        return cls(TorchRuntime(model.eval(), tokenizer, context), chat)

    @property
    def subject(self) -> Subject:
        """It as the only model of an evaluation; nothing tells whether it was measured before, so it always is."""
        return Subject("model", "a loaded model", "loaded", uuid.uuid4().hex, "memory", runtime="torch")


def subjects_of(references: Sequence[str]) -> list[Subject]:
    """The models that a user names, in order; each ``REFERENCE`` or ``NAME=REFERENCE``.

    A reference is the folder of a run, of a package or of a model, a catalogue name, a hub id, a ``.gguf`` file, the URL of an
    OpenAI-compatible server (``http://host:8000/v1``, or ``…/v1#model``), an API teacher such as ``gpt-4o``, or a file of
    recorded answers. A name that comes several times is one model trained with several seeds.

    Raises:
        UsageError: Nothing is named, or nothing is known by a name.
        ModelError: A model cannot be found or used.
    """
    if not references:
        raise UsageError("no model is named", fix="name a folder, a model, or the URL of a server")
    given = [_split(text) for text in references]
    found: list[Subject] = []
    for name, reference in given:
        own = name or _unused(_short(reference), [one.name for one in found] + [other for other, _ in given if other])
        seed = sum(one.name == own for one in found)
        found.append(_subject(own, reference, seed))
    return found


def _split(text: str) -> tuple[str | None, str]:
    match = _NAMED.match(text)
    if match is None or Path(text).exists():
        return None, text
    return match[1], match[2]


def _short(reference: str) -> str:
    """A row's name from a reference: its last part."""
    last = re.sub(r"[#?].*$", "", reference).rstrip("/").rpartition("/")[2] if not _URL.match(reference) else "served"
    plain = re.sub(r"[^\w.-]+", "-", last.removesuffix(".jsonl").removesuffix(".gguf")).strip("-.").lower()
    return plain if plain[:1].isalpha() else f"model-{plain}" if plain else "model"


def _unused(name: str, taken: Sequence[str]) -> str:
    numbered = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 3))]
    return next(one for one in numbered if one not in taken)


def _subject(name: str, reference: str, seed: int) -> Subject:
    if _URL.match(reference):
        return Subject(name, reference, "endpoint", digest(reference), reference.partition("#")[0], seed=seed)
    path = Path(reference).expanduser()
    if path.is_dir():
        return _folder(name, reference, path, seed)
    member = build(TeacherSpec, {"members": [{"model": reference}]}, where=reference).members[0]
    kind = _teacher_kind(member)
    if kind == "recorded":
        files = [cached_digest(file) for file in member.files]
        return Subject(name, reference, "teacher", digest(files), "recorded answers", seed=seed)
    if kind == "api":
        return Subject(name, reference, "teacher", digest(["api", reference]), "API", seed=seed)
    from slmops.models.resolve import resolve

    model = resolve(reference)
    return Subject(name, reference, "folder", model.fingerprint, model.source, model.license, model.path, "torch", seed=seed)


def _teacher_kind(member: Member) -> str:
    try:
        return member.kind
    except UsageError:  # as a model it is refused with words that fit
        return "local"


def _folder(name: str, reference: str, path: Path, seed: int) -> Subject:
    place = served_folder(path)
    engine = engine_of(place)
    license_name = "unknown"
    if engine == "torch" and not is_classifier(place):
        from slmops.models.resolve import resolve

        license_name = resolve(place).license
    files = sorted(file for file in place.iterdir() if file.is_file())
    fingerprint = digest([[file.name, cached_digest(file)] for file in files])
    card = BundleCard.read(place)
    task_type = card.task_type if card else _reported_task(path)
    labels = card.labels if card else ()
    return Subject(name, reference, "folder", fingerprint, str(path), license_name, place, engine, task_type, labels, seed)


def _reported_task(run: Path) -> str | None:
    """The task of a run, from its report."""
    file = run / _REPORT
    return str(read_json(file).get("task_type")) if file.is_file() and known_engine(run) is None else None
