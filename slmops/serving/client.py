"""A real server and the official client for one question."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from slmops.errors import MissingExtraError, ResourceError

_START_SECONDS = 60


class Reply(NamedTuple):
    """An answer and, of a model with a classification head, the probability of each label, the likeliest first."""

    text: str
    probabilities: dict[str, float]


def ask_once(folder: Path, question: str) -> str:
    """What :func:`ask` answers, without probabilities."""
    return ask(folder, question).text


def ask(folder: Path, question: str, adapter: str | None = None) -> Reply:
    """Start ``slmops serve`` on a free loopback port, ask through the ``openai`` package, stop the server.

    Args:
        folder: The model's.
        question: What to ask.
        adapter: Of a package with several, the one that answers; ``None``: the model without one.

    Raises:
        MissingExtraError: The openai package is not installed.
        ResourceError: The server does not come up; the message has what it printed.
    """
    try:
        from openai import OpenAI
    except ModuleNotFoundError as error:
        raise MissingExtraError("openai", "client") from error
    command = [sys.executable, "-m", "slmops", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as server:
        try:
            with OpenAI(base_url=_address(server), api_key="none", max_retries=5) as client:
                model = adapter or client.models.list().data[0].id
                reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
        finally:
            server.terminate()
    (choice,) = reply.choices
    labels = choice.logprobs.content[0].top_logprobs if choice.logprobs is not None and choice.logprobs.content else ()
    return Reply(str(choice.message.content), {label.token: math.exp(label.logprob) for label in labels})


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    printed = ""
    watch = threading.Timer(_START_SECONDS, server.kill)
    watch.start()
    try:
        for line in server.stderr:
            printed += line
            _, found, address = line.strip().partition("at http://")
            if found:
                return f"http://{address.split()[0]}"
    finally:
        watch.cancel()
    raise ResourceError(f"the server did not come up:\n{printed}", fix="run 'slmops serve' by itself to see more")
