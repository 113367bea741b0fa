"""What all engines share while they answer: checks of a prompt, text out of token ids, when to stop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from slmops.errors import DataError
from slmops.runtimes.base import Generation, Sampling

REPLACEMENT = "\ufffd"
"""What tokenizers put where the bytes so far are no whole character."""


def check_prompt(token_ids: Sequence[int], sampling: Sampling, context_length: int) -> None:
    """Refuse a prompt that leaves no room for the answer; nothing is ever cut off silently.

    Raises:
        DataError: The prompt is empty, or prompt and answer are longer than the context.
    """
    if not token_ids:
        raise DataError("the prompt is empty", fix="a prompt needs at least one token")
    if sampling.max_new_tokens < 1:
        raise DataError(f"an answer of {sampling.max_new_tokens} tokens is asked for", fix="max_new_tokens is at least 1")
    if len(token_ids) + sampling.max_new_tokens > context_length:
        raise DataError(
            f"the prompt has {len(token_ids)} tokens and the answer may have {sampling.max_new_tokens}, "
            f"but the context holds {context_length}",
            fix="shorten the prompt or lower max_new_tokens",
        )


class Answer:
    """One answer while it is generated.

    Text is read from the ids in a moving window, so that a character of several tokens and the spaces some tokenizers
    put before a word come out as in the text decoded at once (the method of Hugging Face's text-generation-inference).
    The ids of a stop string stay in ``token_ids``, since they were generated; the text ends before it.

    Args:
        decode: Token ids to text without special tokens.
        end_ids: Tokens that end an answer.
        sampling: Limits and stop strings.
        prompt_tokens: For the :class:`Generation`.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], end_ids: Collection[int], sampling: Sampling, prompt_tokens: int
    ) -> None:
        self._decode, self._end_ids, self._prompt_tokens = decode, end_ids, prompt_tokens
        self._limit = sampling.max_new_tokens
        self._stop = tuple(text for text in sampling.stop if text)
        self._ids: list[int] = []
        self._reason: str | None = None
        self._text = ""
        self._window, self._read_to = 0, 0
        self._cut = False
        self._taken = 0

    @property
    def done(self) -> bool:
        """Whether the answer has ended."""
        return self._reason is not None

    def push(self, token_id: int) -> None:
        """Add the next token; tokens after the end are ignored."""
        if self.done:
            return
        if token_id in self._end_ids:
            self._reason = "stop"
            return
        self._ids.append(token_id)
        if self._stop:
            self._read()
            self._cut_at_stop()
        if not self.done and len(self._ids) >= self._limit:
            self._reason = "length"

    def take(self) -> str:
        """Text since the last call that later tokens cannot change; after the end, all that is left."""
        if self.done:
            end = len(self._whole())
        else:
            self._read()
            end = len(self._text) - self._held_back()
        piece = self._text[self._taken : end]
        self._taken = max(self._taken, end)
        return piece

    def generation(self) -> Generation:
        """The finished answer."""
        return Generation(self._whole(), tuple(self._ids), self._reason or "length", self._prompt_tokens)

    def _read(self) -> None:
        known = self._decode(self._ids[self._window : self._read_to])
        text = self._decode(self._ids[self._window :])
        if len(text) > len(known) and not text.endswith(REPLACEMENT):
            self._text += text[len(known) :]
            self._window, self._read_to = self._read_to, len(self._ids)

    def _cut_at_stop(self) -> None:
        places = [place for place in (self._text.find(stop) for stop in self._stop) if place >= 0]
        if places:
            self._text, self._cut, self._reason = self._text[: min(places)], True, "stop"

    def _held_back(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for count in range(min(longest, len(self._text)), 0, -1):
            if any(stop.startswith(self._text[-count:]) for stop in self._stop):
                return count
        return 0

    def _whole(self) -> str:
        if not self._cut:
            whole = self._decode(self._ids)
            # What was handed out cannot be taken back, should a tokenizer decode a whole differently from its parts.
            self._text = whole if whole.startswith(self._text[: self._taken]) else self._text
        return self._text


def run_batch(answers: Sequence[Answer], tokens: Iterable[Sequence[int]]) -> list[Generation]:
    """Feed the next token of every row to its answer, step by step, until all have ended."""
    for step in tokens:
        for answer, token in zip(answers, step, strict=True):
            answer.push(token)
        if all(answer.done for answer in answers):
            break
    return [answer.generation() for answer in answers]


def run_stream(answer: Answer, tokens: Iterable[Sequence[int]]) -> Iterator[str | Generation]:
    """The same for one row: pieces of text as they are certain, then the whole answer."""
    for step in tokens:
        answer.push(step[0])
        if piece := answer.take():
            yield piece
        if answer.done:
            break
    yield answer.generation()
