"""The benchmarks run from end to end; what they measure is no matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slmops.testing.tiny import save_tiny_model

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_generation_prints_a_ratio_for_each_comparison(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny", seed=3)
    command = [sys.executable, str(ROOT / "benchmarks" / "generation.py"), "--model", str(tmp_path / "tiny"), "--json"]
    command += ["--prompts", "8", "--tokens", "8", "--rounds", "1", "--slow", "2", "--output_path", str(tmp_path / "runs")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    compared = {row["against"]: row["speedup"] for row in result["results"]}
    assert {"one at a time, without OpenVINO", "engine driven bare"} <= set(compared)
    assert all(speedup > 0 for speedup in compared.values())
    assert result["agreement"]["with the slow loop"]["prompts"] == 2
