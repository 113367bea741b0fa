"""A server in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import openai

import slmops

# Both this package and the echo engine can be imported, installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(slmops.__file__).parents[1]), str(Path(__file__).parent)])}


@contextlib.contextmanager
def serving(script: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], openai.OpenAI, list[str]]]:
    """A server process, a client of it, and the lines it prints."""
    command = [sys.executable, "-c", script, str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    log: list[str] = []
    up = threading.Event()

    def read() -> None:
        for line in process.stderr:
            log.append(line.rstrip())
            if "http://" in line:
                up.set()
        up.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert up.wait(60)
        address = re.search(r"http://\S+", "\n".join(log))
        assert address, log
        yield process, openai.OpenAI(base_url=address.group(), api_key="none", max_retries=0, timeout=30), log
    finally:
        process.kill()
        process.wait()
        reader.join()
