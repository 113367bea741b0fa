"""Models on the Hugging Face hub: the user's own hub cache first, then a download that gives up soon without a network."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from slmops.errors import MissingExtraError, ModelError, SlmopsError
from slmops.models import load
from slmops.models.fit import check_disk, check_fits
from slmops.progress import say

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PROBE_SECONDS = 4.0
_REQUEST_SECONDS = 10.0
_WANTED = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "spiece.model", "merges.txt", "vocab.txt", "README.md")
_SUBFOLDERS = "*/*"


def is_hub_id(reference: str) -> bool:
    """Whether a reference has the form ``owner/name``."""
    return _HUB_ID.fullmatch(reference) is not None


def hub_cache_dir() -> Path:
    """Where the hub's own client keeps models."""
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def cached_snapshot(hub_id: str) -> Path | None:
    """The complete snapshot of a model's main branch in the hub cache, or ``None``; imports nothing and asks no server."""
    repository = hub_cache_dir() / f"models--{hub_id.replace('/', '--')}"
    try:
        snapshot = repository / "snapshots" / (repository / "refs" / "main").read_text(encoding="utf-8").strip()
        load.read_config(snapshot)
        load.weight_files(snapshot)
    except (OSError, ModelError):
        return None
    return snapshot if any((snapshot / name).is_file() for name in load.TOKENIZER_FILES) else None


def download(hub_id: str) -> Path:
    """Download config, tokenizer and safetensors of a model to the hub cache and return the snapshot's folder.

    The hub's client and its settings are used (``HF_ENDPOINT``, ``HF_HOME``, the token that ``hf auth login`` stored). A host
    that does not answer costs a few seconds.

    Raises:
        ModelError: The hub is switched off or cannot be reached, does not have the model, asks for a login, or has no safetensors.
        ResourceError: The model does not fit this machine's memory or disk.
        MissingExtraError: huggingface_hub is not installed.
    """
    if is_switched_off("TRANSFORMERS_OFFLINE"):
        raise ModelError("HF_HUB_OFFLINE is set and the model is not in the hub cache")
    endpoint = hub_endpoint()
    if problem := unreachable(endpoint):
        raise ModelError(problem)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import huggingface_hub
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ModuleNotFoundError as error:
        raise MissingExtraError("huggingface_hub", "train") from error
    try:
        _check_model(huggingface_hub.HfApi(endpoint=endpoint), hub_id)
        if not sys.stderr.isatty():
            disable_progress_bars()
        huggingface_hub.snapshot_download(
            hub_id,
            cache_dir=hub_cache_dir(),
            endpoint=endpoint,
            allow_patterns=[*_WANTED, *(["*.py"] if load.runs_remote_code() else [])],
            ignore_patterns=[_SUBFOLDERS],
            etag_timeout=_REQUEST_SECONDS,
        )
    except GatedRepoError as error:
        raise ModelError(
            f"{hub_id} asks for an accepted licence", fix=f"accept it at {endpoint}/{hub_id}, then run: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{endpoint} has no public model {hub_id}", fix="check the name; for a private one run: hf auth login"
        ) from error
    except SlmopsError:
        raise
    except Exception as error:  # the client changed its HTTP library twice, and lets that library's exceptions through
        raise ModelError(f"the download of {hub_id} from {endpoint} failed: {first_line(error)}") from error
    snapshot = cached_snapshot(hub_id)
    if snapshot is None:
        raise ModelError(f"the download of {hub_id} is incomplete", where=str(hub_cache_dir()), fix="run the command again")
    return snapshot


def _check_model(api: object, hub_id: str) -> None:
    # An object, since huggingface_hub is imported by the caller only.
    info = api.model_info(hub_id, files_metadata=True, timeout=_REQUEST_SECONDS)  # type: ignore[attr-defined]
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or () if "/" not in file.rfilename}
    weights_mb = sum(size for name, size in sizes.items() if name.endswith(".safetensors")) / 1e6
    if not weights_mb:
        raise ModelError(
            f"{hub_id} has no safetensors; pickled weights are never read",
            fix="choose another model, or convert this one",
        )
    if info.safetensors is not None:
        check_fits(info.safetensors.total, "inference", what=hub_id, bytes_per_parameter=2)
    check_disk(hub_cache_dir(), weights_mb)
    say(f"downloading {hub_id} ({weights_mb:,.0f} MB) from the hub")


def is_switched_off(*more: str) -> bool:
    """Whether ``HF_HUB_OFFLINE``, or one of further variables, says that the hub is not to be asked."""
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in ("HF_HUB_OFFLINE", *more))


def hub_endpoint() -> str:
    """Where the hub is asked."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def unreachable(endpoint: str) -> str | None:
    """Why a host cannot be reached, or ``None``; known within seconds where the hub's client would wait for minutes.

    Such hosts have no address, or swallow packets.
    """
    target = urlsplit(endpoint)
    proxy = getproxies().get(target.scheme)
    if proxy and not proxy_bypass(target.hostname or ""):
        target = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    address = (target.hostname or "", target.port or (443 if target.scheme == "https" else 80))
    answer: list[OSError | None] = []

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=_PROBE_SECONDS).close()
            answer.append(None)
        except OSError as error:
            answer.append(error)

    # In a thread, since looking up a name has no time limit of its own.
    probe = threading.Thread(target=connect, daemon=True)
    probe.start()
    probe.join(_PROBE_SECONDS)
    problem = answer[0] if answer else TimeoutError(f"no answer within {_PROBE_SECONDS:.0f} s")
    return f"{address[0]} cannot be reached ({problem.strerror or problem})" if problem is not None else None


def first_line(error: Exception) -> str:
    """What an error of the hub's client says, in one line."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]
