"""Asks a teacher for all rows and writes what became of them; started again and again by a test that kills it.

Arguments: base URL, file of the cache, file of the result, number of rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from slmops.files import write_json
from slmops.teachers.api import ApiTeacher
from slmops.teachers.base import Request
from slmops.teachers.cache import RequestCache
from slmops.teachers.catalogue import ApiOptions
from slmops.teachers.replies import AskParams
from slmops.teachers.requests import RequestOptions, ask_all

OPTIONS = RequestOptions(max_concurrency=32, max_attempts=10, backoff_s=0.01, max_backoff_s=0.1)
PARAMS = AskParams(max_new_tokens=16)


def teacher(url: str) -> ApiTeacher:
    return ApiTeacher.find("test-model", ApiOptions(base_url=url, timeout_s=2, price_input=1.0, price_output=2.0))


def requests(count: int) -> list[Request]:
    return [Request(f"row-{n}", [{"role": "user", "content": f"question {n}"}], PARAMS) for n in range(count)]


if __name__ == "__main__":
    url, file, result = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    with RequestCache(file) as cache:
        asked = ask_all(teacher(url), requests(int(sys.argv[4])), cache, OPTIONS)
    write_json(result, [[outcome.id, outcome.reply and outcome.reply.text, outcome.reason] for outcome in asked.outcomes])
