"""Whole answers and refusals, through the official client and over real HTTP."""

from __future__ import annotations

import json

import openai
import pytest

from slmops.data.chat import ChatTemplate, TextTemplate
from slmops.runtimes.base import Sampling


def test_the_official_client_gets_an_answer_with_usage(server):
    answer = server.ask("hello there")

    assert answer.choices[0].message.content == "hello there"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "echo-1"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage.completion_tokens == 2
    assert answer.usage.prompt_tokens == len(server.runtime.tokenize(server.runtime.prompts[-1]))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 2


def test_messages_become_the_models_own_prompt(server):
    server.client.chat.completions.create(
        model="echo-1",
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": None},
            {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "three"}]},
        ],
    )
    assert server.runtime.prompts[-1] == (
        "<|im_start|>system\nbe brief<|im_end|>\n"
        "<|im_start|>user\none<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n"
        "<|im_start|>user\ntwo\nthree<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_an_answer_can_be_sent_back_as_a_turn(server):
    first = server.ask("hello").choices[0].message
    turns = [{"role": "user", "content": "hello"}, first, {"role": "user", "content": "and now"}]
    answer = server.client.chat.completions.create(model="echo-1", messages=turns)
    assert answer.choices[0].message.content == "and now"
    dumped = [{"role": "user", "content": "hello"}, first.model_dump(), {"role": "user", "content": "and now"}]
    assert server.post(messages=dumped).status_code == 200


def test_every_supported_parameter_reaches_the_engine(server):
    server.ask(max_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=["x", "y"])
    assert server.runtime.samplings[-1] == Sampling(7, 0.5, 0.9, 3, ("x", "y"))
    server.ask(max_completion_tokens=8, stop="x", top_p=0, temperature=1)
    assert server.runtime.samplings[-1] == Sampling(8, 0.0, 1.0, None, ("x",))


@pytest.mark.parametrize("seed", [-5, 2**63 - 1, -(2**63)])
def test_any_seed_of_the_api_becomes_one_that_engines_take(server, seed):
    used = []
    for _ in range(2):
        server.ask(temperature=1, seed=seed)
        used.append(server.runtime.samplings[-1].seed)
    assert used[0] == used[1]
    assert 0 <= used[0] < 2**31


def test_stop_and_length_are_told_apart(server):
    assert server.ask("one two three", stop="three").choices[0].message.content == "one two"
    cut = server.ask("one two three", max_tokens=2).choices[0]
    assert (cut.message.content, cut.finish_reason) == ("one two", "length")


def test_defaults_come_from_the_bundle_and_the_context(start, echo):
    bundle = start(echo(context_length=40), temperature=0.7, max_new_tokens=16)
    prompt_tokens = bundle.ask("hello").usage.prompt_tokens
    assert bundle.runtime.samplings[-1] == Sampling(16, 0.7)
    bundle.ask("word" + " word" * (40 - prompt_tokens - 3))
    assert bundle.runtime.samplings[-1].max_new_tokens == 3

    plain = start(echo(context_length=40))
    plain.ask("hello")
    assert plain.runtime.samplings[-1] == Sampling(40 - prompt_tokens, 0.0)


def test_the_spaces_a_text_template_puts_before_an_answer_are_stripped(start, echo):
    prefixed = ChatTemplate(TextTemplate("<|im_start|>user\n{phrase}<|im_end|>  {tone}").chat_template().jinja, answer_prefix="  ")
    with_prefix = start(echo(prefix="   "), prefixed)
    assert with_prefix.ask("kind words").choices[0].message.content == "kind words"
    pieces = [chunk.choices[0].delta.content or "" for chunk in with_prefix.ask("kind words", stream=True)]
    assert pieces == ["", "kind", " words", ""]
    assert start(echo(prefix="   ")).ask("kind words").choices[0].message.content == "   kind words"


def test_models_are_listed_and_retrieved(server):
    listed = server.client.models.list().data
    assert [(model.id, model.object, model.owned_by) for model in listed] == [("echo-1", "model", "slmops")]
    assert server.client.models.retrieve("echo-1") == listed[0]
    with pytest.raises(openai.NotFoundError, match="this server has 'echo-1'"):
        server.client.models.retrieve("some/other")


def test_health_says_what_is_loaded(server):
    health = server.http.get("/health").json()
    assert health.pop("uptime") >= 0
    assert health == {"status": "ok", "model": "echo-1", "runtime": "echo", "precision": "float32"}


def test_another_model_is_not_found_and_the_served_one_is_named(server):
    with pytest.raises(openai.NotFoundError, match="this server has 'echo-1'") as caught:
        server.client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("word " * 70, {}),
        ("hello", {"max_tokens": 64}),
        ("word " * 70, {"stream": True}),
    ],
)
def test_a_context_overflow_is_a_bad_request_not_a_truncation(server, text, options):
    asked = len(server.runtime.prompts)
    with pytest.raises(openai.BadRequestError, match="context holds 64") as caught:
        server.ask(text, **options)
    assert caught.value.code == "context_length_exceeded"
    assert len(server.runtime.prompts) == asked


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("logit_bias", {"5": 1}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "auto"),
        ("functions", [{"name": "f"}]),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}),
        ("store", True),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("service_tier", "flex"),
        ("reasoning_effort", "high"),
    ],
)
def test_a_parameter_without_effect_is_refused_by_name(server, name, value):
    with pytest.raises(openai.BadRequestError, match=name) as caught:
        server.ask(**{name: value})
    assert caught.value.param == name
    assert caught.value.code == "unsupported_parameter"
    assert caught.value.type == "invalid_request_error"


