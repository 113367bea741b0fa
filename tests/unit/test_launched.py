"""What a process learns from its launcher, and what several processes are refused; each process is asked by itself."""

from __future__ import annotations

import pytest

from slmops.errors import UsageError
from slmops.launched import Launch
from tests.commands import Call

TORCHRUN = {"MASTER_ADDR": "localhost", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**TORCHRUN, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)


def test_without_a_launcher_a_process_is_alone() -> None:
    assert Launch.of({}) == Launch(rank=0, size=1, local_rank=0, local_size=1, sharding=None)
    assert not Launch.of({"WORLD_SIZE": "8", "RANK": "3"}).several  # of a scheduler: there is nobody to meet
    assert not Launch.of({**TORCHRUN, "WORLD_SIZE": "1"}).several


def test_a_launcher_says_which_of_how_many_this_is() -> None:
    assert Launch.of(TORCHRUN) == Launch(5, 8, 1, 4)
    mpi = {"MASTER_ADDR": "n1", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    assert Launch.of({**mpi, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}) == Launch(1, 2, 1, 2)


def test_spread_weights_count_as_several_processes() -> None:
    one = {**TORCHRUN, "WORLD_SIZE": "1", "ACCELERATE_USE_FSDP": "true"}
    assert Launch.of(one).several
    assert Launch.of(one).sharding == "FSDP"
    assert Launch.of({**TORCHRUN, "ACCELERATE_USE_DEEPSPEED": "false"}).sharding is None


@pytest.mark.usefixtures("launched")
def test_other_commands_are_refused_at_once_and_say_which_are_not(call: Call) -> None:
    done = call("distill", "--help")
    assert done.code == 2
    assert "distill runs in one process, and a launcher started 8" in done.err
    assert "slmops finetune" in done.err


def test_all_but_the_first_process_refuse_without_a_word(launched: None, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    done = call("evaluate")
    assert (done.code, done.out, done.err) == (2, "", "")


@pytest.mark.usefixtures("launched")
def test_a_missing_package_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("slmops.launched.find_spec", lambda name: None)
    done = call("finetune", "--help")
    assert done.code == 2
    assert "pip install deepspeed" in done.err


@pytest.mark.usefixtures("launched")
def test_a_recipe_with_a_teacher_is_refused() -> None:
    from slmops.config import Recipe
    from slmops.pipeline import run

    with pytest.raises(UsageError, match="a recipe with a teacher runs in one process"):
        run(Recipe.model_construct())


def test_a_single_process_of_accelerate_is_said(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several were asked for there is an address, and accelerate's launcher for processors starts one all the same."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert call("--version").err == ""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert "--nproc_per_node" in call("--version").err
