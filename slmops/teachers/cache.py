"""The requests that were paid for, by their content: nothing is asked twice, by however many processes.

A SQLite file in WAL mode. A request is claimed before it is sent and finished in the transaction that stores its answer, so
a process that dies at any point costs at most the answers that were on their way. The claims of a process that is gone go
to the next one that asks. The ledger has every answer that was paid for, usable or not; the price cap is checked in the
transaction that claims.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from slmops.data.rows import Message
from slmops.errors import ArtifactError, ResourceError
from slmops.files import digest
from slmops.teachers.replies import AskParams, Reply

_FORMAT = 1
_HEARTBEAT_SECONDS = 5.0
_SILENT_SECONDS = 60.0
_WAIT_FOR_LOCK_SECONDS = 60.0
_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    key TEXT PRIMARY KEY, teacher TEXT NOT NULL, reply TEXT, reason TEXT, owner TEXT, reserved REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS claims ON requests (owner) WHERE owner IS NOT NULL;
CREATE TABLE IF NOT EXISTS owners (id TEXT PRIMARY KEY, place TEXT, pid INTEGER, started REAL, seen REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (
    key TEXT, teacher TEXT, at REAL, outcome TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL
);
CREATE TABLE IF NOT EXISTS spent (
    teacher TEXT PRIMARY KEY, calls INTEGER, prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL, lost REAL
) WITHOUT ROWID;
"""

Claim = Literal["claimed", "busy", "over the cap"]


@dataclass(frozen=True)
class Stored:
    """What the cache knows of a request: its answer, or why there is none."""

    reply: Reply | None
    reason: str | None


