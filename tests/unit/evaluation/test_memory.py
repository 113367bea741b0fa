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


PEAKS = """
from slmops.evaluation.memory import Peak, resident_mb
import time
block = bytearray(b"x") * (200 * 2**20)
del block  # what was before does not count
with Peak() as small:
    held = bytearray(b"x") * (64 * 2**20)
    time.sleep(0.1)
    during = resident_mb()
    del held
with Peak() as large:
    held = bytearray(b"x") * (400 * 2**20)
    most = resident_mb()
    del held
print(small.mb, during, large.mb, most)
"""


def test_the_peak_of_a_block_is_its_own():
    printed = subprocess.run([sys.executable, "-c", PEAKS], check=True, capture_output=True, text=True).stdout
    small, during, large, most = map(float, printed.split())
    assert during - 2 <= small < during + 40
    assert most - 2 <= large < most + 40
