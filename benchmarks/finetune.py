"""How fast fine-tuning trains and what it takes, beside TRL's trainer and Olive's command: the same model and rows in one run.

    python benchmarks/finetune.py [--method full] [--method lora] [--method qlora] [--olive PATH/TO/olive] [--json]

All sides start from the same model and make as many updates of as many rows, with one learning rate, and with a loss on the
answers alone, each in a process of its own; they take turns, since a machine's speed drifts. TRL's SFTTrainer runs twice: ``trl``
at its defaults (bfloat16 autocast, gradient checkpointing), and ``trl-tuned`` with what makes it fast on a processor (autocast
only where the processor has the type, activations kept, rows by length, glibc told to keep freed memory). Olive's command takes
part with LoRA where it is installed; it trains on blocks of whole texts, as it does by default.

- ``speedup``: real tokens (no padding) a second of the updates, ours over the faster of TRL's; the first updates do not count.
- ``memory``: the highest resident set of the process, ours over that side's.
- ``loss``: the mean negative log-likelihood of the answers of rows that nobody has seen, after as many updates, ours over that
  side's: a side that leaves out work shows here.
- ``speedup_olive``: tokens a second, ours over Olive's.
- ``memory_qlora_8``, ``memory_qlora_4``: the highest resident set in a few updates of our loop, above a process with the same
  libraries and rows: the frozen base in so many bits over LoRA on a base in bfloat16.

Needs the extra ``benchmarks``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from finetune_sides import LEARNING_RATES, METHODS, SIDES, base_of, olive_at, template_for
from sides import HELD_OUT, against, in_a_process, machine, middle, read_rows, target_lines, write_rows

from slmops.files import write_json
from slmops.models.load import parameter_count
from slmops.progress import say

_ON_GPU = 1.0
TARGETS = {"speedup": 1.5, "memory": 1.0, "loss": 1.1, "speedup_olive": 1.5, "memory_qlora_8": 1.0, "memory_qlora_4": 1.0}
_MOST = ("memory", "loss", "memory_qlora_8", "memory_qlora_4")
_FROZEN = ("lora-bfloat16", "qlora-8", "qlora-4")


def main() -> None:
    """Write the rows, run the sides, and print their figures and the ratios."""
    options = parsed()
    if options.side is not None:
        print(json.dumps(SIDES[options.side](options)))
        return
    prepare(options)
    parts = {method: frozen() if method == "qlora" else raced(options, method) for method in options.method or METHODS}
    result = {"setting": setting(options), "methods": parts}
    write_json(options.output_path / "result.json", result)
    print(json.dumps(result) if options.json else render(result))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--data", type=Path, help="JSON lines with 'prompt' and 'response'; else support messages")
    parser.add_argument("--method", choices=METHODS, action="append", help="one of them; may be given again")
    parser.add_argument("--lora_r", type=int, default=16)
    parser.add_argument("--lora_alpha", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, help=f"of all sides; else {LEARNING_RATES}")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_length", type=int, default=512, help="longer rows are left out beforehand")
    parser.add_argument("--steps", type=int, default=20, help="timed updates")
    parser.add_argument("--rounds", type=int, default=3, help="of all sides in turn; of their figures the middle ones count")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--olive", help="executable of Olive; else the one on the path")
    parser.add_argument("--output_path", type=Path, default=Path("runs/finetune-benchmark"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> None:
    """The rows that no side would cut or leave out."""
    template = template_for(options)
    rows = read_rows(options.data, 2 * (options.rows + HELD_OUT))
    fitting = [row for row in rows if len(template.encode(row).input_ids) <= options.max_length]
    write_rows(options.output_path, fitting[: options.rows + HELD_OUT])


def raced(options: argparse.Namespace, method: str) -> dict[str, Any]:
    """Our training beside the others'."""
    sides = [f"{side}-{method}" for side in ("ours", "trl", "trl-tuned")]
    rounds = [{side: in_a_process(side) for side in sides} for _ in range(options.rounds)]
    found = {side.removesuffix(f"-{method}"): middle([one[side] for one in rounds]) for side in sides}
    if method == "lora":
        found |= {"olive": in_a_process("olive-lora")} if olive_at(options) else {}
        if "olive" not in found:
            say("  olive: not installed, left out; its executable can be given with --olive")
    mine, theirs = found["ours"], max(found["trl"], found["trl-tuned"], key=lambda side: side["tokens_per_s"])
    values = {
        "speedup": mine["tokens_per_s"] / theirs["tokens_per_s"],
        "memory": mine["peak_mb"] / theirs["peak_mb"],
        "loss": mine["held_out"] / theirs["held_out"],
    }
    if "olive" in found:
        values["speedup_olive"] = mine["tokens_per_s"] / found["olive"]["tokens_per_s"]
    return {"sides": found, "results": against(values, targets(), _MOST)}


def frozen() -> dict[str, Any]:
    """Memory of an adapter's training on frozen weights of fewer and fewer bits."""
    floor = in_a_process("libraries")["peak_mb"]
    peaks = {side: in_a_process(side)["peak_mb"] for side in _FROZEN}
    own = {side: peak - floor for side, peak in peaks.items()}
    values = {f"memory_qlora_{bits}": own[f"qlora-{bits}"] / own["lora-bfloat16"] for bits in (8, 4)}
    return {
        "libraries_mb": floor,
        "sides": {side: {"peak_mb": peaks[side], "own_mb": own[side]} for side in peaks},
        "results": against(values, targets(), _MOST),
    }


def targets() -> dict[str, float]:
    """What is to be reached; where there is a GPU, to be level is enough."""
    import torch

    return TARGETS | ({"speedup": _ON_GPU, "speedup_olive": _ON_GPU} if torch.cuda.is_available() else {})


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """What was run, and where."""
    named = ("model", "lora_r", "lora_alpha", "learning_rate", "batch_size", "max_length", "steps", "rounds", "rows")
    return {
        **{name: getattr(options, name) for name in named},
        "parameters": parameter_count(base_of(options)),
        **machine(),
    }


def render(result: dict[str, Any]) -> str:
    """The figures as plain text."""
    lines = []
    for method, part in result["methods"].items():
        if method == "qlora":
            lines.append(f"{method:<14}{'peak MiB':>10}{'own MiB':>10}")
            lines += [f"{side:<14}{one['peak_mb']:>10,.0f}{one['own_mb']:>10,.0f}" for side, one in part["sides"].items()]
        else:
            lines.append(f"{method:<14}{'tokens/s':>10}{'s a step':>10}{'peak MiB':>10}  nats an answer, held out")
            lines += [
                f"{side:<14}{one['tokens_per_s']:>10,.0f}{one['step_s']:>10.2f}{one['peak_mb']:>10,.0f}  {one['held_out']:.3f}"
                for side, one in part["sides"].items()
            ]
        lines += [*target_lines(part["results"]), ""]
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    main()
