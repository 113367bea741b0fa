"""How a row becomes token ids: the chat template of a recipe and the only loss mask of the package."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slmops.data.chat import COMPACT_CHATML, PLAIN, ChatTemplate, TextTemplate, template_text
from slmops.data.rows import Row
from slmops.errors import ConfigError, DataError
from slmops.files import digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that no loss is computed for (the value PyTorch's cross-entropy ignores)."""

TrainedOn = Literal["answer", "all", "text"]
"""What of a row is trained on: its answer; the whole text that the template makes of it; the text that it is."""

_MASKS: Mapping[TrainedOn, str] = {"answer": "answer and end token", "all": "all tokens", "text": "texts in blocks"}
"""What :meth:`Template.encode` trains; caches made under another rule are refused."""

_PROBE = "Where's MY  order no. 1234567?\n\n\tÇa coûte 12,50 € … 日本語 😀 can't "
"""Tokenizers with one vocabulary that differ in merges, normalization or pre-tokenization split this differently."""

_SPECIAL = re.compile(r"<\|[^|\s<>{}]{1,40}\|>|</?s>|<(?:start|end)_of_turn>|<[be]os>|\[/?INST\]|<</?SYS>>")
"""What the formats of known models mark turns with."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a training row; ``labels`` equals ``input_ids`` on the answer and its end token, else ``IGNORED``.

    Where all of a row is trained on, ``labels`` equals it everywhere but on the first token. The labels are *not* shifted: position
    ``t`` holds the token at ``t``, and the logits at ``t - 1`` predict it.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def prompt_length(self) -> int:
        """Tokens before the answer."""
        return next(index for index, label in enumerate(self.labels) if label != IGNORED)

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The trained tokens: the answer's and the end token."""
        return self.input_ids[self.prompt_length :]


@dataclass(frozen=True)
class Template:
    """Renders prompts and encodes training rows for one tokenizer and one chat template.

    Prompt and answer are tokenized apart, as they are when the model is used, so the mask is exact: all tokens of the
    answer and the end token are trained and, unless the whole text is, no token of the prompt.
    """

    tokenizer: PreTrainedTokenizerBase
    chat: ChatTemplate
    added: tuple[int, ...] = ()
    """Ids of tokens that the tokenizer was given for this template and the model has no rows for yet."""
    trained_on: TrainedOn = "answer"

    @cached_property
    def fingerprints(self) -> Mapping[str, str]:
        """Of ``tokenizer``, ``template`` and ``mask``: each changes when what it does would."""
        chat = self.chat
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        probe = self.tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
        return {
            "tokenizer": digest([vocabulary, probe]),
            "template": digest([chat.jinja, chat.bos_token, chat.eos_token, chat.answer_prefix]),
            "mask": digest([_MASKS[self.trained_on], self.tokenizer.eos_token_id]),
        }

    def prompt(self, row: Row) -> str:
        """The text a model is given for a row."""
        return self.chat.render(row.messages)

    def prompt_ids(self, row: Row) -> list[int]:
        """Token ids of :meth:`prompt`; nothing is added to what the template renders."""
        ids: list[int] = self.tokenizer(self.prompt(row), add_special_tokens=False)["input_ids"]
        return ids

    def encode(self, row: Row) -> Encoded:
        """Token ids and loss mask of a training row.

        Raises:
            DataError: The row has no answer.
        """
        if not row.answer:
            raise DataError("the row has no answer to train on", where=row.origin, fix="label it, or let the teacher answer it")
        prompt = self.prompt_ids(row)
        answer: list[int] = self.tokenizer(self.chat.answer_prefix + row.answer, add_special_tokens=False)["input_ids"]
        answer.append(int(self.tokenizer.eos_token_id))
        ids = prompt + answer
        # Nothing stands before the first token that could predict it.
        untrained = 1 if self.trained_on == "all" else len(prompt)
        return Encoded(tuple(ids), tuple([IGNORED] * untrained + ids[untrained:]))

    def text_ids(self, row: Row) -> list[int]:
        """Token ids of the text that a row is, behind a start token where the tokenizer puts one before a text."""
        ids: list[int] = self.tokenizer(row.question, add_special_tokens=False)["input_ids"]
        return [int(self.tokenizer.bos_token_id), *ids] if _adds_bos(self.tokenizer) else ids

    def token_ids(self, rows: Iterable[Row]) -> list[list[int]]:
        """Token ids of rows: prompt and, where there is one, answer."""
        return [list(self.encode(row).input_ids) if row.answer else self.prompt_ids(row) for row in rows]

    def save(self, folder: Path) -> None:
        """Write tokenizer and chat template to a model folder."""
        self.tokenizer.chat_template = self.chat.jinja
        self.tokenizer.save_pretrained(folder)


def choose_template(
    tokenizer: PreTrainedTokenizerBase,
    choice: str,
    text_template: str | None = None,
    trained_on: TrainedOn = "answer",
    *,
    add_tokens: bool = False,
) -> Template:
    """The template that a recipe chose.

    Args:
        tokenizer: The model's tokenizer.
        choice: ``own`` (the tokenizer's, else a plain one), ``compact`` (its ChatML tokens without the system message
            that some templates add by themselves), ``plain`` or the path of a ``.jinja`` file.
        text_template: Literal text with slots; where given it takes the place of the chat template.
        trained_on: What of a row is trained on.
        add_tokens: Make what the text template marks turns with tokens of the tokenizer, where they are not yet.

    Raises:
        ConfigError: The tokenizer has no end token or lacks the tokens of ``compact``; no such file.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError("the tokenizer has no end-of-sequence token", fix="set eos_token in tokenizer_config.json")
    bos, eos = str(tokenizer.bos_token or ""), str(tokenizer.eos_token)
    if text_template is not None:
        chat = TextTemplate(text_template).chat_template(bos if _adds_bos(tokenizer) else "", eos)
        marks = foreign_tokens(text_template, tokenizer) if add_tokens else []
        tokenizer.add_tokens(marks, special_tokens=True)
        return Template(tokenizer, chat, tuple(int(tokenizer.convert_tokens_to_ids(mark)) for mark in marks), trained_on)
    return Template(tokenizer, ChatTemplate(_jinja(tokenizer, choice), bos, eos), trained_on=trained_on)


def foreign_tokens(text_template: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What a ``text_template`` marks turns with that is no token of the tokenizer, each once; to it that is text like any other."""
    vocabulary = tokenizer.get_vocab()
    return [mark for mark in dict.fromkeys(_SPECIAL.findall(text_template)) if mark not in vocabulary]


def _jinja(tokenizer: PreTrainedTokenizerBase, choice: str) -> str:
    if choice == "own":
        return template_text(tokenizer.chat_template) or PLAIN
    if choice == "plain":
        return PLAIN
    if choice == "compact":
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in ("<|im_start|>", "<|im_end|>") if token not in vocabulary]
        if missing:
            raise ConfigError(
                f"the tokenizer does not know {', '.join(missing)}", where="chat_template", fix="use chat_template: own"
            )
        return COMPACT_CHATML
    file = Path(choice)
    if not file.is_file():
        raise ConfigError(
            f"no such template {choice!r}", where="chat_template", fix="own, compact, plain or the path of a .jinja file"
        )
    return file.read_text(encoding="utf-8")


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids: list[int] = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
