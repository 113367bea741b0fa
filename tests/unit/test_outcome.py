"""A run in which nothing was packaged says which gate is open, and what would close it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slmops.errors import GateError, InconclusiveError
from slmops.evaluation.gates import GateResult
from slmops.pipeline import Outcome

REPORT: Any = SimpleNamespace()


def test_an_open_gate_of_times_asks_for_more_of_them(tmp_path: Path) -> None:
    opened = (
        GateResult("accuracy >= 0.8", "passed", "0.9 against 0.8"),
        GateResult("latency_p50_ms <= 20", "INCONCLUSIVE", "19.000 [15.000, 23.000] against 20.000", 60),
    )
    with pytest.raises(InconclusiveError) as told:
        Outcome(tmp_path, REPORT, None, "INCONCLUSIVE", opened).raise_for_gates()
    assert "latency_p50_ms <= 20: 19.000 [15.000, 23.000] against 20.000" in str(told.value)
    assert "about 60 more timed requests would tell; raise evaluation.latency_requests" in str(told.value)
    assert "accuracy" not in str(told.value)


def test_what_was_packaged_raises_nothing_and_what_fails_is_said(tmp_path: Path) -> None:
    Outcome(tmp_path, REPORT, "distilled", "passed").raise_for_gates()
    with pytest.raises(GateError, match="no model passes the gates"):
        Outcome(tmp_path, REPORT, None, "failed").raise_for_gates()
