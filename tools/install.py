"""Make a virtual environment with this checkout, all its extras and pinned dependencies; only the standard library is needed.

torch comes first: where no NVIDIA GPU is found, as its CPU build (from the indexes pip is set up with, else PyTorch's own
index), so that nothing pulls in gigabytes of CUDA.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> None:
    """Install into the folder named by the first argument."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(f"Python 3.11 to 3.13 is needed, this is {platform.python_version()}; run: make PYTHON=python3.12")
    venv = Path(sys.argv[1]).resolve()
    if subprocess.run([sys.executable, "-m", "venv", str(venv)], check=False).returncode != 0:
        sys.exit("the virtual environment could not be made; on Debian: apt-get install python3-venv")
    python = str(venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    install_torch(pip)
    run([*pip, "-c", str(CONSTRAINTS), "-e", f"{ROOT}[all,dev]"])


def install_torch(pip: list[str]) -> None:
    """The torch of the constraints; on Linux without a GPU its CPU build, from wherever it is to be had."""
    match = re.search(r"^torch==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert match is not None, "constraints.txt pins torch"
    version = match.group(1)
    if sys.platform != "linux" or shutil.which("nvidia-smi"):
        run([*pip, f"torch=={version}"])
        return
    attempts = (
        [*pip, f"torch=={version}+cpu"],
        [*pip, "--extra-index-url", CPU_INDEX, "--timeout", "20", "--retries", "1", f"torch=={version}+cpu"],
    )
    for attempt in attempts:
        if subprocess.run(attempt, check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return
    print(f"no CPU build of torch {version} found; installing the default one", file=sys.stderr)
    run([*pip, f"torch=={version}"])


def run(command: list[str]) -> None:
    """Run a command; stop with its exit code if it fails."""
    result = subprocess.run(command, check=False)
    if result.returncode != 0:
        sys.exit(f"failed: {' '.join(command)}")


if __name__ == "__main__":
    main()
