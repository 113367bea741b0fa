"""A model that we packaged and serve is a teacher like any other endpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.files import read_jsonl
from tests.pipeline.conftest import Run, slmops
from tests.pipeline.tiny_line import write_rows
from tests.unit.serving.server_process import serving

pytest.importorskip("openai", reason="the extra 'api' is not installed")

COUNTING_SERVER = """
import sys
from pathlib import Path
from slmops.progress import say
from slmops.runtimes.folders import served_folder
from slmops.serving.server import serve
from slmops.serving.service import ChatService

start = ChatService.start

def counted(self, request):
    say("asked")
    return start(self, request)

ChatService.start = counted
serve(served_folder(Path(sys.argv[1])), port=0, threads=1)
"""


def test_our_own_server_answers_rows_without_a_key_and_a_second_run_asks_nothing(finished: Run, tmp_path: Path) -> None:
    data = write_rows(tmp_path)["test"]
    rows = read_jsonl(data)
    with serving(COUNTING_SERVER, finished.output) as (_, client, log):
        (model,) = client.models.list().data
        given = {"task_type": "classification", "teacher": model.id, "base_url": str(client.base_url).rstrip("/")}
        given |= {"data": data, "output_path": tmp_path / "answers", "max_new_tokens": 8, "min_success": 0}
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        first = slmops("generate", *words, "--json", TEACHER_API_KEY="")
        assert first.returncode == 0, first.stderr
        facts = json.loads(first.stdout)
        assert (facts["rows"], facts["answered"]) == (len(rows), len(rows))
        assert facts["calls"] == log.count("asked") == len(rows)
        again = slmops("generate", *words, "--json", TEACHER_API_KEY="")
        assert json.loads(again.stdout) == facts
        (tmp_path / "answers" / "manifest.json").unlink()  # as if it had been killed at the end
        assert json.loads(slmops("generate", *words, "--json", TEACHER_API_KEY="").stdout)["answered"] == len(rows)
        assert log.count("asked") == len(rows)
    answers = read_jsonl(tmp_path / "answers" / "answers.jsonl")
    assert {answer["teacher"] for answer in answers} == {model.id}
    right = [answer["teacher_answer"].strip() == answer["gold"] for answer in answers]
    assert facts["right"] == sum(right) / len(rows) > 0
