"""Open a model folder and serve it until told to stop."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from pathlib import Path

from slmops.data.chat import ChatTemplate
from slmops.errors import MissingExtraError, ResourceError, UsageError
from slmops.export.adapter_set import AdapterSet
from slmops.export.card import BundleCard
from slmops.progress import say
from slmops.runtimes.base import open_runtime
from slmops.runtimes.folders import engine_of
from slmops.serving.service import Adapted, ChatService


def serve(folder: Path, host: str = "127.0.0.1", port: int = 8000, threads: int | None = None) -> None:
    """Serve the model in ``folder`` over HTTP; returns after SIGINT or SIGTERM.

    A stop lets answers that are under way finish for some seconds, then ends them with an error; a second one does so at once.

    Args:
        folder: A bundle, an ONNX Runtime GenAI folder or a Hugging Face folder.
        host: Address to listen on.
        port: 0 takes a free one; the address is printed.
        threads: CPU threads of the engine (``None``: the engine's own choice).

    Raises:
        MissingExtraError: fastapi or uvicorn is not installed.
        ModelError: The folder holds no model.
        UsageError: No such host or port.
        ResourceError: The port is taken; found out before the model is loaded.
    """
    try:
        from slmops.serving.stopping import StoppableServer
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise MissingExtraError(error.name, "serve") from error

    engine_of(folder)
    with _listen(host, port) as listener:
        say(f"loading {folder}")
        with contextlib.closing(open_service(folder, threads)) as service:
            place = f"[{host}]" if ":" in host else host
            say(f"serving {', '.join(service.names)} ({service.info.name}, {service.info.precision})")
            say(f"  at http://{place}:{listener.getsockname()[1]}/v1  (Ctrl-C stops)")
            if not _is_loopback(listener):
                say("  note: whoever reaches this address can use the model; there is no password")
            StoppableServer(service).run(sockets=[listener])
    say("stopped")


def open_service(folder: Path, threads: int | None = None) -> ChatService:
    """Load the model of a folder, with its adapters; its card, if it has one, says name, chat template and defaults.

    Raises:
        ModelError: The folder holds no model, or a damaged one.
    """
    adapters = AdapterSet.read(folder)
    if adapters is not None:
        return _open_adapters(folder, adapters, threads)
    card = BundleCard.read(folder)
    template = card.chat_template if card else ChatTemplate.load(folder)
    runtime = open_runtime(engine_of(folder), folder, threads=threads)
    if card is None:
        return ChatService(runtime, template, folder.resolve().name)
    limits = card.sampling
    return ChatService(runtime, template, card.name, temperature=limits.temperature, max_new_tokens=limits.max_new_tokens)


def _open_adapters(folder: Path, known: AdapterSet, threads: int | None) -> ChatService:
    from slmops.runtimes.ort_genai import open_runtime as open_package

    package = open_package(folder, threads=threads)
    adapted = {entry.name: Adapted(package.with_adapter(entry.name), entry.chat_template) for entry in known.adapters}
    return ChatService(package, ChatTemplate.load(folder), known.name, adapters=adapted)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; taking it before the model loads leaves no moment in which another program could."""
    if not 0 <= port <= 65535:
        raise UsageError(f"{port} is no port", where="--port", fix="choose one from 1 to 65535, or 0 for a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(
            f"the address {host!r} is not known", where="--host", fix="use 127.0.0.1 or an address of this machine"
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere this option would let two programs share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise _cannot_listen(error, host, port) from error
    return listener


def _cannot_listen(error: OSError, host: str, port: int) -> ResourceError | UsageError:
    if error.errno == errno.EADDRINUSE:
        fix = f"stop the program that has it, or choose another with --port {port % 65535 + 1} (0: any free one)"
        return ResourceError(f"port {port} is taken on {host}", where="--port", fix=fix)
    if error.errno == errno.EACCES:
        return ResourceError(f"no permission to use port {port}", where="--port", fix="choose one above 1023")
    return UsageError(f"cannot listen on {host!r}: {error.strerror}", where="--host", fix="use an address of this machine")


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
