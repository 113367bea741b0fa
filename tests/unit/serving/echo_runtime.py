"""A deterministic engine: small enough to be loaded in the test's process and in a server's."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slmops.errors import DataError
from slmops.runtimes.base import Generation, RuntimeInfo, Sampling


def open_runtime(path: Path, *, threads: int | None = None) -> EchoRuntime:
    """Load, as a registry entry does; the speed leaves time to interrupt an answer."""
    return EchoRuntime(seconds_per_token=0.02, context_length=1024)


@dataclass
class EchoRuntime:
    """Answers with the user's last message, a word a token, at a given speed."""

    seconds_per_token: float = 0.0
    fail_after: int | None = None
    context_length: int = 64
    prefix: str = ""
    prompts: list[str] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)
    spoken: int = 0
    busy: threading.Lock = field(default_factory=threading.Lock)

    @property
    def info(self) -> RuntimeInfo:
        return RuntimeInfo("echo", "float32", self.context_length, batch_dependent=False)

    def tokenize(self, text: str) -> list[int]:
        return [len(word) for word in words(text)]

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Generation]:
        return [item for prompt in prompts for item in self.stream(prompt, sampling) if isinstance(item, Generation)]

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str | Generation]:
        assert self.busy.acquire(blocking=False), "two requests are in the engine at the same time"
        try:
            if not prompt:
                raise DataError("the prompt is empty")
            self.prompts.append(prompt)
            self.samplings.append(sampling)
            said = words(self.prefix + re.findall(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", prompt, re.DOTALL)[-1])
            pieces = words(min(("".join(said).partition(stop)[0] for stop in sampling.stop), key=len, default="".join(said)))
            reason = "length" if len(pieces) > sampling.max_new_tokens else "stop"
            pieces = pieces[: sampling.max_new_tokens]
            for number, piece in enumerate(pieces):
                if number == self.fail_after:
                    raise RuntimeError("the engine is on fire")
                time.sleep(self.seconds_per_token)
                self.spoken += 1
                yield piece
            yield Generation("".join(pieces), tuple(self.tokenize("".join(pieces))), reason, len(self.tokenize(prompt)))
        finally:
            self.busy.release()


def words(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)
