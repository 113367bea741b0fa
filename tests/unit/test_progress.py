from __future__ import annotations

import pytest

from slmops import progress as module
from slmops.progress import duration, progress, say


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (7800, "2 h 10 min")],
)
def test_a_duration_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    with progress("answers", 10, "rows") as advance:
        advance(4)
        advance(6)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hello\n  answers: 10/10 rows, ")


def test_lines_come_now_and_then_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier run finished counts for the total and not for the rate."""
    clock = iter([0.0, 5.0, 20.0, 20.0, 21.0, 21.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("answers", 100, "rows", done=40) as advance:
        advance(5)
        advance(5)
    assert capsys.readouterr().err.splitlines() == [
        "  answers: 50/100 rows, 0.5 rows/s, 20 s, ETA 1 min 40 s",
        "  answers: 50/100 rows, 0.5 rows/s, 21 s, ETA 1 min 45 s",
    ]


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress("answers", 10, "rows", done=2) as advance:
        advance(8)
    assert "10/10" in capsys.readouterr().err
