"""The card beside a packaged model."""

from __future__ import annotations

import json

import pytest

from slmops.data.chat import ChatTemplate
from slmops.errors import ModelError
from slmops.export.card import CARD_FILE, BundleCard, CardSampling

CARD = BundleCard(
    name="support-routing",
    task_type="classification",
    chat_template=ChatTemplate("{{ messages[-1]['content'] }} =>", eos_token="<|im_end|>", answer_prefix=" "),
    sampling=CardSampling(max_new_tokens=16),
    labels=("refund", "delivery"),
)


def test_a_card_is_read_back_as_it_was_written(tmp_path):
    CARD.write(tmp_path)
    assert BundleCard.read(tmp_path) == CARD


def test_the_file_has_the_documented_keys(tmp_path):
    assert json.loads(CARD.write(tmp_path).read_text(encoding="utf-8")) == {
        "name": "support-routing",
        "task_type": "classification",
        "chat_template": {
            "jinja": "{{ messages[-1]['content'] }} =>",
            "bos_token": "",
            "eos_token": "<|im_end|>",
            "answer_prefix": " ",
        },
        "sampling": {"temperature": 0.0, "max_new_tokens": 16},
        "labels": ["refund", "delivery"],
    }


def test_a_folder_without_a_card_has_none(tmp_path):
    assert BundleCard.read(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"sampling": {"temperature": -1, "max_new_tokens": 16}}, "sampling.temperature"),
        ({"sampling": {"max_new_tokens": 16, "top_k": 3}}, "sampling.top_k"),
        ({"chat_template": {"jinja": "x", "bos": ""}}, "chat_template.bos"),
        ({"name": ""}, "name"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_card_of_another_form_is_an_error_with_its_place(tmp_path, change, place):
    file = CARD.write(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(ModelError, match=place) as caught:
        BundleCard.read(tmp_path)
    assert str(file) in str(caught.value)


def test_a_damaged_card_is_an_error(tmp_path):
    (tmp_path / CARD_FILE).write_text('{"name": ', encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be read"):
        BundleCard.read(tmp_path)
