"""``slmops generate``: rows in, answers and rejected rows out; stopped anywhere, the same command continues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from slmops.artifact import Artifact
from slmops.files import read_json, read_jsonl
from slmops.teachers.catalogue import API_MODELS
from slmops.testing.faults import Faults, FaultServer
from tests.commands import Call, Result

ROWS = [
    {"text": "where is my parcel", "label": "delivery"},
    {"text": "my money back please", "label": "refund"},
    {"text": "it arrived broken, money back", "label": None},
    {"text": "tell me a joke", "label": "delivery"},
    {"text": "", "label": "refund"},
    {"text": "has the parcel left", "label": None},
]


def says(messages: Sequence[Mapping[str, str]]) -> str:
    text = messages[-1]["content"]
    return " Refund." if "money" in text else "delivery" if "parcel" in text else "Why did the chicken cross the road?"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    return file


@pytest.fixture
def generate(data: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    for model in API_MODELS.values():
        monkeypatch.delenv(model.key_env, raising=False)
        monkeypatch.delenv(model.base_url_env, raising=False)

    def run(*more: str, teacher: str = "test-model", server: FaultServer | None = None, out: str = "answers") -> Result:
        words = ["--task_type", "classification", "--teacher", teacher, "--data", str(data), "--output_path", str(tmp_path / out)]
        words += ["--base_url", server.url] if server else []
        return call("generate", *words, "requests.backoff_s=0.01", *more)

    return run


def test_rows_become_answers_or_rejected_rows_with_a_reason(generate: Call, tmp_path: Path) -> None:
    with FaultServer(Faults(html=0.2, empty=0.2), seed=1, answer=says) as server:
        result = generate(server=server)
    assert result.code == 0, result.err
    good, rejected = (read_jsonl(tmp_path / "answers" / name) for name in ("answers.jsonl", "rejected.jsonl"))
    assert [(row["messages"][-1]["content"], row["answer"], row["gold"], row["teacher_answer"]) for row in good] == [
        ("where is my parcel", "delivery", "delivery", "delivery"),
        ("my money back please", "refund", "refund", "Refund."),
        ("it arrived broken, money back", "refund", None, "Refund."),
        ("tell me a joke", "delivery", "delivery", "Why did the chicken cross the road?"),
        ("has the parcel left", "delivery", None, "delivery"),
    ]
    invalid = "the teacher gave no valid answer: not a label: 'Why did the chicken cross the road?'"
    assert [row.get("note") for row in good] == [None, None, None, invalid, None]
    assert [(row["reason"], row["origin"].rpartition(":")[2]) for row in rejected] == [("empty field 'text'", "5")]
    facts = Artifact.load(tmp_path / "answers", "answers").manifest.facts
    assert [facts[name] for name in ("rows", "answered", "rejected", "gold")] == [6, 5, 1, 3]
    assert facts["right"] == pytest.approx(2 / 3)
    assert facts["reasons"] == {"bad row in the file": 1}
    assert "5 of 6 rows" in result.out
    assert "1 of these by gold alone: the teacher gave no valid answer" in result.out
    assert "66.7% of 3 rows with a gold answer" in result.out
    assert "is for you to find out" in result.err  # the terms, before the first call
    Artifact.load(tmp_path / "answers").verify()


def test_the_answers_are_rows_that_training_reads(generate: Call, tmp_path: Path) -> None:
    from slmops.data.rows import Row

    with FaultServer(answer=says) as server:
        generate(server=server)
    rows = [Row.from_dict(line) for line in read_jsonl(tmp_path / "answers" / "answers.jsonl")]
    assert {row.answer for row in rows} == {"delivery", "refund"}


def test_a_finished_folder_has_nothing_to_do_and_a_changed_one_pays_only_for_the_change(generate: Call, data: Path) -> None:
    with FaultServer(answer=says) as server:
        first = generate("--json", server=server)
        assert json.loads(generate("--json", server=server).out) == json.loads(first.out)
        assert server.requests == 5
        with data.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps({"text": "another parcel", "label": None}))
        assert json.loads(generate("--json", server=server).out)["answered"] == 6
        assert server.requests == 6


def test_the_plan_needs_no_key_and_writes_nothing(generate: Call, tmp_path: Path) -> None:
    text = generate("--plan", teacher="gpt-4o")
    assert (text.code, text.err) == (0, "")
    assert "gpt-4o (OpenAI): 5 rows, 5 calls" in text.out
    plan = json.loads(generate("--plan", "--json", teacher="gpt-4o").out)
    assert plan["calls"] == 5
    assert 0 < plan["cost"] < plan["most_cost"] < 0.1
    assert not (tmp_path / "answers").exists()


def test_without_a_key_nothing_starts(generate: Call) -> None:
    result = generate(teacher="gpt-4o")
    assert result.code == 2
    assert "export OPENAI_API_KEY=" in result.err


def test_the_cap_stops_and_a_higher_one_continues(generate: Call, tmp_path: Path) -> None:
    prices = ("teacher.price_input=10", "teacher.price_output=10", "--max_new_tokens", "4", "requests.max_concurrency=1")
    with FaultServer(answer=says) as server:
        stopped = generate("--max_cost", "0.001", *prices, server=server)
        assert stopped.code == 2
        assert "could exceed max_cost ($0.001)" in stopped.err
        assert "the same command continues" in stopped.err
        assert not (tmp_path / "answers" / "manifest.json").exists()
        assert 0 < len(read_jsonl(tmp_path / "answers" / "answers.jsonl")) < 4
        paid = server.paid
        done = generate("--max-cost", "1", *prices, server=server)
        assert done.code == 0, done.err
        assert (paid < 5, server.paid) == (True, 5)


def test_too_few_usable_answers_fail_and_leave_the_reasons(generate: Call, tmp_path: Path) -> None:
    with FaultServer() as server:
        result = generate(server=server)
    assert result.code == 2
    assert "only 0 of 5 answers of the teacher are usable" in result.err
    assert len(read_jsonl(tmp_path / "answers" / "rejected.jsonl")) == 3  # the others have gold answers
    assert not (tmp_path / "answers" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "teacher", "problem"),
    [
        ((), "gpt4o", "did you mean 'gpt-4o'"),
        ((), "smollm-135m-instruct", "did you mean 'smollm2-135m-instruct'"),
        (("teacher.prise_input=2",), "gpt-4o", "teacher.prise_input: unknown key; did you mean 'price_input'"),
        (("--max_new_tokens", "0"), "gpt-4o", "max_new_tokens: Input should be greater than or equal to 1"),
    ],
)
def test_a_mistake_is_named(generate: Call, arguments: tuple[str, ...], teacher: str, problem: str) -> None:
    result = generate(*arguments, "--plan", teacher=teacher)
    assert result.code == 2
    assert problem in result.err


def test_no_key_stands_anywhere_in_the_folder(generate: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", "geheim-1234")
    with FaultServer(Faults(server_error=0.3), key="geheim-1234", answer=says) as server:
        result = generate(server=server)
    assert result.code == 0
    assert "geheim" not in result.out + result.err
    for file in (tmp_path / "answers").rglob("*"):
        assert not file.is_file() or b"geheim" not in file.read_bytes()


def test_log_probabilities_stand_beside_the_answers(generate: Call, tmp_path: Path) -> None:
    with FaultServer(answer=says) as server:
        generate("teacher.top_logprobs=1", server=server)
    first = read_jsonl(tmp_path / "answers" / "answers.jsonl")[0]
    assert first["logprobs"] == [{"token": "delivery", "logprob": -0.25, "top": [["delivery", -0.25]]}]


def test_a_task_that_asks_in_its_own_words_is_followed() -> None:
    from slmops.data.rows import Row
    from slmops.teachers.asking import teacher_messages

    class Asking:
        def ask(self, row: Row) -> list[dict[str, str]]:
            return [{"role": "user", "content": f"Label this: {row.question}"}]

    assert teacher_messages(Asking(), Row.of("hello")) == ({"role": "user", "content": "Label this: hello"},)  # type: ignore[arg-type]


def test_a_model_on_this_machine_answers_too(generate: Call, tiny_model: Path, tmp_path: Path) -> None:
    result = generate("--min_success", "0", "--max_new_tokens", "4", teacher=str(tiny_model))
    assert result.code == 0, result.err
    assert len(read_jsonl(tmp_path / "answers" / "rejected.jsonl")) == 3
    assert read_json(tmp_path / "answers" / "manifest.json")["facts"]["rows"] == 6
    assert "no cost" in generate("--plan", teacher=str(tiny_model)).out


def test_recorded_answers_are_a_teacher_too(generate: Call, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    records = [{"input": row["text"], "teacher_output": says([{"content": str(row["text"])}])} for row in ROWS[:3]]
    log.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    result = generate("--min_success", "0.5", teacher=str(log))
    assert result.code == 0, result.err
    assert len(read_jsonl(tmp_path / "answers" / "answers.jsonl")) == 4
    reasons = [row["reason"] for row in read_jsonl(tmp_path / "answers" / "rejected.jsonl")]
    assert reasons == ["empty field 'text'", "no recorded answer"]


# Several teachers, retries, labels


def test_a_teacher_is_told_the_labels(generate: Call) -> None:
    with FaultServer(answer=says) as server:
        generate(server=server)
    told = {"role": "system", "content": "Answer with one of these labels alone:\ndelivery\nrefund"}
    assert [body["messages"][0] for body in server.bodies] == [told] * 5


def test_several_teachers_vote(generate: Call, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps({"input": row["text"], "teacher_output": "delivery"}) for row in ROWS if row["text"]))
    with FaultServer(answer=says) as server:
        more = ("--teacher", "m1", "--teacher", "m2", "--combine", "vote", "teacher.price_input=1", "teacher.price_output=1")
        result = generate(*more, teacher=str(log), server=server)
        assert result.code == 0, result.err
        plan = json.loads(generate(*more, "--plan", "--json", teacher=str(log), server=server, out="other").out)
    good = read_jsonl(tmp_path / "answers" / "answers.jsonl")
    assert [(row["answer"], row["teacher"], row["agreement"]) for row in good] == [
        ("delivery", str(log), 1.0),
        ("refund", "m1", pytest.approx(2 / 3)),
        ("refund", "m1", pytest.approx(2 / 3)),
        ("delivery", str(log), pytest.approx(1 / 3)),
        ("delivery", str(log), 1.0),
    ]
    facts = Artifact.load(tmp_path / "answers").manifest.facts
    assert (facts["calls"], facts["disagreements"]["share"]) == (10, pytest.approx(2 / 5))
    assert "the members disagree on 40.0% of the rows" in result.out
    assert (plan["calls"], [member["teacher"] for member in plan["members"]]) == (10, ["m1", "m2"])
    assert plan["cost"] == pytest.approx(sum(member["cost"] for member in plan["members"]))


def test_wrong_answers_are_asked_again_and_the_table_says_how_often_the_teacher_was_right(generate: Call, tmp_path: Path) -> None:
    asked: list[str] = []

    def unsure(messages: Sequence[Mapping[str, str]]) -> str:
        asked.append(messages[-1]["content"])
        return "refund" if asked.count(asked[-1]) == 1 else "delivery"

    with FaultServer(answer=unsure) as server:
        result = generate("--retries", "1", server=server)
    assert result.code == 0, result.err
    good = read_jsonl(tmp_path / "answers" / "answers.jsonl")
    assert [row["teacher_answer"] for row in good] == ["delivery", "refund", "refund", "delivery", "refund"]
    assert [row.get("tries") for row in good] == [1, None, None, 1, None]
    assert "right     100.0% of 3 rows with a gold answer; 33.3% at the first try" in result.out
    assert server.paid == 7


def test_where_teacher_and_gold_must_agree_an_invalid_answer_costs_the_row(generate: Call, tmp_path: Path) -> None:
    with FaultServer(answer=says) as server:
        assert generate("label_source=agree", server=server).code == 0
    rejected = read_jsonl(tmp_path / "answers" / "rejected.jsonl")
    assert [row["reason"] for row in rejected[1:]] == ["not a label: 'Why did the chicken cross the road?'"]


def test_rows_on_which_teacher_and_gold_disagree_can_be_set_aside(generate: Call, tmp_path: Path) -> None:
    with FaultServer(answer=lambda messages: "refund") as server:
        assert generate("label_source=agree", "--min_success", "0", server=server).code == 0
    rejected = read_jsonl(tmp_path / "answers" / "rejected.jsonl")
    assert [row["reason"] for row in rejected[1:]] == ["teacher disagrees: says 'refund'"] * 2


def test_a_task_goes_by_any_of_its_names(generate: Call, tmp_path: Path) -> None:
    from slmops.teachers.generate import Generate, GenerateOptions

    for name in ("Classification", "nlu_qa"):
        options = GenerateOptions(
            data=tmp_path / "train.jsonl", output_path=tmp_path / "o", task_type=name, teacher_names=("gpt-4o",)
        )
        plan = Generate(options).plan()
        assert plan is not None
        assert plan.calls == 5
