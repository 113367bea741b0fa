"""ONNX Runtime GenAI on the CPU: the engine of exported models, with or without adapters. Needs neither torch nor transformers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slmops.errors import ModelError
from slmops.export.adapter_set import AdapterSet
from slmops.files import read_json
from slmops.runtimes.base import Generation, RuntimeInfo, Sampling
from slmops.runtimes.decoding import Answer, check_prompt, run_batch, run_stream

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded

import onnxruntime_genai as og

CONFIG = "genai_config.json"
EXPORT_FACTS = "export.json"
"""Written beside the model by ``export.onnx``; has the scheme."""

_MAX_BATCH = 32  # the library's own limit of a static batch


def open_runtime(path: Path, *, threads: int | None = None) -> OrtGenaiRuntime:
    """Load a folder with ``genai_config.json``, as ``export.onnx`` writes it.

    Args:
        path: The folder.
        threads: Threads of an operator; ``None``: one a physical core.

    Raises:
        ModelError: The folder holds no such model, or a damaged one.
    """
    og.disable_telemetry_events()
    file = path / CONFIG
    if not file.is_file():
        raise ModelError(f"no {CONFIG} here", where=str(path), fix="give the package folder of a finished run")
    try:
        settings = read_json(file)
        config = og.Config(str(path))
        if threads is not None:
            config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        model = og.Model(config)
        tokenizer = og.Tokenizer(model)
        context = min(settings["search"]["max_length"], settings["model"]["context_length"])
        adapters = _adapters(model, path)
        pad = settings["model"]["pad_token_id"]
        ends = settings["model"]["eos_token_id"]
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the model cannot be loaded: {error}", where=str(path), fix="convert it again") from error
    end_ids = frozenset([*(ends if isinstance(ends, list) else [ends]), *map(int, tokenizer.eos_token_ids)])
    facts = path / EXPORT_FACTS
    precision = str(read_json(facts)["scheme"]) if facts.is_file() else "unknown"
    info = RuntimeInfo("ort-genai", precision, context, batch_dependent=False)
    return OrtGenaiRuntime(model, tokenizer, info, end_ids, pad, adapters)


def _adapters(model: Any, path: Path) -> Any:
    """The adapters of a package, loaded; their weights are mapped from their files."""
    adapters = og.Adapters(model)
    known = AdapterSet.read(path)
    for entry in known.adapters if known is not None else ():
        adapters.load(str(path / entry.file), entry.name)
    return adapters


class OrtGenaiRuntime:
    """A loaded model.

    Prompts of a batch are padded on the right, which is what the library expects: it finds each row's length by
    counting pad tokens from the end. Rows are grouped by length, at most 32 together; answers do not depend on that.

    Args:
        model: The library's model.
        tokenizer: The library's tokenizer.
        info: Facts.
        end_ids: Tokens that end an answer.
        pad_id: Token that pads.
        adapters: The library's adapters of this model.
        adapter: Name of the one that answers; ``None``: the base.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        info: RuntimeInfo,
        end_ids: frozenset[int],
        pad_id: int,
        adapters: Any,
        adapter: str | None = None,
    ) -> None:
        self.info = info
        self._model, self._tokenizer = model, tokenizer
        self._end_ids, self._pad_id = end_ids, pad_id
        self._adapters, self._adapter = adapters, adapter

    def with_adapter(self, name: str) -> OrtGenaiRuntime:
        """The same loaded model, answering with an adapter of its package; weights are shared, nothing is loaded."""
        return OrtGenaiRuntime(self._model, self._tokenizer, self.info, self._end_ids, self._pad_id, self._adapters, name)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of rendered text, special tokens recognised, nothing added."""
        ids: list[int] = self._tokenizer.encode(text).tolist()
        return ids

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Generation]:
        """Answer prompts, in order.

        Raises:
            DataError: A prompt is empty or does not fit into the context.
        """
        rows = [self._checked(prompt, sampling) for prompt in prompts]
        found: dict[int, Generation] = {}
        for group in self._groups(rows):
            batch = [rows[index] for index in group]
            answers = [Answer(self._decode, self._end_ids, sampling, len(row)) for row in batch]
            found.update(zip(group, run_batch(answers, self._tokens(batch, sampling)), strict=True))
        return [found[index] for index in range(len(rows))]

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str | Generation]:
        """Answer one prompt: pieces of text, then the whole :class:`Generation`.

        Raises:
            DataError: The prompt is empty or does not fit into the context.
        """
        row = self._checked(prompt, sampling)
        answer = Answer(self._decode, self._end_ids, sampling, len(row))
        yield from run_stream(answer, self._tokens([row], sampling))

    def _checked(self, prompt: str, sampling: Sampling) -> list[int]:
        ids = self.tokenize(prompt)
        check_prompt(ids, sampling, self.info.context_length)
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(np.asarray(ids, dtype=np.int32)))

    def _groups(self, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Indices of rows that run together; a row that ends in the pad token would lose it in a batch and runs alone."""
        alone = [index for index, row in enumerate(rows) if row[-1] == self._pad_id]
        others = sorted(set(range(len(rows))) - set(alone), key=lambda index: (len(rows[index]), index))
        yield from ([index] for index in alone)
        for start in range(0, len(others), _MAX_BATCH):
            yield others[start : start + _MAX_BATCH]

    def _tokens(self, batch: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[list[int]]:
        """The next token of every row, step by step; a row that has ended gives pad tokens."""
        width = max(map(len, batch))
        options = og.GeneratorParams(self._model)
        options.set_search_options(
            batch_size=len(batch),
            # The key-value cache is allocated for this length, so it is no longer than the request needs.
            max_length=width + sampling.max_new_tokens,
            min_length=0,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            do_sample=sampling.temperature > 0,
            temperature=sampling.temperature or 1.0,
            top_p=sampling.top_p,
            top_k=0,
            random_seed=-1 if sampling.seed is None else sampling.seed,
        )
        generator = og.Generator(self._model, options)
        if self._adapter is not None:
            generator.set_active_adapter(self._adapters, self._adapter)
        padded = np.full((len(batch), width), self._pad_id, dtype=np.int32)
        for row, ids in zip(padded, batch, strict=True):
            row[: len(ids)] = ids
        generator.append_tokens(padded)
        while not generator.is_done():
            generator.generate_next_token()
            yield generator.get_next_tokens().tolist()
