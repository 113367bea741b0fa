"""The report in a real browser: nothing is reported on the console, nothing is cut off, no labels overlap."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from slmops.evaluation.report import render_html
from tests.unit.evaluation.sample_report import sample_report

pytestmark = pytest.mark.browser

# A page of its own around the report, since the report itself allows no script.
_PROBE = """<!doctype html><body style="margin:0"><iframe id="frame" src="report.html" style="border:0;width:WIDTHpx;height:900px"></iframe>
<pre id="found"></pre><script>
addEventListener("load", () => {
  const page = document.getElementById("frame").contentDocument;
  const seen = [...page.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().width > 0);
  const overlaps = [], outside = [];
  for (const svg of seen) {
    const name = svg.querySelector("desc").id;
    const labels = [...svg.querySelectorAll(".halo, .label")].map(text => text.getBoundingClientRect());
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
  document.getElementById("found").textContent = JSON.stringify({
    width: page.documentElement.scrollWidth, charts: seen.length, rows: page.querySelectorAll(".comparison tbody tr").length, overlaps, outside
  });
});
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if found is None:
        pytest.skip("no chromium, chromium-browser, google-chrome or chrome on the PATH")
    return found


@pytest.fixture
def report(tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    file.write_text(render_html(sample_report()), encoding="utf-8")
    return file


def _load(chromium: str, page: Path, width: int, profile: Path, *flags: str) -> tuple[str, str]:
    quiet = "--disable-background-networking --no-first-run --disable-component-update --disable-sync --disable-gpu --no-sandbox"
    done = subprocess.run(
        [chromium, "--headless", *quiet.split(), f"--user-data-dir={profile}", f"--window-size={width},900",
         "--allow-file-access-from-files", "--enable-logging=stderr", *flags, "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr


def test_the_browser_has_nothing_to_complain_about(chromium: str, report: Path, tmp_path: Path) -> None:
    page, log = _load(chromium, report, 1280, tmp_path / "profile")
    assert "support-routing" in page
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_page_fits_the_screen_and_its_charts_are_whole(chromium: str, report: Path, tmp_path: Path, width: int) -> None:
    probe = tmp_path / "probe.html"
    probe.write_text(_PROBE.replace("WIDTH", str(width)), encoding="utf-8")
    page, _ = _load(chromium, probe, 1400, tmp_path / "profile")
    found: dict[str, Any] = json.loads(re.search(r'<pre id="found">(.*?)</pre>', page, re.DOTALL)[1])  # type: ignore[index]
    assert found == {"width": width, "charts": 12, "rows": 8, "overlaps": [], "outside": []}
