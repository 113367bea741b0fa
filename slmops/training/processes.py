"""One training by several processes: each has some rows of every batch.

The batches and updates are those of one process. A process computes the loss of its rows, the gradients are added, and each makes
the same update, so that what comes out does not depend on the number of processes but for the order in which numbers are added:
without dropout, losses in float32 agree to 1e-5, and weights to some hundredths of the learning rate, where Adam divides a gradient
that is nearly zero by itself. (With dropout each process draws its own.) A training that was interrupted goes on with any number.

The gradients are added here, after the backward pass, and not by PyTorch's DistributedDataParallel, which counts on calls of the
model as a whole. So all that makes one process fast stays: answer positions alone, shared prefixes, threads with rows of their own.
Where accelerate spreads the weights themselves (FSDP, DeepSpeed) that is not possible, and the model is called as a whole.

Processes on several machines need one file system: all read the model and the checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import distributed

from slmops.errors import ConfigError, SlmopsError, UsageError
from slmops.launched import Launch
from slmops.models.fit import physical_cores
from slmops.progress import say
from slmops.sections import TrainingSection
from slmops.training.checkpoints import save_best, trained_weights
from slmops.training.parallel import split

_PATIENCE = timedelta(days=30)
"""How long a process waits for the others; the leader may prepare data and fetch models for hours."""

_BUCKET = 1 << 22
"""Values of gradients that travel together."""

_STANDS_IN = "stands_in"
"""Field of a batch whose rows are another process's, so that all run as many forward passes."""

