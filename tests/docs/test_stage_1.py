"""The page on stage 1: its commands run, in its order, and print what it shows."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from slmops.teachers.catalogue import API_MODELS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "stage-1.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|text|text varies)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
_MARK = "=== end of block ==="


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder with ``slmops`` and ``python`` as the page names them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, words in {"slmops": "-m slmops", "python": ""}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def test_the_commands_of_the_page_run_and_print_what_it_shows(commands: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the extra 'api' is not installed")
    pytest.importorskip("datasketch", reason="the extra 'quality' is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    script = "".join(f"{text}\necho '{_MARK}'\n" for kind, text in BLOCKS if kind == "sh").replace("8077", port)
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "TEACHER_API_KEY": ""}
    with subprocess.Popen(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=240)
        finally:
            subprocess.run(["kill", "--", f"-{process.pid}"], capture_output=True, check=False)
    assert process.returncode == 0, err[-3000:]
    printed = iter(out.replace(port, "8077").split(f"{_MARK}\n"))
    shown = [
        (kind, next(printed), BLOCKS[place + 1] if place + 1 < len(BLOCKS) else ("sh", ""))
        for place, (kind, _) in enumerate(BLOCKS)
        if kind == "sh"
    ]
    for _, real, (kind, text) in shown:
        if kind == "text":
            assert real == text
        elif kind == "text varies":
            assert _without_numbers(real) == _without_numbers(text)


def test_the_table_of_teachers_is_that_of_the_catalogue() -> None:
    for name, model in API_MODELS.items():
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
        _, _, provider, key, tokens, prices, date, until, _ = (cell.strip() for cell in row.split("|"))
        assert (provider, key) == (model.provider, f"`{model.key_env}`")
        assert int(tokens.replace(",", "")) == model.context_length
        assert [float(price) for price in prices.split("/")] == [model.price_input, model.price_output]
        assert date == model.price_date
        assert until[-10:] in model.notice


def _without_numbers(text: str) -> str:
    return re.sub(r"\d[\d.,]*", "#", text)
