"""From what a user points to, to the folder with the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.errors import ModelError
from slmops.runtimes.folders import served_folder


@pytest.mark.parametrize("marker", ["genai_config.json", "config.json", "model.gguf"])
@pytest.mark.parametrize("inside", ["", "package", "model"])
def test_a_model_is_found_in_its_folder_its_run_or_its_artifact(tmp_path: Path, inside: str, marker: str) -> None:
    place = tmp_path / inside
    place.mkdir(exist_ok=True)
    (place / marker).write_text("{}")
    assert served_folder(tmp_path) == place


def test_a_run_without_a_package_points_to_its_report(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ModelError, match=r"this run packaged no model\n.*report\.html"):
        served_folder(tmp_path)


def test_a_folder_without_a_model_is_told_from_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model here"):
        served_folder(tmp_path)
    with pytest.raises(ModelError, match="there is no such folder"):
        served_folder(tmp_path / "nowhere")
