"""Our own server as a teacher of ``slmops generate``: no key, whole or streamed answers, and what it does not give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops import cli
from slmops.files import read_jsonl, write_jsonl


@pytest.fixture
def generate(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TEACHER_API_KEY", raising=False)
    write_jsonl(tmp_path / "rows.jsonl", [{"input": f"say the number {number}"} for number in range(30)])

    def run(server, *more: str) -> tuple[int, str, str]:
        given = {"task_type": "generation", "teacher": "echo-1", "data": tmp_path / "rows.jsonl", "output_path": tmp_path / "out"}
        given |= {"base_url": f"{server.url}/v1", "max_new_tokens": 16}
        capsys.readouterr()
        code = 0
        try:
            cli.main(["generate", *(word for name, value in given.items() for word in (f"--{name}", str(value))), *more])
        except SystemExit as end:
            code = end.code
        return (code, *capsys.readouterr())

    return run


@pytest.mark.parametrize("stream", ["false", "true"])
def test_it_answers_without_a_key_and_is_asked_once(generate, start, tmp_path, stream):
    server = start()
    code, out, err = generate(server, "--json", f"teacher.stream={stream}")
    assert code == 0, err
    assert json.loads(out)["answered"] == 30
    answers = read_jsonl(tmp_path / "out" / "answers.jsonl")
    assert [answer["answer"] for answer in answers] == [f"say the number {number}" for number in range(30)]
    assert generate(server, "--json", f"teacher.stream={stream}")[1] == out
    assert len(server.runtime.prompts) == 30


def test_log_probabilities_are_refused_in_words_and_not_made_up(generate, start, tmp_path):
    server = start()
    code, _, err = generate(server, "teacher.top_logprobs=2")
    assert code == 2
    assert "requests were all refused" in err
    assert "'logprobs' is not supported here" in err
    assert server.runtime.prompts == []
    assert generate(server)[0] == 0  # without them the same command works


def test_the_name_of_another_model_stops_at_once_with_the_right_one(generate, start):
    code, _, err = generate(start(), "teacher.model=gpt-9")
    assert code == 2
    assert "this server has 'echo-1'" in err
