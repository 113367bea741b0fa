"""The cache of requests: by content, across processes, and whatever dies in between."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from slmops.errors import ArtifactError
from slmops.teachers.cache import RequestCache, Stored, request_key
from slmops.teachers.replies import AskParams, Reply

ASKED = [{"role": "user", "content": "where is it"}]
REPLY = Reply("there", "stop", 12, 3, ({"token": "there", "logprob": -0.5, "top": [["here", -1.0]]},), "m-1")
TEACHER = "t"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "requests.sqlite"


def test_an_answer_is_there_for_the_next_process(file: Path) -> None:
    with RequestCache(file) as cache:
        assert cache.get("a") is None
        assert cache.claim("a", TEACHER) == "claimed"
        cache.finish("a", REPLY, 0.25)
    with RequestCache(file) as cache:
        assert cache.get("a") == cache.claim("a", TEACHER) == Stored(REPLY, None)
        assert cache.get_many(["a", "b"]) == {"a": Stored(REPLY, None)}
        spent = cache.spent(TEACHER)
        assert (spent.calls, spent.prompt_tokens, spent.completion_tokens, spent.cost) == (1, 12, 3, 0.25)


def test_two_processes_do_not_send_one_request(file: Path) -> None:
    with RequestCache(file) as one, RequestCache(file) as other:
        assert one.claim("a", TEACHER) == "claimed"
        assert other.claim("a", TEACHER) == "busy"
        assert other.get("a") is None
        one.finish("a", REPLY, 0)
        assert other.claim("a", TEACHER) == Stored(REPLY, None)


def test_a_request_given_back_is_the_next_ones(file: Path) -> None:
    with RequestCache(file) as one, RequestCache(file) as other:
        one.claim("a", TEACHER)
        one.release("a")
        assert other.claim("a", TEACHER) == "claimed"
        one.claim("b", TEACHER)
        one.close()
        assert other.claim("b", TEACHER) == "claimed"
        one.__init__(file)  # type: ignore[misc]  # so that it can be closed again


def test_the_claims_of_a_killed_process_are_taken_over_and_booked_as_lost(file: Path) -> None:
    script = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom slmops.teachers.cache import RequestCache\n"
        "cache = RequestCache(Path(sys.argv[1]))\n"
        "print(cache.claim('a', 't', reserve=0.5), cache.claim('b', 't', reserve=0.25), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, timeout=30)
    assert done.stdout == "claimed claimed\n", done.stderr
    with RequestCache(file) as cache:
        assert cache.claimed() == 2
        assert cache.claim("a", TEACHER) == "claimed"
        assert cache.claim("b", TEACHER) == "claimed"
        spent = cache.spent(TEACHER)
        assert (spent.calls, spent.cost, spent.lost) == (0, 0.75, 0.75)
        assert cache.outcomes(TEACHER) == {"lost": 2}


def test_the_cap_counts_what_is_on_its_way(file: Path) -> None:
    with RequestCache(file) as one, RequestCache(file) as other:
        assert one.claim("a", TEACHER, reserve=0.6, max_cost=1.0) == "claimed"
        assert other.claim("b", TEACHER, reserve=0.6, max_cost=1.0) == "over the cap"
        assert other.claim("b", "another", reserve=0.6, max_cost=1.0) == "claimed"
        one.finish("a", REPLY, 0.3)
        assert other.claim("c", TEACHER, reserve=0.6, max_cost=1.0) == "claimed"


def test_a_useless_answer_costs_and_settles_nothing(file: Path) -> None:
    with RequestCache(file) as cache:
        cache.claim("a", TEACHER)
        cache.charge("a", "empty", 10, 0, 0.1)
        cache.release("a")
        assert cache.get("a") is None
        assert cache.spent(TEACHER).cost == 0.1
        cache.claim("a", TEACHER)
        cache.reject("a", "empty answer: 3 times")
        assert cache.get("a") == Stored(None, "empty answer: 3 times")


def test_whatever_changes_the_answer_changes_the_key() -> None:
    teacher = {"model": "m", "base_url": "http://h/v1"}
    keys = {
        request_key(teacher, ASKED, AskParams()),
        request_key({**teacher, "model": "n"}, ASKED, AskParams()),
        request_key(teacher, [*ASKED, {"role": "assistant", "content": "x"}], AskParams()),
        request_key(teacher, ASKED, AskParams(), "template"),
        request_key(teacher, ASKED, AskParams(temperature=0.7)),
        request_key(teacher, ASKED, AskParams(max_new_tokens=65)),
        request_key(teacher, ASKED, AskParams(top_logprobs=3)),
        request_key(teacher, ASKED, AskParams(draw=1)),
        request_key(teacher, ASKED, AskParams(stop=("\n",))),
    }
    assert len(keys) == 9
    assert request_key(teacher, [{"content": "where is it", "role": "user"}], AskParams()) in keys


def test_a_file_that_is_no_cache_is_refused(file: Path) -> None:
    file.write_text("this is no database, and long enough to be taken for one" * 20)
    with pytest.raises(ArtifactError, match="cannot be read"):
        RequestCache(file)


def test_another_version_is_refused(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(ArtifactError, match="another version"):
        RequestCache(file)