_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Team:
    """The processes of a training, seen from one of them.

    Args:
        rank: Its number.
        size: Processes in all.
        sharded: Whether the weights are spread over them.
    """

    rank: int = 0
    size: int = 1
    sharded: bool = False

    @classmethod
    def here(cls) -> Team:
        """That of this process; one that is alone without a launcher.

        Raises:
            UsageError: A launcher started several processes, and they are not joined.
        """
        launch = Launch.of(os.environ)
        if not launch.several:
            return cls()
        if not distributed.is_initialized():
            raise UsageError(
                f"{launch.size} processes were started, and only the command line shares a training among them",
                fix="torchrun --nproc_per_node 2 -m slmops finetune …",
            )
        return cls(launch.rank, launch.size, launch.sharding is not None)

    def check(self, section: TrainingSection) -> None:
        """Refuse what cannot be spread.

        Raises:
            ConfigError: Weights in few bits.
        """
        if self.sharded and section.lora is not None and section.lora.bits is not None:
            raise ConfigError(
                "weights in few bits are not spread over processes",
                where="training.lora.bits",
                fix="take lora, or multi-GPU in place of FSDP or DeepSpeed with: accelerate config",
            )

    @property
    def leads(self) -> bool:
        """Whether this process writes and says."""
        return self.rank == 0

    def decided(self, decide: Callable[[], _T]) -> _T:
        """What the leader finds, in all processes."""
        if self.size == 1:
            return decide()
        return _sent(decide() if self.leads else None)  # type: ignore[no-any-return]  # pickled: of what type, the leader's side says

    def summed(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return [float(value) for value in total]

    def share(self, batch: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The rows of a batch that are this process's, and all pairs of texts; where there are too few, rows that do not count.

        Args:
            batch: Of :func:`slmops.training.batches.collate`, without a teacher's layers.
        """
        if self.size == 1:
            return batch
        rows = len(batch["input_ids"])
        part = split(batch, min(rows, self.size))[self.rank % rows]
        stands_in = {_STANDS_IN: torch.tensor(True)} if self.rank >= rows else {}
        return {**batch, **part, **stands_in}

    def start_alike(self, model: Any) -> None:
        """Give all processes the leader's weights, of those that are trained."""
        if self.size == 1 or self.sharded:
            return
        for one in _trained(model):
            distributed.broadcast(one.data, src=0)

    def average_gradients(self, model: Any) -> None:
        """Give all processes the mean of their gradients; a weight that none has a gradient of keeps none."""
        if self.size == 1 or self.sharded:
            return
        trained = list(_trained(model))
        has = torch.tensor([one.grad is not None for one in trained], dtype=torch.uint8)
        distributed.all_reduce(has, distributed.ReduceOp.MAX)
        gradients = []
        for one, anywhere in zip(trained, has.tolist(), strict=True):
            if anywhere:
                one.grad = torch.zeros_like(one) if one.grad is None else one.grad
                gradients.append(one.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([one.reshape(-1) for one in bucket])
            distributed.all_reduce(flat)
            flat /= self.size
            for one, mean in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                one.copy_(mean.view_as(one))

    def keep(self, work: Path, model: Any) -> None:
        """:func:`slmops.training.checkpoints.save_best` by the leader; all processes call it."""
        kept = _gathered(model) if self.sharded else trained_weights(model)
        if self.leads:
            save_best(work, kept)


def counting(batch: Mapping[str, torch.Tensor]) -> float:
    """1, or 0 where the rows that :meth:`Team.share` gave do not count."""
    return 0.0 if _STANDS_IN in batch else 1.0


def by_all(training: Callable[_P, _T]) -> Callable[_P, _T]:
    """A training that the leader is asked for and all processes do, with the leader's arguments; the result is the leader's."""

    @wraps(training)
    def shared(*arguments: _P.args, **options: _P.kwargs) -> _T:
        team = Team.here()
        if team.leads and team.size > 1:
            say(f"  {team.size} processes, each with some rows of every batch")
            _sent((shared, arguments, options))
        return training(*arguments, **options)

    return shared


def join(launch: Launch) -> None:
    """Meet the other processes, on the devices that accelerate gives them, and share the cores of a machine evenly.

    Raises:
        ConfigError: A way of spreading the weights that is not supported.
    """
    on_gpu = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true", "yes")
    if on_gpu:
        torch.cuda.set_device(launch.local_rank)
    elif launch.sharding is not None:
        # accelerate spreads weights over GPUs alone, but transformers would leave them out in all processes but the first.
        os.environ.pop(f"ACCELERATE_USE_{launch.sharding.upper()}")
        say(f"{launch.sharding} needs GPUs: here each process has all weights")
    if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3" and launch.sharding == "DeepSpeed":
        raise ConfigError(
            "DeepSpeed's ZeRO-3 is not supported", where="accelerate's configuration", fix="take FSDP, or zero_stage: 2"
        )
    # Launchers set one thread where the user says nothing.
    given = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(int(given) if given.isdecimal() and int(given) > 1 else max(1, physical_cores() // launch.local_size))
    if not distributed.is_initialized():
        os.environ.setdefault("MASTER_PORT", "29500")
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        distributed.init_process_group(backend, rank=launch.rank, world_size=launch.size, timeout=_PATIENCE)


def follow() -> None:
    """Do what the leader hands out until it dismisses this process.

    Raises:
        SystemExit: The leader is gone, or says what is wrong.
    """
    while True:
        try:
            job = _sent(None)
        except RuntimeError as error:
            raise SystemExit(1) from error
        if job is None:
            break
        training, arguments, options = job
        try:
            training(*arguments, **options)
        except SlmopsError as error:  # the leader's too
            raise SystemExit(error.exit_code) from error
    distributed.destroy_process_group()


def dismiss() -> None:
    """Let the other processes end."""
    if distributed.get_world_size() > 1:
        _sent(None)
    distributed.destroy_process_group()


def _sent(value: Any) -> Any:
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def _trained(model: Any) -> Iterator[torch.nn.Parameter]:
    return (one for one in model.parameters() if one.requires_grad)


def _buckets(gradients: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Stretches of about so many values, of one number type each."""
    bucket: list[torch.Tensor] = []
    for one in gradients:
        if bucket and (one.dtype is not bucket[0].dtype or sum(each.numel() for each in bucket) + one.numel() > _BUCKET):
            yield bucket
            bucket = []
        bucket.append(one)
    if bucket:
        yield bucket


def _gathered(model: Any) -> dict[str, torch.Tensor]:
    """The trained weights, each whole, in the leader's memory."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    names = set()
    for name, one in model.named_parameters():
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, "")
        if one.requires_grad:
            names.add(name)
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: tensor for name, tensor in whole.items() if name in names}
