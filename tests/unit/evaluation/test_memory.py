from __future__ import annotations

import subprocess
import sys

import pytest

GROWS = """
from slmops.evaluation.memory import peak_mb, resident_mb
before = resident_mb()
block = bytearray(b"x") * (64 * 2**20)
held = resident_mb()
del block
print(before, held, resident_mb(), peak_mb())
"""


@pytest.mark.parametrize("carried_mb", [0, 200])
def test_the_peak_keeps_what_was_freed_and_nothing_of_the_process_that_started_it(carried_mb):
    carried = bytearray(b"x") * (carried_mb * 2**20)
    printed = subprocess.run([sys.executable, "-c", GROWS], check=True, capture_output=True, text=True).stdout
    before, held, after, peak = map(float, printed.split())
    assert held - before > 60
    assert held - after > 30
    assert held - 2 <= peak < held + 40, len(carried)
