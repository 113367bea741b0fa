"""A rater's page in a real browser: judged by mouse and keys, kept over a reload, saved, and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from slmops import cli
from slmops.files import read_json, write_jsonl
from tests.browser.devtools import Browser, browser

pytestmark = pytest.mark.browser

EVIL = '<img src=x onerror="document.title=1"></script><script>document.title=2</script>'


def review(*words: object) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["review", *map(str, words)])
    assert end.value.code == 0


@pytest.fixture
def page(chromium: str, tmp_path: Path) -> Iterator[Browser]:
    with browser(chromium, tmp_path / "profile", tmp_path) as opened:
        yield opened


@pytest.fixture
def sheets(tmp_path: Path) -> Path:
    """Sheets of three rows."""
    for name in ("good", "evil"):
        answers = [EVIL + str(number) if name == "evil" else f"plain answer {number}\nand more" for number in range(3)]
        rows = [{"id": str(number), "question": f"question {number}?", "answer": said} for number, said in enumerate(answers)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    models = ("--a", tmp_path / "good.jsonl", "--b", tmp_path / "evil.jsonl")
    review(*models, "--raters", 1, "--output_path", tmp_path / "review")
    return tmp_path / "review"


def side_of(page: Browser, start: str) -> str:
    """The number of the answer that begins so."""
    return "1" if page.value("document.querySelector('#said-1 .text').textContent").startswith(start) else "2"


def place(page: Browser) -> str:
    return str(page.value("document.getElementById('place').textContent"))


def test_three_rows_are_judged_kept_saved_and_read_back(page: Browser, sheets: Path, tmp_path: Path) -> None:
    page.open(sheets / "rater-1.html")
    title = page.value("document.title")
    assert place(page) == "Row 1 of 3, 0 judged"
    page.click("#comment")
    for letter in 'short, "plain" 12':
        page.press(letter)
    page.press("Escape")
    page.click(f'[data-verdict="{side_of(page, "plain")}"]')
    assert place(page) == "Row 2 of 3, 1 judged"
    page.press(side_of(page, "plain"))
    assert place(page) == "Row 3 of 3, 2 judged"

    page.reload()
    assert place(page) == "Row 3 of 3, 2 judged"
    page.press("x")
    assert place(page) == "Row 3 of 3, 3 judged: all done, save your verdicts"
    page.press("ArrowLeft")
    page.click("#back")
    assert page.value("document.getElementById('comment').value") == 'short, "plain" 12'
    assert page.value("document.querySelectorAll('[aria-pressed=true]').length") == 1
    assert page.value("document.title") == title

    page.click("#save")
    saved = tmp_path / "verdicts-rater-1.csv"
    page.until(saved.is_file)
    assert page.console == []
    review("--read", saved, "--key", sheets / "key.json")
    found = read_json(sheets / "review.json")
    assert found["verdicts"] == {"a": 2, "b": 0, "tie": 0, "both bad": 1}
    assert [one["comment"] for one in found["comments"]] == ['short, "plain" 12']
    assert found["rejected"] == 0


@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (1280, False), (1280, True)])
def test_the_page_fits_phones_and_desktops_in_both_colours(page: Browser, sheets: Path, width: int, dark: bool) -> None:
    page.resize(width, 780, dark=dark)
    page.open(sheets / "rater-1.html")
    assert page.value("document.documentElement.scrollWidth") <= width
    boxes = page.value(
        "[...document.querySelectorAll('[data-verdict]')].map(b => b.getBoundingClientRect())"
        ".map(({left, right, top, bottom}) => [left, right, top, bottom])"
    )
    assert all(0 <= left < right <= width and 0 <= top < bottom <= 780 for left, right, top, bottom in boxes)
    shades = json.loads(
        page.value(
            "JSON.stringify(['body', '[data-verdict]'].map(one => getComputedStyle(document.querySelector(one)).backgroundColor))"
        )
    )
    assert all((sum(map(int, shade.strip("rgb()").split(","))) < 300) == dark for shade in shades)
    assert page.console == []
