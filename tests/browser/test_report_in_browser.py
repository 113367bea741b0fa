"""Reports in a real browser: nothing is reported on the console, nothing is cut off, no labels overlap."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from slmops.evaluation.report import render_html
from tests.unit.evaluation.sample_report import sample_report
from tests.unit.evaluation.sample_variants import sample_evaluation

pytestmark = pytest.mark.browser

_WIDTHS = (360, 390, 768, 1280)
_SAMPLES = {
    "distillation": (sample_report, {"charts": 15, "rows": 8}),
    "evaluation": (sample_evaluation, {"charts": 5, "rows": 2}),
}
# A page of its own around the report, since the report itself allows no script.
_PROBE = """<!doctype html><body>
FRAMES
<pre id="found"></pre>
<script>
const inspect = page => {
  const charts = [...page.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().width > 0);
  const overlaps = [], outside = [];
  for (const svg of charts) {
    const name = svg.querySelector("desc").id;
    const labels = [...svg.querySelectorAll(".label")].map(text => text.getBoundingClientRect());
    labels.forEach((a, at) => labels.slice(at + 1).forEach(b => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 1 && high > 3) overlaps.push(name);
    }));
    const card = (svg.closest("figure") || svg.closest("td")).getBoundingClientRect();
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      if (box.left < card.left || box.right > card.right) outside.push(name + ": " + text.textContent);
    }
  }
  const rows = page.querySelectorAll(".comparison tbody tr").length;
  return {width: page.documentElement.scrollWidth, charts: charts.length, rows, overlaps, outside};
};
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => inspect(frame.contentDocument));
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""


@pytest.fixture(params=_SAMPLES)
def sample(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def report(sample: str, tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    file.write_text(render_html(_SAMPLES[sample][0]()), encoding="utf-8")
    return file


def _load(chromium: str, page: Path, profile: Path) -> tuple[str, str]:
    quiet = "--disable-background-networking --no-first-run --disable-component-update --disable-sync --disable-gpu --no-sandbox"
    asked = "--hide-scrollbars --allow-file-access-from-files --enable-logging=stderr --dump-dom"
    command = [chromium, "--headless", *quiet.split(), f"--user-data-dir={profile}", *asked.split(), page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def test_the_browser_has_nothing_to_complain_about(chromium: str, report: Path, tmp_path: Path) -> None:
    page, log = _load(chromium, report, tmp_path / "profile")
    assert "How it was measured" in page
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []


def test_the_page_fits_phones_and_desktops_and_its_charts_are_whole(
    chromium: str, sample: str, report: Path, tmp_path: Path
) -> None:
    probe = tmp_path / "probe.html"
    frames = [f'<iframe src="report.html" style="border:0;width:{width}px;height:900px"></iframe>' for width in _WIDTHS]
    probe.write_text(_PROBE.replace("FRAMES", "\n".join(frames)), encoding="utf-8")
    page, _ = _load(chromium, probe, tmp_path / "profile")
    found = re.search(r'<pre id="found">(.*?)</pre>', page, re.DOTALL)
    assert found is not None
    whole = {**_SAMPLES[sample][1], "overlaps": [], "outside": []}
    assert json.loads(found[1]) == [{"width": width, **whole} for width in _WIDTHS]
