"""OpenVINO GenAI with continuous batching on the CPU: the fastest engine for many prompts at once."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slmops.errors import ModelError
from slmops.files import read_json
from slmops.models.fit import memory_available_mb, physical_cores
from slmops.models.load import load_tokenizer
from slmops.runtimes.base import Generation, RuntimeInfo, Sampling
from slmops.runtimes.decoding import Answer, check_prompt

# Importing openvino reports its use to a server, unless its package for that cannot be imported.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402
import openvino_genai  # noqa: E402

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTS = "model.gguf"
FACTS = "export.json"
"""Both as ``export.openvino`` writes them."""

_MAX_BATCH = 64
_MIN_TOKENS_A_STEP = 8192
_KEPT_TOKENS = 16_384
_KEPT_SHARE = 4
"""What is kept may fill a quarter of the available memory."""
_BLOCK = 32  # tokens; the engine's on a CPU
_STATE_BYTES = 2
_MIN_SHARING = 3  # prompts; below it, a step for one of them costs more than it saves


def open_runtime(path: Path, *, threads: int | None = None, reuse: bool = False) -> OpenvinoRuntime:
    """Load a folder as ``export.openvino`` writes it.

    Args:
        path: The folder.
        threads: Threads of an operator; ``None``: the engine's own choice.
        reuse: Keep what has been read of the latest prompts, so that the start that prompts share is read once. For many
            prompts of one kind; the room for it is fixed, and timings then depend on what was asked before.

    Raises:
        ModelError: The folder holds no such model, or one that the engine cannot read.
    """
    if not (path / WEIGHTS).is_file() or not (path / FACTS).is_file():
        raise ModelError(f"no {WEIGHTS} with its {FACTS} here", where=str(path), fix="convert the model for OpenVINO first")
    facts = read_json(path / FACTS)
    if facts["precision"] == "float16" and (threads or physical_cores()) == 1:
        # OpenVINO 2026.4 divides by zero there, which ends the process.
        raise ModelError("OpenVINO takes 16-bit weights with two threads or more", where=str(path), fix="convert it to int8")
    context = int(facts["context_length"])
    scheduler = openvino_genai.SchedulerConfig()
    # Whole prompts first, then one token of every row a step: a limit on rows then holds, and the batches are full.
    scheduler.dynamic_split_fuse = False
    scheduler.max_num_seqs = _MAX_BATCH
    scheduler.max_num_batched_tokens = max(context, _MIN_TOKENS_A_STEP)
    if reuse:
        # In room that grows, OpenVINO 2026.4 fails on kept prompts (openvino.genai, pull request 4051).
        scheduler.enable_prefix_caching = True
        scheduler.num_kv_blocks = _blocks(context, int(facts["state_values"]))
        context = min(context, scheduler.num_kv_blocks * _BLOCK)
    properties: dict[str, Any] = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        # The default, 8 bits, costs a third of a step at 64 rows, since every step expands all that is kept.
        properties["KV_CACHE_PRECISION"] = "bf16"
    try:
        pipeline = openvino_genai.ContinuousBatchingPipeline(str(path / WEIGHTS), scheduler, "CPU", properties)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"OpenVINO cannot load the model: {error}", where=str(path), fix="use another engine for it") from error
    info = RuntimeInfo("openvino-genai", str(facts["precision"]), context, batch_dependent=True)
    return OpenvinoRuntime(pipeline, load_tokenizer(path), info, frozenset(facts["end_ids"]), reuse=reuse)


def _blocks(context: int, state_values: int) -> int:
    """Room for what is kept; the memory is taken only as it fills."""
    fitting = int(memory_available_mb() * 1e6) // _KEPT_SHARE // (state_values * _STATE_BYTES)
    return max(1, min(fitting, max(context, _KEPT_TOKENS)) // _BLOCK)


class OpenvinoRuntime:
    """A loaded model.

    The engine gets token ids of the project's own tokenizer and gives token ids back; it renders no template, adds no token
    and cuts no text. Greedy answers depend on the batch where two tokens are about equally likely.
    """

    def __init__(
        self, pipeline: Any, tokenizer: PreTrainedTokenizerBase, info: RuntimeInfo, end_ids: frozenset[int], *, reuse: bool
    ) -> None:
        self.info = info
        self._pipeline, self._tokenizer, self._end_ids, self._reuse = pipeline, tokenizer, end_ids, reuse
        self._shared: list[int] = []  # the start that was read last for several prompts
        self._numbers = itertools.count()

    def tokenize(self, text: str) -> list[int]:
        """Token ids of rendered text, special tokens recognised, nothing added."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Generation]:
        """Answer prompts, in order.

        Raises:
            DataError: A prompt is empty or does not fit into the context.
        """
        rows = [self._checked(prompt, sampling) for prompt in prompts]
        answers = [self._answer(row, sampling) for row in rows]
        for _ in self._steps(rows, answers, sampling):
            pass
        return [answer.generation() for answer in answers]

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str | Generation]:
        """Answer one prompt: pieces of text, then the whole :class:`Generation`.

        Raises:
            DataError: The prompt is empty or does not fit into the context.
        """
        row = self._checked(prompt, sampling)
        answer = self._answer(row, sampling)
        for _ in self._steps([row], [answer], sampling):
            if piece := answer.take():
                yield piece
        yield answer.generation()

    def _checked(self, prompt: str, sampling: Sampling) -> list[int]:
        ids = self.tokenize(prompt)
        check_prompt(ids, sampling, self.info.context_length)
        return ids

    def _answer(self, row: Sequence[int], sampling: Sampling) -> Answer:
        return Answer(self._decode, self._end_ids, sampling, len(row))

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _steps(self, rows: Sequence[Sequence[int]], answers: Sequence[Answer], sampling: Sampling) -> Iterator[None]:
        """Let the engine work until all answers have ended; yields after each of its steps."""
        options = self._options(sampling)
        alone = self._reads_first(rows)
        waiting = []
        for row, answer in zip(rows, answers, strict=True):
            handle = self._pipeline.add_request(next(self._numbers), openvino.Tensor(np.array([row], np.int64)), options)
            waiting.append((answer, handle))
            if alone and len(waiting) == 1:
                self._pipeline.step()
        try:
            while waiting:
                self._pipeline.step()
                for answer, handle in waiting:
                    _read(answer, handle)
                waiting = [(answer, handle) for answer, handle in waiting if not answer.done]
                yield
        finally:
            for _, handle in waiting:
                handle.cancel()

    def _reads_first(self, rows: Sequence[Sequence[int]]) -> bool:
        """Whether the first row is to be read before the others, which then find the start that all share."""
        if not self._reuse or len(rows) < _MIN_SHARING:
            return False
        alike = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False))
        shared = [tokens[0] for tokens in alike]
        shared = shared[: len(shared) // _BLOCK * _BLOCK]
        if shared == self._shared[: len(shared)]:
            return False
        self._shared = shared
        return True

    def _options(self, sampling: Sampling) -> Any:
        drawn = sampling.temperature > 0
        options = openvino_genai.GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            stop_token_ids=set(self._end_ids),
            eos_token_id=min(self._end_ids),
            do_sample=drawn,
            apply_chat_template=False,
        )
        if drawn:
            options.temperature, options.top_p = sampling.temperature, sampling.top_p
            options.rng_seed = sampling.seed or 0
        return options


def _read(answer: Answer, handle: Any) -> None:
    """Move the tokens that have come to the answer; one that ends before the engine would end it is stopped."""
    while handle.can_read():
        for output in handle.read().values():
            for token in output.generated_ids:
                answer.push(token)
    if answer.done:
        handle.stop()
