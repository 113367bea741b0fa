"""The command line, in a process that dies in its updates, or with weights spread over processes without a GPU.

Arguments: the update after which the last process is killed (0: none), ``whole`` or ``spread``, and a command's words.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from slmops import cli
from slmops.launched import Launch
from slmops.training import processes, watching


def die_after(update: int) -> None:
    end = watching.Watcher.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **more: Any) -> Any:
        if state.global_step > update and int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return end(self, args, state, control, **more)

    watching.Watcher.on_step_end = on_step_end  # type: ignore[method-assign]


def spread_on_processors() -> None:
    """Have accelerate take processors for GPUs: it spreads weights over those alone."""
    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "ACCELERATE_TORCH_DEVICE": "cpu",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    }
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
    join, gather = processes.join, processes._gathered

    def still_spread(launch: Launch) -> None:
        join(launch)
        os.environ["ACCELERATE_USE_FSDP"] = "true"

    def seen(model: Any) -> Any:
        kinds = {type(one.data).__name__ for one in model.parameters()}
        assert "DTensor" in kinds, kinds
        return gather(model)

    processes.join, processes._gathered = still_spread, seen


if __name__ == "__main__":
    update, weights, *words = sys.argv[1:]
    if int(update):
        die_after(int(update))
    if weights == "spread":
        spread_on_processors()
    cli.main(words)
