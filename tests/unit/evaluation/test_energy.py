from __future__ import annotations

import pytest

from slmops.evaluation.energy import Energy
from slmops.evaluation.running import watched


@pytest.fixture
def powercap(tmp_path):
    """A machine with two processors; the cores are part of the first, its memory is not."""

    def domain(place: str, name: str, energy: int) -> None:
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        for file, value in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", 1_000_000)):
            (folder / file).write_text(f"{value}\n")

    def write(first: int, cores: int, memory: int, second: int):
        domain("intel-rapl:0", "package-0", first)
        domain("intel-rapl:0:0", "core", cores)
        domain("intel-rapl:0:1", "dram", memory)
        domain("intel-rapl:1", "package-1", second)
        domain("intel-rapl:2", "psys", 5 * first)
        return Energy.now(tmp_path)

    return write


def test_packages_and_memory_add_up_and_what_is_inside_them_does_not(powercap):
    before, after = powercap(0, 0, 0, 0), powercap(400_000, 300_000, 50_000, 100_000)
    assert after.joules_since(before) == pytest.approx(0.55)


def test_a_counter_that_started_again_is_followed(powercap):
    before, after = powercap(900_000, 0, 0, 0), powercap(100_000, 0, 0, 0)
    assert after.joules_since(before) == pytest.approx(0.2)


def test_a_machine_that_does_not_tell_gives_a_sentence_and_no_number(tmp_path):
    nothing = Energy.now(tmp_path)
    assert nothing.joules_since(nothing) is None
    with watched(tmp_path) as used:
        pass
    assert used.joules is None
    assert "does not tell" in used.energy


def test_counters_that_nobody_may_read_give_a_sentence(tmp_path):
    folder = tmp_path / "intel-rapl:0"
    (folder / "energy_uj").mkdir(parents=True)  # cannot be read as a file, whoever asks
    (folder / "name").write_text("package-0\n")
    assert "root" in Energy.now(tmp_path).why
