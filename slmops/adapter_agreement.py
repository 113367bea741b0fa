"""How far a package with several adapters answers as each of them merged alone does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.artifact import Artifact, is_complete
from slmops.data.chat import ChatTemplate
from slmops.export.adapter_set import AdapterSet, Agreement
from slmops.models.adapter import Adapter
from slmops.models.resolve import ResolvedModel, resolve
from slmops.progress import say
from slmops.runtimes.base import Sampling, open_runtime
from slmops.stages.context import rows_of
from slmops.workspace import StageResult

if TYPE_CHECKING:
    from slmops.data.rows import Message
    from slmops.runtimes.base import Runtime

_GREEDY = Sampling(max_new_tokens=32)
_SHOWN = 3

_QUESTIONS = (
    "Where is my parcel?",
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "How do I change my address?",
    "Name three colours.",
    "Translate 'good morning' into Spanish.",
    "What is 7 plus 5?",
    "Please cancel my order.",
)


def compare_adapters(found: AdapterSet, staged: Path, model: ResolvedModel, adapters: Sequence[Adapter], rows: int) -> AdapterSet:
    """The set with how far its answers are those of the models it stands for.

    Questions are validation rows of the run that trained an adapter, else general ones.

    Args:
        found: The set, in ``staged`` too.
        staged: The package.
        model: The base.
        adapters: Those of the set, in its order.
        rows: Most questions an adapter.
    """
    from slmops.runtimes.ort_genai import open_runtime as open_package

    package = open_package(staged)
    general = [[{"role": "user", "content": text}] for text in _QUESTIONS[:rows]]
    say("  comparing the base")
    template = ChatTemplate.load(staged)
    base = _agreement(model.path, package, template, _Questions("general questions", general))
    entries = []
    for entry, adapter in zip(found.adapters, adapters, strict=True):
        say(f"  comparing {entry.name}")
        own = _validation(adapter.path, rows)
        questions = _Questions("validation rows", own) if own else _Questions("general questions", general)
        merged = resolve(adapter.path).path
        agreement = _agreement(merged, package.with_adapter(entry.name), entry.chat_template, questions)
        entries.append(entry.model_copy(update={"agreement": agreement}))
    return found.model_copy(update={"agreement": base, "adapters": tuple(entries)})


@dataclass(frozen=True)
class _Questions:
    kind: str
    messages: Sequence[Sequence[Message]]


def _validation(adapter: Path, rows: int) -> list[Sequence[Message]]:
    """Questions of the rows that a run of ours held out."""
    folders = [folder for folder in (adapter.parent / "artifacts").glob("data-*") if is_complete(folder)]
    newest = max((Artifact.load(folder) for folder in folders), key=lambda data: data.manifest.created, default=None)
    if newest is None:
        return []
    return [row.messages for row in rows_of(StageResult(newest.id, newest.path), "validation")[:rows]]


def _agreement(reference: Path, package: Runtime, template: ChatTemplate, questions: _Questions) -> Agreement:
    fitting = package.info.context_length - _GREEDY.max_new_tokens
    messages = [turns for turns in questions.messages if len(package.tokenize(template.render(turns))) <= fitting]
    prompts = [template.render(turns) for turns in messages]
    exact, own = open_runtime("torch", reference), ChatTemplate.load(reference)
    known = [own.render(turns) for turns in messages]
    pairs = list(zip(prompts, exact.generate(known, _GREEDY), package.generate(prompts, _GREEDY), strict=True))
    # Tokens and not texts: engines decode parts of characters differently.
    different = [(prompt, left.text, right.text) for prompt, left, right in pairs if left.token_ids != right.token_ids]
    return Agreement(
        rows=len(pairs),
        equal=len(pairs) - len(different),
        same_tokens=[exact.tokenize(text) for text in known] == [package.tokenize(text) for text in prompts],
        questions=questions.kind,
        different=tuple(different[:_SHOWN]),
    )
