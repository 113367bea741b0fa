"""The command line: verbs as a table; only the chosen verb is imported."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from slmops import __version__
from slmops.errors import MissingExtraError, SlmopsError, UsageError, nearest
from slmops.launched import together

VERBS = {
    "distill": ("slmops.commands.distill:app", "make a small model from a teacher and your data, one command"),
    "finetune": ("slmops.commands.finetune:app", "train a model on your rows: all weights, LoRA, DoRA, QLoRA, bottlenecks"),
    "merge": ("slmops.commands.merge:merge_app", "an adapter and its base as plain weights"),
    "unmerge": ("slmops.commands.merge:unmerge_app", "take an adapter out of weights that it was merged into"),
    "probe": ("slmops.commands.probe:app", "whether distilling is worth it: a small sample, yes, no or INCONCLUSIVE"),
    "run": ("slmops.commands.run:app", "run or resume a recipe"),
    "import": ("slmops.commands.import_:app", "a fine-tuning workflow of Olive's as a recipe"),
    "search": ("slmops.commands.search:app", "try values of a recipe: random, grid or TPE; several goals; the best recipe"),
    "check-data": ("slmops.commands.check_data:app", "look at data: good rows, what is set aside and why, a report"),
    "recipes": ("slmops.commands.recipes:app", "list the recipes that come with the package, or show one"),
    "config": ("slmops.commands.config:app", "explain where each value of a recipe comes from"),
    "generate": ("slmops.commands.generate:app", "let a teacher answer rows: stage 1 by itself"),
    "augment": (
        "slmops.commands.augment:app",
        "more training rows by a teacher: paraphrases, back-translations, new ones from seeds",
    ),
    "evaluate": ("slmops.commands.evaluate:app", "measure models on test rows: intervals, costs, gates, a report"),
    "perplexity": ("slmops.commands.perplexity:app", "how well models foresee plain texts, by the token and by the byte"),
    "benchmark": ("slmops.commands.benchmark:app", "ask a model benchmarks people know, on local data, by EleutherAI's harness"),
    "review": ("slmops.commands.review:app", "blind side-by-side sheets for people, and what their verdicts say"),
    "shrink": ("slmops.commands.shrink:app", "cut a model to a size or a time: fewer layers, fewer tokens"),
    "fit": ("slmops.commands.fit:app", "whether a teacher and a student fit: one table, and what follows from it"),
    "generate-adapter": ("slmops.commands.generate_adapter:app", "one exported model with several adapters, switched per request"),
    "adapters": ("slmops.commands.adapters:app", "list the trained adapters below a folder, and those in packages"),
    "serve": ("slmops.commands.serve:app", "serve a model with the OpenAI API"),
    "ask": ("slmops.commands.ask:app", "serve a model for one question through the openai client"),
}
INTERRUPTED = 130
_EXTRAS = {
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "bitsandbytes": "gpu",
    "gguf": "train",
    "accelerate": "train",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxruntime": "export",
    "onnxruntime_genai": "export",
    "sklearn": "evaluate",
    "fastapi": "serve",
    "uvicorn": "serve",
    "openai": "client",
    "anthropic": "api",
    "pyarrow": "parquet",
    "datasketch": "quality",
    "py3langid": "quality",
    "phonenumbers": "privacy",
    "lm_eval": "benchmarks",
    "optuna": "search",
    "tensorboard": "tensorboard",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``slmops``; exits 0 done or passed, 1 a gate failed, 2 wrong usage or an error, 3 INCONCLUSIVE."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        together(given[0] if given else "help", lambda: _dispatch(given))
    except SlmopsError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        _fail(MissingExtraError(package, _EXTRAS[package]))
    except KeyboardInterrupt:
        print("\nstopped; the same command continues", file=sys.stderr)
        sys.exit(INTERRUPTED)


def overview() -> str:
    """The text of ``slmops --help``."""
    width = max(len(verb) for verb in VERBS)
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    head = "usage: slmops VERB ...\n\nFrom a teacher to a small, measured, served language model.\n\nVerbs:\n"
    return (
        head
        + "\n".join(lines)
        + "\n\n'slmops VERB --help' tells more. Progress goes to standard error, results to standard output.\n"
    )


def _fail(error: SlmopsError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _dispatch(given: list[str]) -> None:
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview(), end="")
        return
    if given[0] == "--version":
        print(f"slmops {__version__}")
        return
    verb = given[0]
    if verb not in VERBS:
        raise UsageError(f"unknown verb {verb!r}", fix=nearest(verb, VERBS))
    module, _, attribute = VERBS[verb][0].partition(":")
    app = getattr(importlib.import_module(module), attribute)
    try:
        app(args=given[1:], prog_name=f"slmops {verb}")
    except SystemExit as end:  # typer turns Ctrl-C into an exit
        if end.code == INTERRUPTED:
            raise KeyboardInterrupt from None
        raise
