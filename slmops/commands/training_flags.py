"""Flags of a training by the names that transformers and Olive give them, and what they are in a recipe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from slmops.errors import UsageError
from slmops.progress import say

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_LEVELS = ("debug", "info", "warning", "error", "critical")

LogLevel = Annotated[
    str | None, typer.Option("--log_level", help="0 debug, 1 info, 2 warning, 3 error, 4 critical, or the name; left out: info")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust_remote_code", help="Run Python code from the model's folder, if it has some")
]
LoggingSteps = Annotated[int | None, typer.Option("--logging_steps", min=1, help="Updates between lines of progress and reports")]
EvalSteps = Annotated[
    int | None, typer.Option("--eval_steps", min=1, help="Updates between looks at the validation loss; left out: eight looks")
]
SaveSteps = Annotated[int | None, typer.Option("--save_steps", min=1, help="Updates between checkpoints; left out: one a minute")]
SaveTotalLimit = Annotated[int | None, typer.Option("--save_total_limit", min=1, help="Checkpoints kept while it runs")]
LoggingDir = Annotated[Path | None, typer.Option("--logging_dir", help="Folder for TensorBoard; left out: OUTPUT/logs")]
ReportTo = Annotated[
    list[str] | None,
    typer.Option("--report_to", help="tensorboard, wandb, mlflow, …, all or none; several with commas or given again"),
]
EvalBatchSize = Annotated[
    int | None, typer.Option("--per_device_eval_batch_size", min=1, help="Rows a forward pass of a look at the validation loss")
]
GradientCheckpointing = Annotated[
    bool | None,
    typer.Option("--gradient_checkpointing/--no_gradient_checkpointing", help="Less memory: compute activations twice"),
]
WarmupRatio = Annotated[
    float | None, typer.Option("--warmup_ratio", min=0, help="Share of the updates in which the learning rate rises")
]
WarmupSteps = Annotated[int | None, typer.Option("--warmup_steps", min=0, help="Updates in which it rises; before the ratio")]
WeightDecay = Annotated[float | None, typer.Option("--weight_decay", min=0, help="AdamW's")]
Scheduler = Annotated[
    str | None, typer.Option("--lr_scheduler_type", help="cosine, linear, constant, … as transformers names them")
]
GroupByLength = Annotated[
    bool | None, typer.Option("--group_by_length/--no_group_by_length", help="Batches are of rows of like length always")
]
Fp16 = Annotated[bool | None, typer.Option("--fp16/--no_fp16", help="Mixed precision: bfloat16 where the processor has it")]
Bf16 = Annotated[bool | None, typer.Option("--bf16/--no_bf16", help="The same; false: float32")]
MaxLength = Annotated[
    int | None, typer.Option("--max_seq_length", "--max_length", min=8, help="Longest row in tokens; longer ones are set aside")
]
MaxGradNorm = Annotated[float | None, typer.Option("--max_grad_norm", help="Gradients are clipped to this norm")]


class WithTruthValues(TyperCommand):
    """A command whose switches may be followed by ``true`` or ``false``, as those of transformers and Olive are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--switch true`` for ``--switch``, and ``--switch false`` for its opposite or, where it has none, for nothing."""
        switches = {name: one for one in self.params if getattr(one, "is_bool_flag", False) for name in one.opts}
        plain: list[str] = []
        left = list(args)
        while left:
            word = left.pop(0)
            name, equals, value = word.partition("=")
            name = "--" + name[2:].replace("-", "_") if name.startswith("--") else name
            if name not in switches:
                plain.append(word)
                continue
            if not equals and left and left[0].lower() in (*_TRUE, *_FALSE):
                value = left.pop(0)
            if value.lower() in _FALSE:
                plain += switches[name].secondary_opts[:1]
            elif value.lower() in ("", *_TRUE):
                plain.append(name)
            else:
                raise UsageError(f"{value!r} is neither true nor false", where=name, fix=f"{name} true, or {name} false")
        return super().parse_args(ctx, plain)


def level_of(text: str | None) -> int:
    """A level of ``logging`` by Olive's number or its name.

    Raises:
        UsageError: There is no such level.
    """
    if text is None:
        return logging.INFO
    plain = text.strip().lower()
    names = {**{str(number): name for number, name in enumerate(_LEVELS)}, "warn": "warning"}
    name = names.get(plain, plain)
    if name not in _LEVELS:
        known = ", ".join(f"{number} {level}" for number, level in enumerate(_LEVELS))
        raise UsageError(f"no log level {text!r}", where="--log_level", fix=f"one of {known}")
    return int(getattr(logging, name.upper()))


def require(given: Mapping[str, Any], what: Mapping[str, str]) -> None:
    """Refuse a command without what it cannot do without.

    Args:
        given: Values by flag.
        what: What to give, by flag.

    Raises:
        UsageError: Names all flags that are missing, and what to give.
    """
    missing = [flag for flag, value in given.items() if value is None]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            fix="\n    ".join(f"{flag} {what[flag]}" for flag in missing),
        )


def precision_of(fp16: bool | None, bf16: bool | None) -> str | None:
    """The recipe's precision for transformers' two switches; says what it makes of them.

    Raises:
        UsageError: Both are wanted.
    """
    if fp16 and bf16:
        raise UsageError("--fp16 and --bf16 cannot both be true", fix="take --bf16 true")
    if not fp16 and not bf16:
        return None if fp16 is None and bf16 is None else "float32"
    from slmops.training.machine import autocast_type

    flag = "--fp16" if fp16 else "--bf16"
    if autocast_type("auto") is None:
        say(f"{flag}: this processor does not multiply numbers of 16 bits, so it is trained in float32", logging.WARNING)
        return "float32"
    if fp16:
        say("--fp16: trained in bfloat16, which has as few bits and the range of float32", logging.WARNING)
    return "bfloat16"


def note_mapped(*, group_by_length: bool | None, logging_dir: Path | None, report_to: list[str] | None) -> None:
    """Say which flags have no effect of their own."""
    if group_by_length is False:
        say("--group_by_length false: batches are of rows of like length all the same, which saves padding", logging.WARNING)
    named = ",".join(report_to or [])
    if logging_dir is not None and not any(name in named for name in ("tensorboard", "all")):
        say("--logging_dir: nothing is written there without --report_to tensorboard", logging.WARNING)
