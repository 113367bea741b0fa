"""A loaded runtime as a model of the harness; needs the extra ``benchmarks``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from slmops.data.chat import ChatTemplate
from slmops.errors import DataError, UsageError
from slmops.progress import progress
from slmops.runtimes.base import Runtime, Sampling

_LONGEST_ANSWER = 256
"""Tokens, where a task gives no limit: the harness's own default."""


class RuntimeLM(LM):
    """Answers the tasks that let a model write; engines that give no log-probabilities refuse the others.

    Args:
        runtime: The loaded model.
        template: How chats become prompts, for tasks that are asked as chats.
        batch_size: Prompts at once.
        seed: For tasks that sample.
    """

    tokenizer_name = "slmops"

    def __init__(self, runtime: Runtime, template: ChatTemplate, *, batch_size: int = 1, seed: int = 0) -> None:
        super().__init__()
        self._runtime, self._template, self._batch_size, self._seed = runtime, template, batch_size, seed

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The answers to prompts, up to each task's stop strings, in order.

        Raises:
            DataError: A prompt with its answer is longer than the context; nothing has been asked then.
            UsageError: A task sets something that no runtime has.
        """
        asked = [(str(request.args[0]), self._sampling(request.args[1])) for request in requests]
        lengths = [len(self._runtime.tokenize(prompt)) for prompt, _ in asked]
        for length, (_, sampling) in zip(lengths, asked, strict=True):
            self._check_length(length, sampling.max_new_tokens)
        order = sorted(range(len(asked)), key=lambda index: (repr(asked[index][1]), lengths[index], index))
        answers: dict[int, str] = {}
        with progress(f"benchmark answers, {self._runtime.info.name}", len(asked), "rows") as advance:
            while order:
                sampling = asked[order[0]][1]
                chosen = [index for index in order[: self._batch_size] if asked[index][1] == sampling]
                found = self._runtime.generate([asked[index][0] for index in chosen], sampling)
                answers.update(zip(chosen, (one.text for one in found), strict=True))
                order = order[len(chosen) :]
                advance(len(chosen))
        return [answers[index] for index in range(len(asked))]

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Refused.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"the engine {self._runtime.info.name} does not tell the probabilities of given texts")

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> NoReturn:
        """Refused, as :meth:`loglikelihood` is."""
        self.loglikelihood(requests)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A chat as the model's prompt.

        Raises:
            UsageError: The task begins the answer itself, which templates here do not do.
        """
        if not add_generation_prompt:
            raise UsageError(
                "the task begins the answer itself, which a chat has no place for", fix="leave out --apply_chat_template"
            )
        return self._template.render(chat_history)

    def _sampling(self, options: dict[str, Any]) -> Sampling:
        known = {"until", "max_gen_toks", "max_new_tokens", "do_sample", "temperature", "top_p"}
        if unknown := sorted(set(options) - known):
            raise UsageError(f"the task sets {', '.join(unknown)}, which the engine {self._runtime.info.name} does not know")
        until = options.get("until") or ()
        draws = bool(options.get("do_sample", options.get("temperature", 0.0) > 0))
        return Sampling(
            max_new_tokens=int(options.get("max_gen_toks") or options.get("max_new_tokens") or _LONGEST_ANSWER),
            temperature=float(options.get("temperature", 1.0)) if draws else 0.0,
            top_p=float(options.get("top_p", 1.0)) if draws else 1.0,
            seed=self._seed if draws else None,
            stop=(until,) if isinstance(until, str) else tuple(until),
        )

    def _check_length(self, length: int, answer: int) -> None:
        context = self._runtime.info.context_length
        if length + answer > context:
            raise DataError(
                f"a prompt has {length} tokens and its answer may have {answer}, but the context holds {context}",
                fix="lower --num_fewshot, or package the model with a higher export.max_length",
            )
