from __future__ import annotations

import pytest

from slmops.data.chat import COMPACT_CHATML, PLAIN, TextTemplate
from slmops.export.bundle import write_foundry_files
from slmops.files import read_json, write_json, write_text

DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}" + COMPACT_CHATML
)


@pytest.fixture
def folder(tmp_path):
    write_json(tmp_path / "tokenizer_config.json", {"eos_token": "<|im_end|>"})
    return tmp_path


def bundle(folder, jinja):
    write_text(folder / "chat_template.jinja", jinja)
    note = write_foundry_files(folder, "router")
    return note, read_json(folder / "inference_model.json")


def test_chatml_becomes_patterns_that_render_the_same_bytes(folder):
    note, written = bundle(folder, COMPACT_CHATML)
    assert note is None
    assert written == {
        "Name": "router",
        "PromptTemplate": {
            "system": "<|im_start|>system\n{Content}<|im_end|>\n",
            "user": "<|im_start|>user\n{Content}<|im_end|>\n",
            "assistant": "<|im_start|>assistant\n{Content}<|im_end|>\n",
            "prompt": "<|im_start|>user\n{Content}<|im_end|>\n<|im_start|>assistant\n",
        },
    }


def test_a_plain_template_works_too(folder):
    note, written = bundle(folder, PLAIN)
    assert note is None
    assert written["PromptTemplate"]["prompt"] == "user: {Content}\nassistant:"


def test_a_template_that_adds_a_system_message_is_noted(folder):
    note, _ = bundle(folder, DEFAULT_SYSTEM)
    assert note is not None
    assert "system + user" in note


def test_a_text_template_has_room_for_one_turn(folder):
    note, written = bundle(folder, TextTemplate("{phrase} => {tone}").chat_template().jinja)
    patterns = written["PromptTemplate"]
    assert (patterns["prompt"], patterns["system"]) == ("{Content} =>", "")
    assert note is not None
    assert note.endswith("for: system + user, user + assistant + user")
