"""The toy teacher: like the most similar row it knows, and a server of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import slmops
from slmops.data.rows import Row
from slmops.files import write_jsonl
from slmops.testing.teacher import ToyTeacher

KNOWN = [("where is my parcel", "delivery"), ("has the parcel left", "delivery"), ("my money back please", "refund")]


def say(text: str) -> str:
    return ToyTeacher([Row.of(question, answer) for question, answer in KNOWN])([{"role": "user", "content": text}])


def test_it_answers_like_the_most_similar_row() -> None:
    assert (say("Where is that parcel?"), say("I want money"), say("")) == ("delivery", "refund", "delivery")


def test_it_makes_versions_and_new_texts() -> None:
    versions = json.loads(say("Write 2 versions of the text below in other words.\n\n<text>\nWhere is my bag?\n</text>"))
    assert versions == ["Where seems our bag?", "Where must be the family's bag?"]
    seeds = (
        "These are texts with the label 'delivery':\n\n<text>\nwhere is my parcel\n</text>\n\nWrite one new one of the same kind"
    )
    assert json.loads(say(seeds)) == ["has the parcel left"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped_and_says_what_it_was_asked(tmp_path: Path, stop: signal.Signals) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": text, "label": label} for text, label in KNOWN])
    command = [sys.executable, "-m", "slmops.testing.teacher", "--rows", str(tmp_path / "rows.jsonl"), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(slmops.__file__).parents[1])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "knows 3 rows, at http://127.0.0.1:" in line
            body = {"model": "toy", "messages": [{"role": "user", "content": "money back"}]}
            address = line.partition(", at ")[2].split()[0]
            answer = httpx.post(f"{address}/chat/completions", json=body, trust_env=False, timeout=30).json()
            assert answer["choices"][0]["message"]["content"] == "refund"
            process.send_signal(stop)
            assert process.wait(20) == 0
            assert process.stderr.read().strip() == "1 requests, 1 answers to pay for; faults: none"
        finally:
            process.kill()
