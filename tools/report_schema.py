"""Write the JSON Schema of ``report.json`` to ``docs/report.schema.json``."""

from __future__ import annotations

from pathlib import Path

from slmops.evaluation.schema import json_schema
from slmops.files import write_json


def main() -> None:
    """Write the file anew."""
    write_json(Path(__file__).resolve().parent.parent / "docs" / "report.schema.json", json_schema())


if __name__ == "__main__":
    main()
