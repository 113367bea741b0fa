"""A command that a launcher started in several processes: ``torchrun``, ``accelerate launch`` or ``mpirun``.

The first process is the leader: it runs the command, and alone prints, locks, downloads, prepares and writes. The others run
nothing of the command; they wait for the trainings that the leader hands out (:mod:`slmops.training.processes`).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec

from slmops.errors import ResourceError, SlmopsError, UsageError
from slmops.progress import say

TOGETHER = ("finetune", "run")
"""Verbs whose trainings several processes share."""

# As accelerate reads them, the first of torchrun's and the others of several MPIs.
_RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_SIZE = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_RANK = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
_LOCAL_SIZE = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")


@dataclass(frozen=True)
class Launch:
    """What a launcher says of this process.

    Args:
        rank: Its number among all.
        size: Processes in all, on all machines.
        local_rank: Its number among those on this machine.
        local_size: Processes on this machine.
        sharding: ``FSDP`` or ``DeepSpeed``, where accelerate is told to spread a model's weights over the processes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    sharding: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Launch:
        """That of an environment; without a launcher, a process that is alone."""
        if not environment.get("MASTER_ADDR"):  # some schedulers give numbers to processes that have nothing to do with each other
            return cls()
        sharding = next((name for name in ("FSDP", "DeepSpeed") if _is_on(environment, f"ACCELERATE_USE_{name.upper()}")), None)
        size = _number(environment, _SIZE, 1)
        if size == 1 and sharding is None:
            return cls()
        local = _number(environment, _LOCAL_RANK, 0), _number(environment, _LOCAL_SIZE, 1)
        return cls(_number(environment, _RANK, 0), size, *local, sharding)

    @property
    def several(self) -> bool:
        """Whether there are others, or the weights are spread."""
        return self.size > 1 or self.sharding is not None

    def check(self, verb: str) -> None:
        """Refuse what several processes cannot do.

        Raises:
            UsageError: They do not share the work of this verb.
            ResourceError: A package is missing.
        """
        if verb not in TOGETHER:
            self.refuse(verb)
        if self.sharding == "DeepSpeed" and find_spec("deepspeed") is None:
            raise ResourceError(
                "accelerate is told to use DeepSpeed, and the package 'deepspeed' is not installed",
                where="accelerate's configuration",
                fix="pip install deepspeed, or choose FSDP or multi-GPU with: accelerate config",
            )

    def refuse(self, what: str) -> None:
        """Refuse work that several processes do not share; where there is one, nothing happens.

        Raises:
            UsageError: There are several.
        """
        if self.several:
            raise UsageError(
                f"{what} runs in one process, and a launcher started {self.size}",
                fix="start it by itself; torchrun and accelerate launch are for slmops finetune, and slmops run with its recipes",
            )


def together(verb: str, command: Callable[[], None]) -> None:
    """Run a command as the process that this is: alone, as the leader, or as one that helps in the leader's trainings.

    Raises:
        SlmopsError: Of the command, and of :meth:`Launch.check`; only the leader says so.
    """
    launch = Launch.of(os.environ)
    if not launch.several:
        _say_if_alone_by_mistake(os.environ)
        command()
        return
    try:
        launch.check(verb)
        if launch.rank > 0:
            _follow(launch)
            return
    except SlmopsError as error:
        if launch.rank > 0:
            sys.exit(error.exit_code)
        raise
    from slmops.training.processes import dismiss, join

    join(launch)
    try:
        command()
    except SystemExit as end:
        if end.code:  # the launcher ends the others
            raise
    dismiss()


def _follow(launch: Launch) -> None:
    from slmops.training.processes import follow, join

    # Nothing of Python runs while this process waits for the leader.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        join(launch)
        follow()


def _say_if_alone_by_mistake(environment: Mapping[str, str]) -> None:
    """``accelerate launch --cpu --num_processes 2`` starts one process, with an address that nothing but several would need."""
    if _is_on(environment, "ACCELERATE_USE_CPU") and environment.get("MASTER_ADDR"):
        say(
            "accelerate launch --cpu started one process; it starts several by mpirun alone (--mpirun_hostfile)\n"
            "  → on this machine: torchrun --nproc_per_node 2 -m slmops …, or accelerate launch --multi_gpu --num_processes 2 …"
        )


def _is_on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in ("1", "true", "yes")


def _number(environment: Mapping[str, str], names: tuple[str, ...], otherwise: int) -> int:
    given = (environment.get(name, "") for name in names)
    return next((int(value) for value in given if value.isdecimal()), otherwise)
