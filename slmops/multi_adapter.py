"""One exported base with several adapters that are switched per request, checked against each adapter merged alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.adapter_agreement import compare_adapters
from slmops.data.chat import ChatTemplate
from slmops.errors import ModelError, UsageError
from slmops.export.adapter_set import NAME_PATTERN, SET_FILE, AdapterEntry, AdapterSet, Agreement
from slmops.export.onnx import export_onnx, put_in_place, remove
from slmops.files import digest, file_digest
from slmops.models.adapter import ADAPTER_CONFIG, Adapter
from slmops.models.fit import check_disk
from slmops.models.load import TOKENIZER_FILES
from slmops.models.resolve import FINETUNED, ResolvedModel, find, resolve
from slmops.progress import say

if TYPE_CHECKING:
    from slmops.export.lora import Lora, Shapes, Site

_VERSION = 1
"""Of what a package holds; raised when its files change."""


def generate_adapters(
    base: str,
    paths: Sequence[Path],
    target: Path,
    *,
    names: Sequence[str] | None = None,
    scheme: str = "float32",
    max_length: int | None = None,
    rows: int = 8,
) -> AdapterSet:
    """Make a package for ONNX Runtime GenAI whose LoRA adapters are inputs of one graph.

    Adapters may differ in rank and in the layers they adapt. The package is there whole or not at all; one that was made of
    the same things stays as it is.

    Args:
        base: The model that all adapters were trained on: a path, a catalogue name or a hub id.
        paths: Folders of adapters, or of the runs that trained them.
        target: Folder to make; an older package there is replaced.
        names: Of the adapters; absent: those of the folders.
        scheme: A name of ``export.onnx.SCHEMES``, for the base's weights.
        max_length: Longest prompt and answer together, in tokens; absent: the context of the base, at most 2,048.
        rows: Answers of each adapter, at most, that are compared with those of the adapter merged alone.

    Raises:
        UsageError: Two adapters of one name, a name that no file can have, or a target with something else in it.
        ModelError: An adapter is of another base or no plain LoRA, or the base cannot be exported.
    """
    from slmops.export.lora import check_kind, linear_shapes, read_lora

    model = resolve(base)
    adapters = [_adapter_at(path) for path in paths]
    called = _checked_names(names or [_name_of(adapter.path) for adapter in adapters], len(adapters), target)
    for adapter in adapters:
        check_kind(adapter.path)
        _check_base(adapter, model)
    length = max_length or min(model.context_length, 2048)
    prints = [adapter.fingerprint for adapter in adapters]
    key = digest([_VERSION, model.fingerprint, prints, called, target.name, scheme, length, rows])
    if target.is_dir() and any(target.iterdir()) and not (target / SET_FILE).is_file():
        raise UsageError(f"{target} holds something else", where="--output_path", fix="choose a new folder")
    before = AdapterSet.read(target)
    if before is not None and before.key == key:
        say(f"{target} is there already, made of the same adapters")
        return before
    shapes = linear_shapes(model.path)
    loras = [read_lora(adapter, shapes) for adapter in adapters]
    for adapter in adapters:
        _check_tokenizer(adapter, model)
    check_disk(target, 10 * model.parameters / 1e6)
    staged = target.with_name(f".{target.name}.staged")
    remove(staged)
    sites = _export(model, loras, shapes, staged, scheme, length)
    entries = []
    nothing = Agreement(rows=0, equal=0, same_tokens=True, questions="")
    for name, path, adapter, lora, fingerprint in zip(called, paths, adapters, loras, prints, strict=True):
        entry = AdapterEntry(
            name=name,
            source=str(path),
            fingerprint=fingerprint,
            sha256="",
            rank=lora.rank,
            targets=tuple(lora.targets),
            parameters=lora.parameters,
            chat_template=ChatTemplate.load(adapter.path if _has_tokenizer(adapter.path) else model.path),
            agreement=nothing,
        )
        _write_adapter(staged / entry.file, sites, lora)
        entries.append(entry.model_copy(update={"sha256": file_digest(staged / entry.file)}))
    found = AdapterSet(
        name=_as_name(target), base=model.reference, scheme=scheme, key=key, agreement=nothing, adapters=tuple(entries)
    )
    found.write(staged)
    found = compare_adapters(found, staged, model, adapters, rows)
    found.write(staged)
    put_in_place(staged, target)
    staged.with_name(f"{staged.name}.log").replace(target.with_name(f"{target.name}.log"))
    return found


def _adapter_at(path: Path) -> Adapter:
    """The adapter of a folder, or of the run that left it there."""
    for folder in (path, path / "adapter"):
        if (folder / ADAPTER_CONFIG).is_file():
            return Adapter.read(folder)
    what = "there is no adapter here" if path.is_dir() else "there is no such folder"
    raise ModelError(
        what, where=str(path), fix=f"give the output of 'slmops finetune --method lora', or a folder with {ADAPTER_CONFIG}"
    )


def _name_of(adapter: Path) -> str:
    folder = adapter.resolve()
    return folder.parent.name if (folder.parent / FINETUNED).is_file() else folder.name


def _as_name(target: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", target.resolve().name).strip("._-") or "base"


def _checked_names(names: Sequence[str], adapters: int, target: Path) -> list[str]:
    fix = "give a name an adapter: --names classifier,generator"
    if len(names) != adapters:
        raise UsageError(f"{len(names)} names for {adapters} adapters", where="--names", fix=fix)
    for name in names:
        if not re.match(NAME_PATTERN, name):
            raise UsageError(f"{name!r} cannot be the name of a file", where="--names", fix=fix)
        if names.count(name) > 1:
            raise UsageError(f"two adapters are called {name!r}", where="--names", fix=fix)
        if name == _as_name(target):
            raise UsageError(f"{name!r} is what requests call the base", where="--names", fix=fix)
    return list(names)


def _check_base(adapter: Adapter, model: ResolvedModel) -> None:
    try:
        own = find(adapter.base)
    except ModelError as error:
        own, why = None, f" (which is not found: {error.what})"
    else:
        why = "" if isinstance(own, ResolvedModel) else " (which is not on this machine)"
    if not isinstance(own, ResolvedModel) or own.fingerprint != model.fingerprint:
        raise ModelError(
            f"this adapter was trained on {adapter.base}{why}, and the base is {model.reference}",
            where=str(adapter.path),
            fix="give adapters of one base; where both are the same model, write its path as base_model_name_or_path "
            f"into {ADAPTER_CONFIG}",
        )


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _check_tokenizer(adapter: Adapter, model: ResolvedModel) -> None:
    from slmops.models.load import load_tokenizer

    if _has_tokenizer(adapter.path) and load_tokenizer(adapter.path).get_vocab() != load_tokenizer(model.path).get_vocab():
        raise ModelError(
            "this adapter has another vocabulary than the base", where=str(adapter.path), fix="merge it and export it alone"
        )


def _export(model: ResolvedModel, loras: Sequence[Lora], shapes: Shapes, staged: Path, scheme: str, length: int) -> list[Site]:
    from slmops.export.lora import add_inputs

    modules = list(dict.fromkeys(name for lora in loras for name in lora.layers))
    sites: list[Site] = []
    export_onnx(
        model.path,
        staged,
        scheme,
        max_length=length,
        change=lambda graph: sites.extend(add_inputs(graph, modules, shapes)),
    )
    return sites


def _write_adapter(file: Path, sites: Sequence[Site], lora: Lora) -> None:
    import onnxruntime

    values = {name: value for site in sites for name, value in site.values(lora).items()}
    held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in values.items()}
    form = onnxruntime.AdapterFormat()
    form.set_parameters(held)
    file.parent.mkdir(exist_ok=True)
    form.export_adapter(str(file))
