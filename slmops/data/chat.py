"""Chat templates: Jinja text rendered in a sandbox, the same way in training, export, evaluation and serving.

It needs neither torch nor transformers, so that a server stays small; a test compares it with what transformers renders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from slmops.errors import ConfigError, DataError, ModelError, SlmopsError
from slmops.files import read_json

if TYPE_CHECKING:
    from jinja2 import Template as JinjaTemplate

COMPACT_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PLAIN = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


_ONE_USER_TURN = (
    "{% if messages | length != 1 or messages[0]['role'] != 'user' %}"
    "{{ raise_exception('this model was trained on single user messages; leave out system messages and earlier turns') }}"
    "{% endif %}"
)


@dataclass(frozen=True)
class ChatTemplate:
    """Jinja text and the special tokens it may name.

    Args:
        jinja: The template; it sees ``messages``, ``add_generation_prompt``, ``bos_token``, ``eos_token``.
        answer_prefix: Literal spaces between the prompt and the answer that belong to the answer (text templates).
    """

    jinja: str
    bos_token: str = ""
    eos_token: str = ""
    answer_prefix: str = ""

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt of a conversation, up to where the assistant's answer begins.

        Raises:
            DataError: The template refuses these messages (a role it does not know, for example).
            ConfigError: The template is not valid Jinja or does something the sandbox forbids.
        """
        from jinja2.exceptions import SecurityError

        try:
            return _compiled(self.jinja).render(
                messages=[dict(turn) for turn in messages],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
            )
        except SlmopsError:
            raise
        except SecurityError as error:
            raise ConfigError(f"the chat template does something that is not allowed: {error}") from error
        except Exception as error:  # a template's expressions fail as Python's do: TypeError, ZeroDivisionError, ...
            raise ConfigError(f"the chat template cannot be rendered: {error}") from error

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate:
        """Read the chat template of a model folder (``chat_template.jinja`` or in ``tokenizer_config.json``).

        Raises:
            ModelError: The folder has no tokenizer.
        """
        file = folder / "tokenizer_config.json"
        if not file.is_file():
            raise ModelError("no tokenizer_config.json here", where=str(folder), fix="point to the folder of a model")
        config = read_json(file)
        jinja_file = folder / "chat_template.jinja"
        jinja = jinja_file.read_text(encoding="utf-8") if jinja_file.is_file() else template_text(config.get("chat_template"))
        return cls(jinja or PLAIN, token_text(config.get("bos_token")), token_text(config.get("eos_token")))


@dataclass(frozen=True)
class TextTemplate:
    """A ``text_template`` such as ``"{phrase} => {tone}"``: literal text with slots, the last one the answer.

    Raises:
        ConfigError: Fewer than two slots, text after the answer slot, or an answer slot that is also an input.
    """

    text: str

    def __post_init__(self) -> None:
        if len(self.fields) < 2 or not self.text.rstrip().endswith("{" + self.fields[-1] + "}"):
            raise ConfigError(
                f"{self.text!r} needs at least two {{field}} slots and must end with the answer's",
                where="text_template",
                fix='write it like "{phrase} => {tone}"',
            )
        if self.fields[-1] in self.fields[:-1]:
            raise ConfigError(f"{self.text!r} gives the answer {self.fields[-1]!r} away in the input", where="text_template")

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the slots in order; the last is the answer's."""
        return tuple(re.findall(r"\{(\w+)\}", self.text))

    @property
    def _prefix(self) -> str:
        return self.text[: self.text.rindex("{" + self.fields[-1] + "}")]

    def content(self, values: Mapping[str, str]) -> str:
        """What stands in a row's user turn: the value of a single input slot, else the filled text before the answer."""
        inputs = self.fields[:-1]
        if len(inputs) == 1:
            return values[inputs[0]]
        return re.sub(r"\{(\w+)\}", lambda slot: values[slot.group(1)], self._prefix.rstrip(" "))

    def chat_template(self, bos_token: str = "", eos_token: str = "") -> ChatTemplate:
        """The chat template that renders such a user turn as the literal text before the answer, and nothing else.

        It refuses other conversations: turns that the text has no place for would be dropped in silence.
        """
        prefix = self._prefix
        stripped = prefix.rstrip(" ")
        slot = "{{ messages[0]['content'] }}"
        if len(self.fields) == 2:
            before, after = stripped.split("{" + self.fields[0] + "}", 1)
            body = "{{ " + _literal(before) + " }}" + slot + "{{ " + _literal(after) + " }}"
        else:
            body = slot
        start = "{{ bos_token }}" if bos_token else ""
        return ChatTemplate(_ONE_USER_TURN + start + body, bos_token, eos_token, answer_prefix=prefix[len(stripped) :])


def template_text(value: Any) -> str | None:
    """The chat template as ``tokenizer_config.json`` holds it: text, or several by name, of which ``default`` is taken."""
    if isinstance(value, list):
        value = {entry["name"]: entry["template"] for entry in value}
    return value.get("default") if isinstance(value, Mapping) else value


def token_text(value: Any) -> str:
    """A special token as ``tokenizer_config.json`` holds it: text, a mapping with ``content``, or nothing."""
    return str(value["content"]) if isinstance(value, Mapping) else str(value or "")


@lru_cache(maxsize=16)
def _compiled(jinja: str) -> JinjaTemplate:
    """A template ready to be rendered; making it takes milliseconds, rendering a prompt a fraction of one."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # As transformers renders, but for strftime_now: with it a prompt would be another one tomorrow.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = _refuse
    environment.filters["tojson"] = _to_json
    return environment.from_string(jinja)


def _literal(text: str) -> str:
    """A Jinja string; characters beyond ASCII stand for themselves (JSON's surrogate pairs are not Jinja's)."""
    return json.dumps(text, ensure_ascii=False)


def _refuse(message: str) -> NoReturn:
    raise DataError(f"the chat template refuses these messages: {message}")


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)
