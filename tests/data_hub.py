"""A hub of one data set over loopback, as far as ``datasets`` asks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

DATA_SET = "some/tones"


class DataHub(BaseHTTPRequestHandler):
    """Answers from the files below ``folder``, which are those of ``commit``."""

    folder: Path
    commit: str
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        wanted = json.loads(form)["paths"] if form.startswith("{") else parse_qs(form).get("paths", [])
        self._json([self._entry(path) for path in wanted if (self.folder / path).exists()])

    def _answer(self, *, body: bool) -> None:
        path = urlsplit(self.path).path
        self.asked.append(path)
        api, files = f"/api/datasets/{DATA_SET}", f"/datasets/{DATA_SET}/resolve/"
        if path.startswith(files):
            name = path.removeprefix(files).partition("/")[2]
            if (self.folder / name).is_file():
                content = (self.folder / name).read_bytes()
                self._send(200, content, body=body, ETag=f'"{hashlib.sha256(content).hexdigest()}"')
            else:
                self._send(404, b"{}", body=body, **{"X-Error-Code": "EntryNotFound"})
        elif path.startswith(f"{api}/tree/"):
            below = path.removeprefix(f"{api}/tree/").partition("/")[2]
            inside = (self.folder / below).rglob("*") if "recursive=True" in self.path else (self.folder / below).glob("*")
            self._json([self._entry(found.relative_to(self.folder).as_posix()) for found in sorted(inside)])
        elif path.startswith((f"{api}/revision/", api)):
            self._json({"id": DATA_SET, "sha": self.commit, "siblings": []})
        else:
            self._send(404, b"{}", body=body, **{"X-Error-Code": "RepoNotFound"})

    def _entry(self, path: str) -> dict[str, Any]:
        found = self.folder / path
        if found.is_dir():
            return {"type": "directory", "path": path, "oid": "1" * 40}
        return {"type": "file", "path": path, "size": found.stat().st_size, "oid": hashlib.sha1(found.read_bytes()).hexdigest()}

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), body=True)

    def _send(self, status: int, content: bytes, *, body: bool, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": self.commit, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, type[DataHub]]]:
    """The address of a hub with the files of a folder, and its handler, which notes what was asked."""
    handler = type("Hub", (DataHub,), {"folder": folder, "commit": "c" * 40, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        server.server_close()
