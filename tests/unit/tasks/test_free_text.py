"""Summaries, translations, generated text and code: what is asked, what is refused, what is scored."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.errors import ConfigError, MissingExtraError
from slmops.tasks.base import AnswerError, Task, open_task

CHAIN = """Here you go:
```json
[{"missing": "Rome; 1999", "summary": "A text about a city."},
 {"Missing_Entities": ["the Tiber"], "Denser_Summary": "Rome in 1999, by a river."},
 {"missing": "", "summary": "Rome on the Tiber in 1999."}]
```"""


def density(**options: object) -> Task:
    return open_task("summarization", {"chain_of_density": True, **options})


def test_a_chain_of_density_is_asked_for_with_its_length_and_steps() -> None:
    [system, _] = density(steps=3, max_words=40).ask(Row.of("A long text."))
    assert "Write 3 summaries" in system["content"]
    assert "at most 40 words" in system["content"]
    [system, _] = density().ask(Row.of("A long text."))
    assert "at most 80 words" in system["content"]
    assert "step" not in open_task("summarization", {}).ask(Row.of("A long text."))[0]["content"]


def test_the_last_summary_is_the_answer_and_the_steps_before_it_the_rationale() -> None:
    assert density().parse(CHAIN) == "Rome on the Tiber in 1999."
    assert density().rationale(CHAIN) == "Rome; 1999: A text about a city.\nthe Tiber: Rome in 1999, by a river."
    [first, second] = density(rationales="train").training_rows(Row.of("T"), "S", density().rationale(CHAIN))
    assert (first.answer, second.answer) == ("S", density().rationale(CHAIN))
    assert density(rationales="drop").rationale(CHAIN) is None
    assert density().parse("Just a summary.") == "Just a summary."  # the student's answer
    assert density().parse("A summary of [1] and {two}.") == "A summary of [1] and {two}."
    assert density().rationale("Just a summary.") is None


def test_a_chain_that_breaks_off_ends_with_its_last_whole_step() -> None:
    cut = '[{"missing": "Rome", "summary": "A city."}, {"missing": "Tiber", "summary": "Rome on the Ti'
    assert density().parse(cut) == "A city."


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[]", "no chain of density"), ('[{"missing": "x"}]', "no chain of density"), ("word " * 81, "too long: 81 words where 80")],
)
def test_what_is_no_summary_is_refused(text: str, reason: str) -> None:
    with pytest.raises(AnswerError, match=reason):
        density().parse(text)


def test_an_example_of_a_chain_is_shown_as_it_is_asked_for() -> None:
    example = {"question": "T", "answer": "S.", "rationale": "Rome"}
    assert density(examples=[example]).ask(Row.of("Q"))[2]["content"] == '[{"missing": "Rome", "summary": "S."}]'


def test_summaries_are_scored_by_rouge() -> None:
    pytest.importorskip("rouge_score")
    scores = open_task("summarization", {}).score(["the cat sat", ""], ["the cat sat down", "x"])
    assert scores["rouge_l"] == pytest.approx((2 * 1.0 * 0.75 / 1.75) / 2)
    assert scores["rouge_2"] == pytest.approx((2 * 1.0 * (2 / 3) / (5 / 3)) / 2)
    assert scores["valid_share"] == 0.5


def test_translations_are_scored_as_sacrebleu_does() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    answers, references = ["The house is on a hill.", "Good day"], ["The house is on the hill.", "Good day"]
    scores = open_task("translation", {}).score(answers, references)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score / 100)
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score)
    assert 0 < scores["chrf"] < 1 < scores["bleu"] < 100


@pytest.mark.parametrize(("task", "package"), [("summarization", "rouge_score"), ("translation", "sacrebleu")])
def test_a_missing_package_is_named_with_its_extra(task: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (package, *[name for name in sys.modules if name.startswith(f"{package}.")]):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"slmops\[evaluate\]"):
        open_task(task, {}).score(["a"], ["a"])


def test_a_translator_is_told_the_languages() -> None:
    task = open_task("translation", {"source_language": "German", "target_language": "French"})
    assert "from German into French" in task.ask(Row.of("Guten Tag"))[0]["content"]
    filled = open_task("translation", {"system_prompt": "To {target_language}! {other}"})
    assert filled.ask(Row.of("Guten Tag"))[0]["content"] == "To English! {other}"


def test_code_is_parsed_and_never_run(tmp_path: Path) -> None:
    task = open_task("generation", {"output": "python"})
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w')"
    assert task.parse(f"Sure:\n```python\n{code}\n```\nDone.") == code
    assert not marker.exists()
    assert task.parse("```python\nprint(2 + 3)\n```\nIt prints:\n```\n5\n```") == "print(2 + 3)"
    assert task.correct("x=1 # one", "x = 1")
    assert not task.correct("x=2", "x = 1")
    assert task.score(["x=1", "x ="], ["x = 1", "x = 1"])["exact_match"] == 0.5


@pytest.mark.parametrize("text", ["def f(:\n  pass", "# nothing\n#", "x = '\x00'", "(" * 5000])
def test_what_is_no_python_is_refused(text: str) -> None:
    with pytest.raises(AnswerError, match="not Python: "):
        open_task("generation", {"output": "python"}).parse(text)


def test_assertions_of_the_user_hold_or_say_why_not(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def polite(text):\n    return 'please' in text.lower() or 'no please in it'\n\n"
        "def short(text):\n    return len(text) < 20\n\ndef broken(text):\n    return 1 / 0\n"
    )
    own = [{"function": f"{tmp_path / 'mine.py'}:{name}"} for name in ("polite", "short")]
    task = open_task("generation", {"assertions": [{"matches": r"^P", "lacks": "cat", "max_words": 3}, *own]})
    assert task.parse("Please go on") == "Please go on"
    for text, reason in (
        ("please", r"assertion: does not match '\^P'"),
        ("Pet cat", "assertion: matches 'cat'"),
        ("Please do it now", "assertion: 4 words where 3 are allowed"),
        ("Pay now", "assertion: no please in it"),
        ("Pleaseeeeeeeeeeeeeeeee", "assertion: .*short refuses it"),
    ):
        with pytest.raises(AnswerError, match=reason):
            task.parse(text)
    broken = open_task("generation", {"assertions": [{"function": f"{tmp_path / 'mine.py'}:broken"}]})
    with pytest.raises(AnswerError, match="broken failed: ZeroDivisionError"):
        broken.parse("x")


@pytest.mark.parametrize(
    ("assertion", "problem"),
    [({}, "needs one of"), ({"matches": "("}, "is no regular expression"), ({"max_words": 0}, "greater than or equal to 1")],
)
def test_an_assertion_that_says_nothing_is_refused(assertion: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        open_task("generation", {"assertions": [assertion]})


def test_a_function_that_is_not_there_is_a_mistake_of_the_recipe(tmp_path: Path) -> None:
    for function, problem in (
        ("mine.py", "names no function"),
        (f"{tmp_path}/none.py:f", "no such file"),
        (f"{Path(__file__)}:none", "no function 'none'"),
    ):
        with pytest.raises(ConfigError, match=problem):
            open_task("generation", {"assertions": [{"function": function}]}).parse("x")
