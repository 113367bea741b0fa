"""A toy teacher on loopback, to try stage 1 with: it answers like the most similar row of a file, over a line as bad as told.

    python -m slmops.testing.teacher --rows rows.jsonl --port 8077 --faults 0.3

It is no model: it compares words. Asked for other versions of a text it exchanges some of its words; asked for new texts it
gives rows of its file.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from slmops.commands.common import new_app
from slmops.data.rows import Row
from slmops.data.sources import FilesSource
from slmops.errors import SlmopsError
from slmops.files import digest
from slmops.progress import say
from slmops.testing.faults import Faults, FaultServer

_SPREAD = ("rate_limit", "server_error", "unavailable", "reset", "html", "bad_json", "empty", "truncated")
_OTHER_WORDS = {
    "i": ("we", "one of us"),
    "my": ("our", "the family's"),
    "me": ("us", "all of us"),
    "is": ("seems", "must be"),
    "the": ("this", "that"),
    "a": ("some", "one"),
    "you": ("your team", "your shop"),
    "it": ("that thing", "this one"),
    "order": ("purchase", "shopping"),
    "please": ("kindly", "be so good and"),
    "can": ("could", "may"),
    "was": ("had been", "appeared"),
    "to": ("in order to", "so as to"),
    "and": ("as well as", "also"),
}
_WORD = re.compile(r"\w+")
_COUNT = re.compile(r"Write (\d+|one) ")
_TEXT = re.compile(r"<text>\n(.*?)\n</text>", re.DOTALL)
_LABEL = re.compile(r"with the label '(.*?)'")

app = new_app()


@dataclass(frozen=True)
class ToyTeacher:
    """Answers messages like the rows that it knows.

    Args:
        rows: Rows with an answer.
    """

    rows: Sequence[Row]

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What it says to messages."""
        asked = messages[-1]["content"]
        shown, count = _TEXT.findall(asked), _COUNT.search(asked)
        if not shown or count is None:
            return self._nearest(asked)
        many = 1 if count.group(1) == "one" else int(count.group(1))
        label = _LABEL.search(asked)
        texts = self._others(shown, label.group(1) if label else None) if "of the same kind" in asked else _versions(shown[0])
        return json.dumps(texts[:many], ensure_ascii=False)

    @cached_property
    def _words(self) -> list[set[str]]:
        return [_words(row.question) for row in self.rows]

    def _nearest(self, text: str) -> str:
        """The answer of the row with the largest share of common words."""
        words = _words(text)
        best = max(
            range(len(self.rows)), key=lambda place: len(words & self._words[place]) / (len(words | self._words[place]) or 1)
        )
        return str(self.rows[best].answer)

    def _others(self, shown: Sequence[str], label: str | None) -> list[str]:
        """Known questions, of a label where one is named; other seeds give others."""
        fitting = [row.question for row in self.rows if label in (None, row.answer) and row.question not in shown]
        return sorted(fitting, key=lambda text: digest([list(shown), text]))


@app.command()
def main(
    rows: Annotated[Path, typer.Option(help="Rows with answers: JSONL, JSON, CSV, TSV or Parquet")],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one")] = 8077,
    faults: Annotated[float, typer.Option(min=0, max=1, help="Share of the requests that meet one of eight faults")] = 0.0,
    latency: Annotated[float, typer.Option(min=0, help="Seconds that an answer takes")] = 0.02,
    seed: Annotated[int, typer.Option(help="Other seeds give other faults")] = 0,
) -> None:
    """Serve a toy teacher with the protocols of OpenAI and Anthropic until it is stopped, then say what it was asked."""
    known = FilesSource(train=rows).read().labelled
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    bad = Faults(**dict.fromkeys(_SPREAD, faults / len(_SPREAD)))
    with FaultServer(bad, seed=seed, answer=ToyTeacher(known), latency_s=latency, port=port) as server:
        say(f"a toy teacher that knows {len(known):,} rows, at {server.url}  (Ctrl-C stops)")
        over.wait()
    met = ", ".join(f"{count:,} × {fault}" for fault, count in sorted(server.met.items())) or "none"
    say(f"{server.requests:,} requests, {server.paid:,} answers to pay for; faults: {met}")


def _versions(text: str) -> list[str]:
    """The text with other words from a short list, in two versions."""

    def version(number: int) -> str:
        return _WORD.sub(lambda word: _OTHER_WORDS.get(word.group().casefold(), (word.group(),) * 2)[number], text)

    return [version(0), version(1)]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


if __name__ == "__main__":
    try:
        app()
    except SlmopsError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
