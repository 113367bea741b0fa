"""Export to ONNX for ONNX Runtime GenAI, with that library's own model builder, in several precisions.

Schemes, smallest first (megabytes of SmolLM2-135M cut to 8 of its 30 layers, 227 MB in float32):

=========== ==== =====================================================================================================
int4          38 4-bit weights in blocks of 32, k-quant; embedding and output layer share one 4-bit table
int4-mixed    56 as above, but 8 bits for the output layer and the layers that llama.cpp found most sensitive
w8a8          61 8-bit weights from -64 to 64, one scale an output channel, activations rounded to 8 bits a token: integer matrix
                 products, two to four times faster on prompts and batches than the weight-only schemes
int8          64 8-bit weights in blocks of 32; the one closest to float32
float32      227 unchanged, for reference
=========== ==== =====================================================================================================
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.errors import ModelError, UsageError, nearest
from slmops.files import read_json, size_bytes, write_json
from slmops.models.fit import memory_available_mb
from slmops.models.load import context_length, weight_files
from slmops.progress import say

if TYPE_CHECKING:
    from onnx import GraphProto

SCHEMES = ("int4", "int4-mixed", "w8a8", "int8", "float32")
"""Names for ``scheme``, ordered by the size of the result."""

CONFIG = "genai_config.json"
GRAPH = "model.onnx"
FACTS = "export.json"

_BUILD = {
    "int4": ("int4", "algo_config=k_quant"),
    "int4-mixed": ("int4", "algo_config=k_quant_mixed"),
    # Its 8-bit precision leaves the embedding in float32, so these are quantized here from its float32 graph.
    "w8a8": ("fp32",),
    "int8": ("fp32",),
    "float32": ("fp32",),
}
"""The builder's options; its search for scales (``algo_config``) keeps one core busy."""

_LOG_TAIL = 12
_MEMORY = 10  # the builder's, in sizes of the model


def export_onnx(
    model: Path, target: Path, scheme: str, *, max_length: int, change: Callable[[GraphProto], object] | None = None
) -> None:
    """Convert a model folder in Hugging Face layout; ``target`` is there whole or not at all.

    The folder has ``genai_config.json``, ``model.onnx`` with its weights in ``model.onnx.data``, the tokenizer with its
    chat template, and ``export.json`` with the scheme. The builder's output goes into ``<target>.log``.

    Args:
        model: The folder to convert.
        target: The folder to make; an older one is replaced.
        scheme: One of ``SCHEMES``.
        max_length: Longest prompt and answer together, in tokens; engines without a limit of their own for a request
            (Foundry Local) allocate their key-value cache for it.
        change: Changes the builder's graph before anything else does.

    Raises:
        UsageError: No such scheme.
        ModelError: The model has a shorter context, or the builder cannot convert it.
    """
    weight_files(model)
    if scheme not in SCHEMES:
        raise UsageError(f"unknown scheme {scheme!r}", where="export.schemes", fix=nearest(scheme, SCHEMES))
    context = context_length(model)
    if max_length > context:
        raise ModelError(
            f"a length of {max_length} tokens is asked for, but the context holds {context}",
            where=str(model),
            fix=f"set export.max_length to {context} or less",
        )
    partial = target.with_name(f".{target.name}.partial")
    log = target.with_name(f"{target.name}.log")
    remove(partial)
    say(f"  converting to {scheme}")
    _build(model, partial, scheme, log)
    _rewrite(partial, scheme, change)
    _configure(model, partial, scheme, max_length)
    put_in_place(partial, target)


def put_in_place(partial: Path, target: Path) -> None:
    """Give a finished folder its name; an older one is there until then."""
    old = target.with_name(f".{target.name}.old")
    remove(old)
    if target.exists():
        target.replace(old)
    partial.replace(target)
    remove(old)


def export_first(model: Path, targets: Mapping[str, Path], *, max_length: int) -> None:
    """Convert a model by the first of some schemes, and by the others at the same time where that takes no longer.

    Args:
        model: The folder to convert.
        targets: Scheme to the folder to make; what is there already is not made again.
        max_length: As in :func:`export_onnx`.

    Raises:
        UsageError: No such scheme.
        ModelError: As in :func:`export_onnx`.
    """
    first, *others = targets
    if (targets[first] / CONFIG).is_file():
        return
    beside = [scheme for scheme in others if not (targets[scheme] / CONFIG).is_file() and _fits_beside(model, first, scheme)]
    with ThreadPoolExecutor() as pool:
        for scheme in beside:  # what goes wrong there is said when that scheme is tried
            pool.submit(export_onnx, model, targets[scheme], scheme, max_length=max_length)
        export_onnx(model, targets[first], first, max_length=max_length)


def _fits_beside(model: Path, *schemes: str) -> bool:
    """Whether conversions side by side find a core and memory each."""
    one_core_each = all(len(_BUILD.get(scheme, ())) > 1 for scheme in schemes)
    needed_mb = len(schemes) * _MEMORY * size_bytes(model) / 1e6
    return one_core_each and (os.cpu_count() or 1) >= len(schemes) and memory_available_mb() > needed_mb


def remove(folder: Path) -> None:
    """Delete a folder if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def _build(model: Path, folder: Path, scheme: str, log: Path) -> None:
    precision, *options = _BUILD[scheme]
    scratch = folder.with_name(f"{folder.name}.cache")
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(model), "-o", str(folder)]
    command += ["-p", precision, "-e", "cpu", "-c", str(scratch), "--extra_options", "hf_token=false", *options]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("w", encoding="utf-8") as output:
            status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    finally:
        remove(scratch)
    if status != 0 or not (folder / CONFIG).is_file():
        remove(folder)
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise ModelError(
            f"the model builder failed with status {status}:\n    " + "\n    ".join(lines[-_LOG_TAIL:]),
            where=str(model),
            fix=f"the whole output is in {log}",
        )


def _rewrite(folder: Path, scheme: str, change: Callable[[GraphProto], object] | None) -> None:
    from slmops.export import graph, int8

    rounded_here = scheme in ("w8a8", "int8")
    loaded = graph.load(folder / GRAPH, with_weights=rounded_here)
    if change is not None:
        change(loaded.graph)
    if rounded_here:
        int8.quantize(loaded, integer_activations=scheme == "w8a8")
        graph.save(loaded, folder / GRAPH)
        loaded = graph.load(folder / GRAPH)
    graph.keep_last_position(loaded)
    graph.share_embedding(loaded)
    graph.save(loaded, folder / GRAPH)


def _configure(model: Path, folder: Path, scheme: str, max_length: int) -> None:
    from importlib.metadata import version

    config = read_json(folder / CONFIG)
    config["search"]["max_length"] = max_length
    write_json(folder / CONFIG, config)
    write_json(
        folder / FACTS,
        {"scheme": scheme, "max_length": max_length, "builder": f"onnxruntime-genai {version('onnxruntime-genai')}"},
    )
    tokenizer = folder / "tokenizer_config.json"
    about_here = ("is_local", "local_files_only", "name_or_path")
    write_json(tokenizer, {key: value for key, value in read_json(tokenizer).items() if key not in about_here})
    template = model / "chat_template.jinja"
    if template.is_file():
        shutil.copyfile(template, folder / template.name)