@dataclass(frozen=True)
class Spent:
    """What a teacher's answers have cost so far.

    Args:
        calls: Answers that were paid for, usable or not.
        prompt_tokens: Of these.
        completion_tokens: Of these.
        cost: US dollars, ``lost`` among them.
        lost: The most that answers cost which were on their way when the line or the process broke.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    lost: float = 0.0


def request_key(identity: Mapping[str, str], messages: Sequence[Message], params: AskParams, template: str = "") -> str:
    """Identity of a request: teacher, messages, template and sampling parameters; nothing else has an influence."""
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in messages]
    return digest([dict(identity), turns, template, vars(params)])


class RequestCache:
    """One open cache file; close it, or use it in a ``with``.

    Raises:
        ArtifactError: The file is no cache, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner = uuid.uuid4().hex
        self._seen = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=_WAIT_FOR_LOCK_SECONDS, isolation_level=None)
            self._switch_to_wal()
            self._db.execute("PRAGMA synchronous=NORMAL")
            with self._writing():
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
                if version not in (0, _FORMAT):
                    raise ArtifactError("another version of slmops made this cache", where=str(path), fix="use that version")
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={_FORMAT}")
        except sqlite3.DatabaseError as error:
            raise ArtifactError(
                f"the cache of answers cannot be read: {error}",
                where=str(path),
                fix="move the file away; its answers are paid again",
            ) from error

    def __enter__(self) -> RequestCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is still claimed and close the file."""
        with self._writing():
            self._db.execute("DELETE FROM requests WHERE owner = ?", (self._owner,))
            self._db.execute("DELETE FROM owners WHERE id = ?", (self._owner,))
        self._db.close()

    def get(self, key: str) -> Stored | None:
        """What is known of a request; ``None`` while it is open."""
        row = self._db.execute("SELECT reply, reason FROM requests WHERE key = ? AND owner IS NULL", (key,)).fetchone()
        return _stored(*row) if row else None

    def get_many(self, keys: Sequence[str]) -> dict[str, Stored]:
        """The same for many; open ones are left out."""
        found = {}
        for start in range(0, len(keys), 500):
            some = keys[start : start + 500]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, reply, reason FROM requests WHERE owner IS NULL AND key IN ({marks})"
            found.update({key: _stored(reply, reason) for key, reply, reason in self._db.execute(query, some)})
        return found

    def claim(self, key: str, teacher: str, *, reserve: float = 0.0, max_cost: float | None = None) -> Claim | Stored:
        """Take a request before sending it.

        Args:
            key: From :func:`request_key`.
            teacher: Whose cost it is.
            reserve: The most that it can cost, in US dollars.
            max_cost: What the teacher may cost in all, with everything that is on its way.

        Returns:
            ``claimed``; ``busy`` where another living process has it; what became of it; or that it would exceed the cap.
        """
        with self._writing():
            self._beat()
            row = self._db.execute("SELECT reply, reason, owner FROM requests WHERE key = ?", (key,)).fetchone()
            if row is not None and row[2] is None:
                return _stored(row[0], row[1])
            if row is not None and (row[2] == self._owner or self._alive(row[2])):
                return "busy"
            if row is not None:
                self._bury(row[2])
            if max_cost is not None and self._committed(teacher) + reserve > max_cost:
                return "over the cap"
            self._db.execute(
                "INSERT OR REPLACE INTO requests (key, teacher, owner, reserved) VALUES (?, ?, ?, ?)",
                (key, teacher, self._owner, reserve),
            )
            return "claimed"

    def finish(self, key: str, reply: Reply, cost: float) -> None:
        """Store the answer to a claimed request and book its cost (US dollars)."""
        with self._writing():
            self._book(key, "answer", reply.prompt_tokens, reply.completion_tokens, cost)
            self._settle(key, json.dumps(reply.as_dict(), ensure_ascii=False), None)

    def reject(self, key: str, reason: str) -> None:
        """Store why a claimed request has no answer and never will."""
        with self._writing():
            self._settle(key, None, reason)

    def charge(self, key: str, outcome: str, prompt_tokens: int, completion_tokens: int, cost: float) -> None:
        """Book a paid answer that is of no use; the request stays claimed."""
        with self._writing():
            self._book(key, outcome, prompt_tokens, completion_tokens, cost)

    def release(self, key: str, *, lost: bool = False) -> None:
        """Give a claimed request back; with ``lost`` its reserve is booked, as an answer may be billed that did not arrive."""
        with self._writing():
            if lost:
                self._book_lost(key)
            self._db.execute("DELETE FROM requests WHERE key = ? AND owner = ?", (key, self._owner))

    def claimed(self) -> int:
        """How many requests are on their way, in all processes; those of a process that died count until they are taken over."""
        return int(self._db.execute("SELECT count(*) FROM requests WHERE owner IS NOT NULL").fetchone()[0])

    def spent(self, teacher: str) -> Spent:
        """What a teacher has cost so far, in all processes."""
        query = "SELECT calls, prompt_tokens, completion_tokens, cost, lost FROM spent WHERE teacher = ?"
        row = self._db.execute(query, (teacher,)).fetchone()
        return Spent(*row) if row else Spent()

    def outcomes(self, teacher: str) -> dict[str, int]:
        """How often each outcome stands in a teacher's ledger: ``answer``, ``empty``, ``truncated``, ``lost``."""
        query = "SELECT outcome, count(*) FROM ledger WHERE teacher = ? GROUP BY outcome ORDER BY outcome"
        return dict(self._db.execute(query, (teacher,)).fetchall())

    def _switch_to_wal(self) -> None:
        """SQLite does not wait for others that switch at the same moment."""
        deadline = time.monotonic() + _WAIT_FOR_LOCK_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise ResourceError(
                f"the cache of answers cannot be written: {error}",
                where=str(self.path),
                fix="mend that; the same command continues",
            ) from error

    def _settle(self, key: str, reply: str | None, reason: str | None) -> None:
        query = "UPDATE requests SET reply = ?, reason = ?, owner = NULL, reserved = 0 WHERE key = ?"
        self._db.execute(query, (reply, reason, key))

    def _book(self, key: str, outcome: str, prompt_tokens: int, completion_tokens: int, cost: float) -> None:
        (teacher,) = self._db.execute("SELECT teacher FROM requests WHERE key = ?", (key,)).fetchone()
        values = (key, teacher, time.time(), outcome, prompt_tokens, completion_tokens, cost)
        self._db.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        self._db.execute(
            "INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (teacher) DO UPDATE SET calls = calls + excluded.calls,"
            " prompt_tokens = prompt_tokens + excluded.prompt_tokens, cost = cost + excluded.cost, lost = lost + excluded.lost,"
            " completion_tokens = completion_tokens + excluded.completion_tokens",
            (teacher, outcome != "lost", prompt_tokens, completion_tokens, cost, cost if outcome == "lost" else 0.0),
        )

    def _book_lost(self, key: str) -> None:
        (reserved,) = self._db.execute("SELECT reserved FROM requests WHERE key = ?", (key,)).fetchone()
        self._book(key, "lost", 0, 0, reserved)

    def _committed(self, teacher: str) -> float:
        query = "SELECT coalesce(sum(reserved), 0) FROM requests WHERE owner IS NOT NULL AND teacher = ?"
        return float(self._db.execute(query, (teacher,)).fetchone()[0]) + self.spent(teacher).cost

    def _beat(self) -> None:
        now = time.time()
        if now - self._seen >= _HEARTBEAT_SECONDS:
            process = (self._owner, _place(), os.getpid(), psutil.Process().create_time(), now)
            self._db.execute("INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?, ?)", process)
            self._seen = now

    def _alive(self, owner: str) -> bool:
        row = self._db.execute("SELECT place, pid, started, seen FROM owners WHERE id = ?", (owner,)).fetchone()
        if row is None:
            return False
        place, pid, started, seen = row
        if place != _place():  # such as another container on the same volume
            return bool(time.time() - seen < _SILENT_SECONDS)
        try:
            return bool(abs(psutil.Process(pid).create_time() - started) < 1 and psutil.Process(pid).status() != "zombie")
        except psutil.NoSuchProcess:
            return False

    def _bury(self, owner: str) -> None:
        """Book what a process that is gone had on its way, and free it."""
        for (key,) in self._db.execute("SELECT key FROM requests WHERE owner = ?", (owner,)).fetchall():
            self._book_lost(key)
        self._db.execute("DELETE FROM requests WHERE owner = ?", (owner,))
        self._db.execute("DELETE FROM owners WHERE id = ?", (owner,))


def _stored(reply: str | None, reason: str | None) -> Stored:
    return Stored(Reply.from_dict(json.loads(reply)) if reply is not None else None, reason)


def _place() -> str:
    """The machine and, where there are containers, which of them: process ids mean nothing outside."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {namespace}"