def test_an_unknown_parameter_is_refused_with_the_nearest_one(server):
    error = server.post(max_token=3).json()["error"]
    assert error["param"] == "max_token"
    assert "did you mean 'max_tokens'?" in error["message"]


def test_neutral_values_of_unsupported_parameters_pass(server):
    reply = server.post(
        n=1,
        presence_penalty=0,
        frequency_penalty=0.0,
        logit_bias={},
        logprobs=False,
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        user="me",
        metadata={"a": "b"},
        store=False,
        audio=None,
        max_tokens=None,
        stream_options=None,
        stop=None,
    )
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"] == "hello there"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_completion_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ""}, "stop[0]"),
        ({"stop": 7}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_color": True}}, "stream_options.include_color"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "name": "Ann"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]}, "messages[0].tool_calls"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_with_its_place(server, body, param):
    reply = server.post(**body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"hello"',
        b"\xff\xfe",
        b'{"model": "echo-1", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b"[" * 9999,
    ],
)
def test_broken_json_is_a_bad_request(server, body):
    reply = server.http.post("/v1/chat/completions", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_not_a_number_is_no_temperature(server):
    body = b'{"model": "echo-1", "messages": [{"role": "user", "content": "hi"}], "temperature": NaN}'
    assert server.http.post("/v1/chat/completions", content=body).json()["error"]["param"] == "temperature"


def test_a_huge_body_is_refused_unread(server):
    reply = server.http.post("/v1/chat/completions", content=b" " * (9 * 2**20))
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405)])
def test_unknown_routes_answer_in_the_same_form(server, method, path, status):
    reply = server.http.request(method, path)
    assert reply.status_code == status
    assert path in reply.json()["error"]["message"]


def test_messages_that_the_template_refuses_are_a_bad_request(start):
    strict = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(openai.BadRequestError, match="roles must alternate") as caught:
        start(template=strict).ask("hello")
    assert caught.value.param == "messages"


def test_an_empty_prompt_is_a_bad_request(start, echo):
    with pytest.raises(openai.BadRequestError, match="the prompt is empty"):
        start(echo(), ChatTemplate("{{ messages[-1]['content'] }}")).ask("")


def test_a_failing_engine_is_a_server_error_that_clients_do_not_repeat(start, echo, capfd):
    server = start(echo(fail_after=0))
    with pytest.raises(openai.InternalServerError, match="on fire"):
        server.client.with_options(max_retries=2).chat.completions.create(
            model="echo-1", messages=[{"role": "user", "content": "my secret"}]
        )
    assert len(server.runtime.prompts) == 1
    server.runtime.fail_after = None
    assert server.ask("works again").choices[0].message.content == "works again"
    logged = capfd.readouterr().err
    assert "RuntimeError" in logged
    assert "secret" not in logged


def test_text_of_any_script_survives(server):
    text = 'čau 你好 🙂\u2028next\u0085line \\ " data: [DONE]'
    assert server.ask(text).choices[0].message.content == text
    assert "".join(chunk.choices[0].delta.content or "" for chunk in server.ask(text, stream=True)) == text
    assert json.loads(server.post(messages=[{"role": "user", "content": text}]).content)["choices"][0]["message"]["content"] == text


def test_frames_survive_clients_that_split_lines_as_python_does(server):
    body = {"model": "echo-1", "messages": [{"role": "user", "content": "a\u2028b\u0085c"}], "stream": True}
    with server.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert all(line == "" or line.startswith("data: ") for line in reply.iter_lines())
