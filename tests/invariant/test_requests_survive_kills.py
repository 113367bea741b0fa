"""2,000 requests over a line with 30 % faults, killed ten times: every row ends, in order, and is paid once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import killed_requests

from slmops.files import canonical, read_json
from slmops.teachers.cache import RequestCache
from slmops.testing.faults import Faults, FaultServer

ROWS, KILLS = 2000, 10
FAULTS = Faults(
    rate_limit=0.05,
    server_error=0.045,
    unavailable=0.03,
    timeout=0.005,
    reset=0.05,
    html=0.04,
    bad_json=0.03,
    empty=0.03,
    truncated=0.02,
)
PATIENCE_SECONDS = 60


def start(server: FaultServer, cache: Path, result: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, killed_requests.__file__, server.url, str(cache), str(result), str(ROWS)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def kill_after(process: subprocess.Popen[bytes], server: FaultServer, answers: int) -> None:
    """SIGKILL after so many more answers, wherever the process is."""
    enough, deadline = server.paid + answers, time.monotonic() + PATIENCE_SECONDS
    while server.paid < enough:
        assert process.poll() is None, f"it ended by itself with {process.returncode}"
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.002)
    process.kill()
    process.wait()


def test_every_row_ends_and_is_paid_once(tmp_path: Path) -> None:
    file, result = tmp_path / "requests.sqlite", tmp_path / "result.json"
    draw, under_way = random.Random(7), 0
    assert round(sum(vars(FAULTS).values()), 9) == 0.3
    with FaultServer(FAULTS, seed=11, latency_s=0.004, hang_s=4) as server:
        for _ in range(KILLS):
            kill_after(start(server, file, result), server, draw.randint(40, 220))
            with RequestCache(file) as cache:
                under_way += cache.claimed()
        assert not result.exists(), "it was done before the last kill"
        assert start(server, file, result).wait(PATIENCE_SECONDS) == 0
        faults = sum(server.met.values())

    rows = read_json(result)
    assert [name for name, _, _ in rows] == [f"row-{number}" for number in range(ROWS)]
    for number, (_, text, reason) in enumerate(rows):
        assert text == f"echo: question {number}" if reason is None else text is None and reason
    answered = sum(reason is None for _, _, reason in rows)
    assert answered >= 0.99 * ROWS

    assert set(server.met) == {name for name, share in vars(FAULTS).items() if share}
    assert faults > 0.2 * server.requests
    assert 0 < under_way <= KILLS * killed_requests.OPTIONS.max_concurrency
    print(
        f"{ROWS} rows, {answered} answered, {server.requests} requests, {faults} faults, {under_way} under way at the kills, ",
        end="",
    )
    print(f"{server.paid} paid of at most {ROWS + faults + under_way}")
    assert server.paid <= ROWS + faults + under_way

    with RequestCache(file) as cache:
        name = canonical(killed_requests.teacher(server.url).model.identity)
        spent, outcomes = cache.spent(name), cache.outcomes(name)
    assert outcomes["answer"] == answered
    assert spent.calls <= server.paid <= spent.calls + outcomes["lost"]  # the bill is known: what was lost is booked too
