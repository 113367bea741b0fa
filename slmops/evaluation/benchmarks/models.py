"""From what a user names to a model of the harness."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from slmops.errors import ModelError, UsageError
from slmops.evaluation.subjects import Subject

_HF, _SERVED = "hf", "a served model"
_PATIENCE_S = 30


def engine(subject: Subject) -> str:
    """What answers: ``hf`` is the harness's own class for model folders, others are runtimes and servers.

    Raises:
        UsageError: A teacher, of which the harness can ask nothing.
    """
    if subject.kind == "endpoint":
        return _SERVED
    if subject.kind == "folder":
        return _HF if subject.runtime == "torch" else str(subject.runtime)
    raise UsageError(
        "a benchmark asks a model folder, a catalogue name or the URL of a server",
        where=subject.reference,
        fix="for an API give the URL of its endpoint with the model, such as http://host:8000/v1#model",
    )


def tells_probabilities(subject: Subject) -> bool:
    """Whether it can run the tasks that compare the probabilities of given texts."""
    return engine(subject) == _HF


def open_lm(subject: Subject, *, batch_size: int, seed: int, chat: bool) -> Any:
    """The model as the harness takes it (``lm_eval.api.model.LM``), loaded.

    Args:
        subject: The model.
        batch_size: Requests at once.
        seed: For what is drawn.
        chat: Ask a server's chats rather than its completions.

    Raises:
        ModelError: It cannot be loaded or reached.
    """
    if subject.kind == "endpoint":
        return _served(subject.reference, batch_size, seed, chat)
    assert subject.path is not None, "a folder has a path"
    if engine(subject) == _HF:
        return _transformers(subject.path, batch_size)
    from slmops.data.chat import ChatTemplate
    from slmops.evaluation.benchmarks.runtime_lm import RuntimeLM
    from slmops.export.card import BundleCard
    from slmops.runtimes.base import open_runtime

    card = BundleCard.read(subject.path)
    template = card.chat_template if card else ChatTemplate.load(subject.path)
    return RuntimeLM(open_runtime(engine(subject), subject.path), template, batch_size=batch_size, seed=seed)


def _transformers(path: Path, batch_size: int) -> Any:
    from slmops.models.load import quiet_transformers

    quiet_transformers()
    import torch
    from lm_eval.models.huggingface import HFLM

    try:
        return HFLM(
            pretrained=str(path),
            dtype="float32",
            device="cuda" if torch.cuda.is_available() else "cpu",
            batch_size=batch_size,
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"the model cannot be loaded: {error}", where=str(path)) from error


def _served(reference: str, batch_size: int, seed: int, chat: bool) -> Any:
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

    base, _, name = reference.partition("#")
    base = base.rstrip("/")
    options: dict[str, Any] = {
        "model": name or _only_model(base),
        # Without headers of its own the harness would send OPENAI_API_KEY to whatever server is named.
        "header": {"Authorization": "Bearer none"},
        "eos_string": "<|endoftext|>",
        "seed": seed,
    }
    if chat:
        return LocalChatCompletion(base_url=f"{base}/chat/completions", **options)
    return LocalCompletionsAPI(
        base_url=f"{base}/completions", tokenizer_backend=None, tokenized_requests=False, batch_size=batch_size, **options
    )


def _only_model(base: str) -> str:
    try:
        with urllib.request.urlopen(f"{base}/models", timeout=_PATIENCE_S) as response:
            names = [str(model["id"]) for model in json.load(response)["data"]]
    except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError) as error:
        fix = "start it, or name the model: URL#model"
        raise ModelError(f"the server does not say which models it has: {error}", where=f"{base}/models", fix=fix) from error
    if len(names) != 1:
        raise ModelError(f"the server has {len(names)} models", where=base, fix=f"name one: {base}#MODEL of {', '.join(names)}")
    return names[0]
