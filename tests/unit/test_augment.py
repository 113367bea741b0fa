"""``slmops augment`` over real HTTP: what it prints and writes, what it costs, and that nothing is paid twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

import slmops
from slmops import cli
from slmops.data.rows import Row
from slmops.data.sources import FilesSource
from slmops.files import read_jsonl, write_jsonl
from slmops.teachers.catalogue import API_MODELS
from slmops.testing.faults import Faults, FaultServer
from tests.commands import Call, Result

pytest.importorskip("datasketch", reason="what is alike needs the extra quality")

NOUNS = ["kettle", "scooter", "lantern", "guitar", "blanket", "mirror", "hammer", "basket", "violin", "carpet", "printer", "saddle"]


def says(messages: Sequence[Mapping[str, str]]) -> str:
    """Two paraphrases of a question about a thing, as a numbered list."""
    found = re.search(r"my (\w+)", messages[-1]["content"])
    thing = found.group(1) if found else "parcel"
    return f"Sure:\n1. Nobody has brought the {thing} that I bought from you.\n2. Since when is a {thing} so long on its way?"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "train.jsonl"
    rows = [{"text": f"Where on earth is my {noun}?", "label": "delivery"} for noun in NOUNS]
    write_jsonl(file, [*rows, {"text": "money back please", "label": "refund"}])
    return file


@pytest.fixture
def arguments(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    for model in API_MODELS.values():
        monkeypatch.delenv(model.key_env, raising=False)
        monkeypatch.delenv(model.base_url_env, raising=False)

    def words(*more: str, teacher: str = "test-model", server: FaultServer | None = None) -> list[str]:
        given = {"data": data, "task_type": "classification", "teacher": teacher, "output_path": tmp_path / "out"}
        given |= {"method": "paraphrase", "per_row": 2, "min_success": 0.5, **({"base_url": server.url} if server else {})}
        return ["augment", *(word for name, value in given.items() for word in (f"--{name}", str(value))), *more]

    return words


@pytest.fixture
def augment(arguments: Callable[..., list[str]], call: Call) -> Call:
    def run(*more: str, teacher: str = "test-model", server: FaultServer | None = None) -> Result:
        return call(*arguments(*more, teacher=teacher, server=server), "requests.backoff_s=0.01")

    return run


def test_new_rows_come_over_a_bad_line_and_a_second_time_they_are_free(augment: Call, tmp_path: Path) -> None:
    with FaultServer(Faults(html=0.2, reset=0.2), seed=2, answer=says) as server:
        result = augment("--with_originals", server=server)
        assert result.code == 0, result.err
        paid = server.paid
        assert (len(NOUNS) + 1 <= paid, server.met["html"] > 0) == (True, True)
        again = augment("--json", "--with_originals", server=server)
        assert json.loads(again.out)["kept"] == 26
        changed = augment("--json", server=server)  # without the given rows: other files, the same replies
        assert (json.loads(changed.out)["kept"], server.paid) == (26, paid)
    rows = read_jsonl(tmp_path / "out" / "augmented.jsonl")
    assert {row["made"]["method"] for row in rows} == {"paraphrase"}
    assert "new rows  26 of 26 asked for, from 13 rows" in result.out
    assert "labels    delivery 24, refund 2" in result.out
    assert "is for you to find out" in result.err  # the terms, before the first call


def test_what_it_writes_is_data_that_the_other_commands_read(augment: Call, tmp_path: Path) -> None:
    with FaultServer(answer=says) as server:
        augment("--with_originals", server=server)
    read = FilesSource(train=tmp_path / "out" / "augmented.jsonl").read()
    assert (len(read.labelled), sum(row.made is not None for row in read.labelled)) == (39, 26)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["check-data", "--data", str(tmp_path / "out" / "augmented.jsonl"), "--output_path", str(tmp_path / "checked")])
    validation = [Row.from_dict(row) for row in read_jsonl(tmp_path / "checked" / "validation.jsonl")]
    train = [Row.from_dict(row) for row in read_jsonl(tmp_path / "checked" / "train.jsonl")]
    held_out = {row.id for row in validation}
    assert validation
    assert all(row.made is None for row in validation)
    assert any(row.made is not None for row in train)
    assert not any(held_out & set(row.made["sources"]) for row in train if row.made is not None)


def test_the_plan_needs_no_key_and_knows_what_is_there(augment: Call, tmp_path: Path) -> None:
    text = augment("--plan", teacher="gpt-4o")
    assert text.code == 0
    assert "gpt-4o (OpenAI): 13 rows, 13 calls" in text.out
    assert not (tmp_path / "out").exists()
    twice = json.loads(augment("--plan", "--json", "--method", "back-translation", teacher="gpt-4o").out)
    assert twice["calls"] == 2 * 2 * 13
    with FaultServer(answer=says) as server:
        augment(server=server)
        plan = json.loads(augment("--plan", "--json", server=server).out)
        assert (plan["rows"], plan["cached"], plan["calls"]) == (13, 13, 0)
    seeds = json.loads(augment("--plan", "--json", "--method", "seeds", teacher="gpt-4o").out)
    assert seeds["calls"] == 4 + 26  # three calls for delivery, one for refund, and an answer to each new question


def test_the_cap_stops_and_a_higher_one_continues(augment: Call, tmp_path: Path) -> None:
    prices = ("teacher.price_input=10", "teacher.price_output=10", "requests.max_concurrency=1", "max_new_tokens=64")
    with FaultServer(answer=says) as server:
        stopped = augment("--max_cost", "0.004", *prices, server=server)
        assert (stopped.code, "could exceed max_cost ($0.004)" in stopped.err) == (2, True)
        assert not (tmp_path / "out" / "manifest.json").exists()
        assert 0 < len(read_jsonl(tmp_path / "out" / "augmented.jsonl")) < 26
        paid = server.paid
        done = augment("--max_cost", "1", *prices, server=server)
        assert (done.code, paid < 13, server.paid) == (0, True, 13)


def test_killed_it_goes_on(arguments: Callable[..., list[str]], augment: Call, tmp_path: Path) -> None:
    with FaultServer(answer=says, latency_s=0.2) as server:
        command = [sys.executable, "-m", "slmops", *arguments("requests.max_concurrency=2", server=server)]
        environment = {**os.environ, "PYTHONPATH": str(Path(slmops.__file__).parents[1])}
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        while server.paid < 4 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out" / "manifest.json").exists()
        result = augment("--json", server=server)
        assert (result.code, json.loads(result.out)["kept"]) == (0, 26)
        assert server.paid <= 13 + 2


@pytest.mark.parametrize(
    ("more", "teacher", "problem"),
    [
        ((), "gpt4o", "did you mean 'gpt-4o'"),
        (("--method", "rephrase"), "gpt-4o", "method: Input should be 'paraphrase', 'back_translation' or 'seeds'"),
        (("--per_row", "0"), "gpt-4o", "per_row: Input should be greater than or equal to 1"),
        (("seeds_a_call=3",), "gpt-4o", "seeds_a_call: unknown key; did you mean 'seeds_per_call'"),
        (("--task_type", "clasification"), "gpt-4o", "did you mean 'classification'"),
    ],
)
def test_a_mistake_is_named(augment: Call, more: tuple[str, ...], teacher: str, problem: str) -> None:
    result = augment(*more, "--plan", teacher=teacher)
    assert result.code == 2
    assert problem in result.err
