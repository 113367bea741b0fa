"""Chat templates are rendered as transformers renders them, in a sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops.data.chat import COMPACT_CHATML, PLAIN, ChatTemplate, TextTemplate
from slmops.data.rows import Row
from slmops.errors import ConfigError, DataError, ModelError
from slmops.files import write_json, write_text
from slmops.testing.tiny import tiny_tokenizer

USER = {"role": "user", "content": "where is it?"}
TURNS = [
    {"role": "system", "content": "Route it."},
    {"role": "user", "content": "hello  "},
    {"role": "assistant", "content": "greeting"},
    {"role": "user", "content": "where\nis <b>my</b> {{ parcel }}? Ça 😀"},
]
# What templates in the wild do: blocks on lines of their own, white-space control, loop controls, namespaces, JSON, absent tools.
ELABORATE = """\
{%- set state = namespace(system=false) -%}
{% for message in messages %}
    {%- if message.role == 'system' %}{% set state.system = true %}{% continue %}{% endif %}
[{{ loop.index }}|{{ message['role'] | upper }}] {{ message['content'] | trim }} {{ message | tojson }}
    {% if loop.first %}first{% endif %}
    {%- if loop.last %}

{{ eos_token }}{% break %}
    {% endif %}
{% endfor %}
{% if tools is not none %}tools{% endif %}{{ bos_token if state.system }}
{%- if add_generation_prompt %}
answer:{% endif %}
"""


@pytest.mark.parametrize("jinja", [COMPACT_CHATML, PLAIN, ELABORATE], ids=["compact", "plain", "elaborate"])
@pytest.mark.parametrize("messages", [[USER], TURNS], ids=["one turn", "several turns"])
def test_a_prompt_is_what_transformers_renders(jinja: str, messages: list[dict[str, str]]) -> None:
    tokenizer = tiny_tokenizer()
    expected = tokenizer.apply_chat_template(messages, chat_template=jinja, tokenize=False, add_generation_prompt=True)
    assert ChatTemplate(jinja, tokenizer.bos_token, tokenizer.eos_token).render(messages) == expected


def test_a_model_folders_own_template_is_what_transformers_renders(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    expected = AutoTokenizer.from_pretrained(tiny_model).apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    assert ChatTemplate.load(tiny_model).render(TURNS) == expected


@pytest.mark.parametrize(
    "jinja",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.getcwd() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].clear() }}",
    ],
)
def test_a_template_cannot_reach_outside_its_sandbox(jinja: str) -> None:
    with pytest.raises(ConfigError, match="not allowed"):
        ChatTemplate(jinja).render([USER])


def test_a_private_attribute_renders_as_nothing() -> None:
    assert ChatTemplate("{{ ''.__class__ }}").render([USER]) == ""


@pytest.mark.parametrize("jinja", ["{% for", "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ messages[3].content.x }}", "{{ range(10 ** 9) }}"])
def test_a_broken_template_is_a_mistake_in_the_recipe(jinja: str) -> None:
    with pytest.raises(ConfigError, match="the chat template cannot be rendered"):
        ChatTemplate(jinja).render([USER])


def test_a_template_may_refuse_messages() -> None:
    with pytest.raises(DataError, match="no system turns here"):
        ChatTemplate("{{ raise_exception('no system turns here') }}").render(TURNS)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("own", "own"),
        ([{"name": "tools", "template": "other"}, {"name": "default", "template": "own"}], "own"),
        (None, "user: where is it?\nassistant:"),
    ],
)
def test_a_template_is_found_in_the_tokenizers_configuration(tmp_path: Path, stored: Any, expected: str) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": stored, "eos_token": {"content": "</s>"}})
    template = ChatTemplate.load(tmp_path)
    assert (template.render([USER]), template.eos_token) == (expected, "</s>")


def test_a_template_file_goes_before_the_configuration(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": "from the configuration"})
    write_text(tmp_path / "chat_template.jinja", "from the file")
    assert ChatTemplate.load(tmp_path).render([USER]) == "from the file"


def test_a_folder_without_a_tokenizer_has_no_template(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer_config\.json"):
        ChatTemplate.load(tmp_path)


# Text templates


def rendered(text: str, values: dict[str, str], bos: str = "") -> tuple[str, str]:
    """What a model is given for a row, and what stands between that and the answer."""
    template = TextTemplate(text)
    chat = template.chat_template(bos)
    return chat.render(Row.of(template.content(values)).messages), chat.answer_prefix


def test_a_single_slot_is_filled_with_the_user_turn_and_the_space_goes_to_the_answer() -> None:
    assert rendered("{phrase} => {tone}", {"phrase": "so glad!"}) == ("so glad! =>", " ")
    assert TextTemplate("{phrase} => {tone}").content({"phrase": "so glad!"}) == "so glad!"


def test_several_slots_are_filled_in_the_user_turn() -> None:
    text, values = "{name} wrote: {phrase}\nTone:  {tone}", {"name": "Ann", "phrase": "so glad!"}
    assert TextTemplate(text).content(values) == "Ann wrote: so glad!\nTone:"
    assert rendered(text, values) == ("Ann wrote: so glad!\nTone:", "  ")


@pytest.mark.parametrize("turns", [TURNS, [{"role": "system", "content": "Be kind."}], [USER, USER], []])
def test_a_text_template_refuses_turns_it_has_no_place_for(turns: list[dict[str, str]]) -> None:
    with pytest.raises(DataError, match="leave out system messages and earlier turns"):
        TextTemplate("{phrase} => {tone}").chat_template().render(turns)


def test_a_slot_may_occur_twice_in_the_input() -> None:
    assert rendered("{phrase} | {phrase} ={tone}", {"phrase": "hi"}) == ("hi | hi =", "")


@pytest.mark.parametrize(
    "literal",
    ['say "', "it's \\", "\\n", "a\nb\t", "{{ 1 }}", "{% raw %}", "}} {#", "{", "é 😀 \u2028", "<|im_start|>"],
)
@pytest.mark.parametrize("slots", ["{phrase}", "{phrase}{name}"])
def test_literal_text_is_kept_as_it_is(literal: str, slots: str) -> None:
    values = {"phrase": "PHRASE", "name": ""}
    assert rendered(f"{literal}{slots}{literal}=>{{tone}}", values) == (f"{literal}PHRASE{literal}=>", "")


@pytest.mark.parametrize("text", ["{phrase} => {tone}", "{phrase}{name} => {tone}"])
@pytest.mark.parametrize("value", ["{name}", "{{ 7 * 6 }}", "{% raw %}", "\\1 \\g<0>", "{tone}"])
def test_a_value_is_not_expanded_again(text: str, value: str) -> None:
    assert rendered(text, {"phrase": value, "name": ""})[0] == f"{value} =>"


def test_spaces_at_the_end_of_a_value_are_not_the_templates() -> None:
    assert rendered("{phrase} {tone}", {"phrase": "hi  "}) == ("hi  ", " ")
    assert rendered("{name}: {phrase} {tone}", {"name": "Ann", "phrase": "hi  "}) == ("Ann: hi  ", " ")


def test_the_begin_token_stands_before_the_text() -> None:
    assert rendered("{phrase} => {tone}", {"phrase": "hi"}, bos="<s>")[0] == "<s>hi =>"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{phrase} =>", "at least two"),
        ("no slot", "at least two"),
        ("", "at least two"),
        ("{phrase} => {tone}.", "must end with the answer's"),
        ("{phrase} is {tone} => {tone}", "gives the answer 'tone' away"),
    ],
)
def test_a_text_template_without_an_answer_at_its_end_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        TextTemplate(text)
