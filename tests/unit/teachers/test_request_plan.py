"""What asking will need is said before the first call, without a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.teachers.base import Request
from slmops.teachers.cache import RequestCache, request_key
from slmops.teachers.catalogue import ApiOptions, find_api_model
from slmops.teachers.plan import plan_requests
from slmops.teachers.replies import AskParams, Reply

MODEL = find_api_model("gpt-4o")
PARAMS = AskParams(max_new_tokens=100)


def requests(count: int) -> list[Request]:
    return [Request(str(n), [{"role": "user", "content": f"{n:04} " + "x" * 395}], PARAMS) for n in range(count)]


def test_rows_tokens_cost_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    plan = plan_requests(MODEL, requests(1000), tmp_path / "none.sqlite", known_answers=["y" * 36])
    assert (plan.rows, plan.calls, plan.prompt_tokens) == (1000, 1000, 104_000)
    assert (plan.completion_tokens, plan.most_completion_tokens) == (10_000, 100_000)
    assert plan.cost == pytest.approx(0.104 * 2.5 + 0.01 * 10)
    assert plan.most_cost == pytest.approx(0.104 * 2.5 + 0.1 * 10)
    assert 10 < plan.seconds < 1000
    text = plan.describe()
    for part in (
        "1,000 rows",
        "104,000 in",
        "$0.36, at most $1.26",
        "OpenAI's terms",
        "2026-07",
        "note    OpenAI takes it off its API on 2027-01-14",
    ):
        assert part in text
    assert not list(tmp_path.iterdir())


def test_what_is_cached_or_asked_twice_costs_nothing(tmp_path: Path) -> None:
    file, asked = tmp_path / "c.sqlite", requests(10)
    with RequestCache(file) as cache:
        for request in asked[:4]:
            key = request_key(MODEL.identity, request.messages, request.params)
            cache.claim(key, "t")
            cache.finish(key, Reply("a", "stop", 1, 1, None, "m"), 0)
    plan = plan_requests(MODEL, [*asked, asked[0], asked[9]], file)
    assert (plan.rows, plan.cached, plan.calls) == (12, 5, 6)


def test_a_price_nobody_has_given_is_said_and_a_cap_below_the_cost_too(tmp_path: Path) -> None:
    own = find_api_model("m", ApiOptions(base_url="http://127.0.0.1:9/v1"))
    assert "at a price nobody has given" in plan_requests(own, requests(1), tmp_path / "c").describe()
    assert "cap     $0.01 is less than that" in plan_requests(MODEL, requests(100), tmp_path / "c", max_cost=0.01).describe()
