"""One question through a real server process and the official client."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.errors import MissingExtraError, ResourceError
from slmops.serving import client
from slmops.serving.client import ask_once
from tests.commands import Call


def test_a_question_gets_the_models_greedy_answer(tiny_model: Path) -> None:
    from slmops.data.chat import ChatTemplate
    from slmops.runtimes.base import Sampling, open_runtime

    answer = ask_once(tiny_model, "where is my parcel")
    prompt = ChatTemplate.load(tiny_model).render([{"role": "user", "content": "where is my parcel"}])
    (expected,) = open_runtime("torch", tiny_model).generate([prompt], Sampling(max_new_tokens=64))
    assert answer[:20] == expected.text[:20]


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught:
        ask_once(tmp_path, "hello")
    assert f"the server did not come up:\nerror: {tmp_path}: there is no model here" in str(caught.value)
    assert "run 'slmops serve' by itself" in str(caught.value)


def test_a_server_that_hangs_is_given_up(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_START_SECONDS", 0.01)
    with pytest.raises(ResourceError, match="the server did not come up"):
        ask_once(tiny_model, "hello")


def test_the_client_package_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"slmops\[client\]"):
        ask_once(tmp_path, "hello")


def test_an_answer_is_shown_without_the_space_before_it(tiny_model: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ask", lambda *_: client.Reply(" formal\n", {}))
    assert call("ask", tiny_model, "hello").out == "question  hello\nanswer    formal\n"
