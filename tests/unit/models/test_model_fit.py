"""A model too big for the machine is refused with a word on what to use instead."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from slmops.errors import ResourceError
from slmops.models import fit
from slmops.models.catalogue import CATALOGUE
from slmops.models.fit import check_disk, check_fits, memory_available_mb, memory_needed_mb


@pytest.fixture
def sixteen_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "memory_available_mb", lambda: 16_000.0)


def test_training_needs_more_than_lora_and_lora_more_than_inference() -> None:
    full, lora, inference = (memory_needed_mb(135_000_000, purpose) for purpose in ("training-full", "training-lora", "inference"))
    assert full > lora > inference > 135 * 4


def test_the_estimate_grows_with_batch_and_width_of_the_weights() -> None:
    assert memory_needed_mb(10**9, "training-full", batch_tokens=4096) > memory_needed_mb(10**9, "training-full", batch_tokens=1024)
    four, two = (memory_needed_mb(10**9, "inference", bytes_per_parameter=size) for size in (4, 2))
    assert four - two == pytest.approx(2000)


@pytest.mark.parametrize(("purpose", "tokens", "measured_mb"), [("training-full", 1024, 4300), ("training-lora", 1024, 3546)])
def test_the_estimate_is_near_the_measured_peak_of_a_model_of_135_million(
    purpose: fit.Purpose, tokens: int, measured_mb: float
) -> None:
    assert 1.0 <= memory_needed_mb(134_515_008, purpose, batch_tokens=tokens) / measured_mb <= 1.25


def test_a_small_model_fits(sixteen_gigabytes: None) -> None:
    check_fits(135_000_000, "training-full", what="smollm2-135m-instruct")


def test_a_teacher_of_405_billion_is_refused_and_the_biggest_that_fits_is_named(sixteen_gigabytes: None) -> None:
    with pytest.raises(ResourceError) as refused:
        check_fits(
            CATALOGUE["llama-3.1-405b-instruct"].parameters, "inference", what="llama-3.1-405b-instruct", bytes_per_parameter=2
        )
    assert "405.9 billion parameters" in str(refused.value)
    assert "16.0 GB are available" in str(refused.value)
    assert "use a smaller model, such as phi-4-mini" in str(refused.value)


def test_the_alternative_fits_the_same_purpose(sixteen_gigabytes: None) -> None:
    with pytest.raises(ResourceError, match=r"such as smollm2-360m-instruct|such as qwen2\.5-0\.5b-instruct"):
        check_fits(8 * 10**9, "training-full", what="llama-3.1-8b-instruct")


def test_the_available_memory_is_that_of_the_machine_or_less() -> None:
    import psutil

    assert 0 < memory_available_mb() * 1e6 <= psutil.virtual_memory().total


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 9 * 10**8, 10**8))
    check_disk(tmp_path / "not" / "made" / "yet", 90)
    with pytest.raises(ResourceError, match="538 MB of disk are needed and 100 MB are free"):
        check_disk(tmp_path / "not" / "made" / "yet", 538)
    assert not (tmp_path / "not").exists()
