"""The contract of an engine: what ``check_runtime`` asserts, any runtime, also a third party's, has to keep."""

from __future__ import annotations

from pathlib import Path

from slmops.data.chat import ChatTemplate
from slmops.errors import DataError
from slmops.runtimes.base import Generation, OpenRuntime, Runtime, Sampling

TEXTS = ("hi", "where is my parcel", "please refund the money for the shoes I sent back last week 🎉")


def check_runtime(open_fn: OpenRuntime, folder: Path) -> None:
    """Assert the contract of :class:`slmops.runtimes.base.Runtime` on a model folder with a chat template.

    Raises:
        AssertionError: The engine breaks the contract; the message says in what.
    """
    runtime = open_fn(folder, threads=1)
    prompts = [ChatTemplate.load(folder).render([{"role": "user", "content": text}]) for text in TEXTS]
    greedy = Sampling(max_new_tokens=8)
    alone = [runtime.generate([prompt], greedy)[0] for prompt in prompts]
    _check_answers(runtime, prompts, alone, greedy)
    _check_stream(runtime, prompts, alone, greedy)
    _check_stop(runtime, prompts, alone)
    _check_sampling(runtime, prompts)
    _check_limits(runtime, prompts[0])
    assert runtime.generate([], greedy) == [], "no prompts must give no answers"
    if not runtime.info.batch_dependent:
        assert runtime.generate(prompts, greedy) == alone, "answers depend on the batch, though info says they do not"


def _check_answers(runtime: Runtime, prompts: list[str], alone: list[Generation], sampling: Sampling) -> None:
    for prompt, answer in zip(prompts, alone, strict=True):
        assert answer.prompt_tokens == len(runtime.tokenize(prompt)), "prompt_tokens is not the length of the prompt"
        assert len(answer.token_ids) <= sampling.max_new_tokens, "more tokens than asked for"
        full = len(answer.token_ids) == sampling.max_new_tokens
        assert answer.finish_reason == ("length" if full else "stop"), "finish_reason does not fit the number of tokens"


def _check_stream(runtime: Runtime, prompts: list[str], alone: list[Generation], sampling: Sampling) -> None:
    for prompt, answer in zip(prompts, alone, strict=True):
        *pieces, last = runtime.stream(prompt, sampling)
        assert last == answer, "a stream ends with another answer than generate gives"
        assert "".join(str(piece) for piece in pieces) == answer.text, "the pieces of a stream are not its text"


def _check_stop(runtime: Runtime, prompts: list[str], alone: list[Generation]) -> None:
    for prompt, answer in zip(prompts, alone, strict=True):
        if len(answer.text) < 3 or "\ufffd" in answer.text:
            continue
        stop = answer.text[1:3]
        cut = answer.text[: answer.text.index(stop)]
        sampling = Sampling(max_new_tokens=8, stop=(stop,))
        stopped = runtime.generate([prompt], sampling)[0]
        assert (stopped.text, stopped.finish_reason) == (cut, "stop"), "a stop string does not end the answer before it"
        *pieces, last = runtime.stream(prompt, sampling)
        assert last == stopped, "a stream stops elsewhere"
        assert "".join(str(piece) for piece in pieces) == cut, "a stream lets a stop string out"


def _check_sampling(runtime: Runtime, prompts: list[str]) -> None:
    def drawn(seed: int) -> list[Generation]:
        return runtime.generate(prompts, Sampling(max_new_tokens=8, temperature=1.0, top_p=0.9, seed=seed))

    assert drawn(1) == drawn(1), "equal seeds give different answers"
    assert any(drawn(1) != drawn(seed) for seed in (2, 3, 4)), "sampling does not depend on the seed"


def _check_limits(runtime: Runtime, prompt: str) -> None:
    room = runtime.info.context_length - len(runtime.tokenize(prompt))
    for text, tokens, what in ((prompt, room + 1, "too long an answer"), ("", 1, "an empty prompt"), (prompt, 0, "no tokens")):
        for call in (runtime.generate, lambda texts, sampling: list(runtime.stream(texts[0], sampling))):
            try:
                call([text], Sampling(max_new_tokens=tokens))
            except DataError:
                continue
            raise AssertionError(f"{what} is not refused with a DataError")
