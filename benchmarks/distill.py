"""How fast distillation trains, beside TRL's GKD trainer: the same teacher, student, rows, batches and objective in one run.

    python benchmarks/distill.py [--vocabulary 8000] [--train_embeddings] [--json]

Both sides train the same student, cut from the teacher's first layers, with the generalized Jensen-Shannon divergence alone, in
bfloat16 autocast where the processor has it, with AdamW, the same rows, batch size and number of updates, each in a process of
its own, with glibc told to keep freed memory. They take turns, since a machine's speed drifts. TRL's trainer runs the teacher in
every step (off-policy: nothing is generated); ours takes the teacher's distributions once and trains from them. Embeddings are
frozen on both sides, as in the package's recipes, unless they are to be trained.

- ``speedup_training``: real tokens (no padding) a second of the updates, ours over TRL's; the first updates do not count.
- ``speedup``: the same with the time of the signal pass spread over three epochs.
- ``memory``: the highest resident set of a process, ours over TRL's; the signal pass counts as ours.
- ``loss``: in float32 with k = vocabulary, the same batch and weights on both sides: how far apart the two values are.

With ``--vocabulary`` our student's vocabulary is trimmed to so many tokens; TRL's side stays as it is. After the same number of
updates the mean negative log-likelihood of the answers of rows that neither has seen is printed for both students.
Needs the extra ``benchmarks``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from distill_sides import SIDES, model_of
from sides import (
    HELD_OUT,
    against,
    in_a_process,
    lengths,
    machine,
    middle,
    read_rows,
    rows_of,
    target_lines,
    template_of,
    write_rows,
)

from slmops.files import read_json, write_json
from slmops.models.load import parameter_count
from slmops.models.resolve import resolve
from slmops.models.shrink import Wish, cut_model, plan_cut
from slmops.workspace import remove_tree

TARGETS = {"speedup_training": 7.0, "speedup": 5.0, "memory": 0.4, "loss": 1e-3}
_TRIMMED_TARGET = 12.0
_EPOCHS = 3


def main() -> None:
    """Make the models and rows, run both sides, and print their figures and the ratios."""
    options = parsed()
    if options.side is not None:
        print(json.dumps(SIDES[options.side](options)))
        return
    prepare(options)
    rounds = [{side: in_a_process(side) for side in ("signals", "ours", "trl")} for _ in range(options.rounds)]
    found = {side: middle([one[side] for one in rounds]) for side in rounds[0]} | {"loss": in_a_process("loss")}
    share = matmul_share(options, found["ours"])
    result = {
        "setting": setting(options),
        **found,
        "matmul_share": share,
        "results": compared(found, options.vocabulary is not None),
    }
    write_json(options.output_path / "result.json", result)
    print(json.dumps(result) if options.json else render(result))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="the teacher")
    parser.add_argument("--data", type=Path, help="JSON lines with 'prompt' and 'response'; else support messages")
    parser.add_argument("--layers", type=int, default=8, help="of the student")
    parser.add_argument("--vocabulary", type=int, help="trim ours to about so many tokens")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="timed updates")
    parser.add_argument("--rounds", type=int, default=3, help="of both sides in turn; of their figures the middle ones count")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--train_embeddings", action="store_true", help="on both sides; the package's recipes do not")
    parser.add_argument("--output_path", type=Path, default=Path("runs/distill-benchmark"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> None:
    """Students and rows in the output folder: ``whole`` for TRL, ``ours`` for us."""
    root = options.output_path
    teacher = resolve(options.model).path
    template, rows = template_of(teacher), read_rows(options.data, options.rows + HELD_OUT)
    write_rows(root, rows)
    for side, vocabulary in (("whole", None), ("ours", options.vocabulary)):
        student = root / f"student-{side}"
        remove_tree(student)
        plan = plan_cut(teacher, Wish(options.layers, "first", vocabulary), rows=template.token_ids(rows[: options.rows]))
        cut_model(teacher, student, plan, root / "work")
        template_of(student).save(student)
        write_json(root / f"{side}.json", {"teacher": str(teacher), "student": str(student)})


def matmul_share(options: argparse.Namespace, rates: dict[str, Any]) -> float:
    """Share of this machine's rate of large products that the updates take: 6 operations a weight and computed token."""
    import torch

    from slmops.training.machine import autocast_type

    config = read_json(model_of(options, "ours", "student") / "config.json")
    table = config["vocab_size"] * config["hidden_size"]
    rows = rows_of(options.output_path, options.rows)
    template = template_of(model_of(options, "ours", "student"))
    answered = sum(len(template.encode(row).answer_ids) for row in rows) / sum(lengths(template, rows))
    a_token = 6 * (parameter_count(model_of(options, "ours", "student")) - table) + 6 * table * answered
    square = torch.ones(2048, 2048, dtype=autocast_type("auto") or torch.float32)
    square @ square
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 1:
        square @ square
        count += 1
    limit = 2 * 2048**3 * count / (time.perf_counter() - started)
    return float(a_token * rates["computed"] * rates["tokens_per_s"] / limit)


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """What was run, and where."""
    from slmops.training.machine import autocast_type
    from slmops.training.native import kernels

    named = ("model", "layers", "vocabulary", "batch_size", "steps", "rounds", "rows", "k", "train_embeddings")
    student = {side: parameter_count(model_of(options, side, "student")) for side in ("whole", "ours")}
    compiled = kernels(autocast_type("auto")) is not None
    return {**{name: getattr(options, name) for name in named}, "student_parameters": student, "compiled": compiled, **machine()}


def compared(found: dict[str, dict[str, Any]], is_trimmed: bool) -> list[dict[str, Any]]:
    """The ratios with their targets."""
    mine, theirs, taken = found["ours"], found["trl"], found["signals"]
    a_token = 1 / mine["tokens_per_s"] + taken["seconds"] / taken["tokens"] / _EPOCHS
    values = {
        "speedup_training": mine["tokens_per_s"] / theirs["tokens_per_s"],
        "speedup": 1 / a_token / theirs["tokens_per_s"],
        "memory": max(mine["peak_mb"], taken["peak_mb"]) / theirs["peak_mb"],
        "loss": found["loss"]["apart"],
    }
    targets = TARGETS | ({"speedup_training": _TRIMMED_TARGET} if is_trimmed else {})
    return against(values, targets, ("memory", "loss"))


def render(result: dict[str, Any]) -> str:
    """The figures as plain text."""
    lines = [f"{'':<10}{'tokens/s':>10}{'s a step':>10}{'peak MiB':>10}  nats an answer, held out"]
    for side in ("ours", "trl"):
        one = result[side]
        lines.append(
            f"{side:<10}{one['tokens_per_s']:>10,.0f}{one['step_s']:>10.2f}{one['peak_mb']:>10,.0f}  {one['held_out']:.3f}"
        )
    taken = result["signals"]
    lines.append(
        f"{'signals':<10}{taken['tokens'] / taken['seconds']:>10,.0f}{'':>10}{taken['peak_mb']:>10,.0f}  once for all epochs"
    )
    lines.append(f"ours takes {result['matmul_share']:.0%} of the rate of large matrix products")
    mine = result["ours"]
    lines.append(
        f"of 100 real tokens {100 * mine['computed']:.0f} are computed; of padded rows {100 * mine['computed_padded']:.0f}"
    )
    return "\n".join([*lines, *target_lines(result["results"])])


if __name__ == "__main__":
    main()
