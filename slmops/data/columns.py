"""Which columns of a file are the question and which is the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from slmops.data.chat import TextTemplate
from slmops.data.records import Table
from slmops.data.shapes import Layout, are_pieces, is_absent, kind_of, look_up
from slmops.errors import DataError, at, nearest

_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("context", "question"),
    ("passage", "question"),
    ("instruction", "input"),
)
# In the order they are looked for.
_INPUTS = (
    *("prompt", "instruction", "input", "question", "text", "sentence", "utterance", "message", "query", "content"),
    *("review", "document", "article", "source"),
)
_ANSWERS = (
    *(
        "response",
        "completion",
        "answer",
        "answer_key",
        "output",
        "teacher_output",
        "label_text",
        "label",
        "gold_label",
        "category",
    ),
    *("intent", "class", "target", "expected", "summary", "sentiment", "entities"),
)
_SINGLE = ("text", "a number", "true/false")
_LONGEST_LABEL = 60
_SAMPLE = 500


@dataclass(frozen=True)
class Columns:
    """The columns a user names.

    Args:
        input: Of the question; several are separated by commas. A path such as ``question.stem`` leads into an object.
        answer: Of the answer.
        template: Takes the place of both.
        tags: Of one tag a word of the question; takes the place of ``answer``.
        rationale: Of the reasoning before the answer.
        names: All columns of a file without a header.
    """

    input: str | None = None
    answer: str | None = None
    template: TextTemplate | None = None
    tags: str | None = None
    rationale: str | None = None
    names: tuple[str, ...] = ()


def choose_layout(table: Table, columns: Columns, *, needs_answer: bool = True, like: Layout | None = None) -> Layout:
    """Decide what the columns of a file are, see :func:`_choose`; and where tags or the reasoning stand."""
    layout = _choose(table, columns, needs_answer=needs_answer, like=like)
    if columns.tags is None and columns.rationale is None:
        return layout
    view = _View.of(table)
    if needs_answer:
        for name, option in ((columns.tags, "tags_field"), (columns.rationale, "rationale_field")):
            view.require([name] if name else [], option)
    return replace(layout, tags=columns.tags, rationale=columns.rationale, answer=None if columns.tags else layout.answer)


def _choose(table: Table, columns: Columns, *, needs_answer: bool, like: Layout | None) -> Layout:
    """Decide what the columns of a file are.

    In this order: what the user named (but for a pool of chat turns, which lacks it); the layout of the train file
    (``like``), where its input fields are there; the names in common use; where two columns of text are left, the one with
    few distinct short values is the answer.

    Args:
        table: The file.
        columns: What the user named.
        needs_answer: Whether the answer matters; it does not in a pool.
        like: Layout of the train file.

    Raises:
        DataError: A named column is not there, or no rule decides; the message lists the columns and the flags.
    """
    view = _View.of(table)
    if columns.template is not None:
        *slots, last = columns.template.fields
        missing_answer = needs_answer and last not in view.kinds and view.others(slots)
        view.require([*slots, last] if missing_answer else slots, "text_template")
        return Layout("text_template", tuple(slots), last, "as the text_template says", columns.template)
    answer = columns.answer
    if answer is not None and needs_answer:
        view.require([answer], "answer_field")
    named = tuple(name.strip() for name in (columns.input or "").split(",") if name.strip())
    turns_wait = not needs_answer and view.kinds.get("messages") == "a list"
    if named and not (turns_wait and all(view.kind(name) is None for name in named)):
        view.require(named, "input_field")
        return view.layout(named, answer or view.answer(named), "as named by input_field")
    follows = like is not None and all(view.kind(name) for name in like.inputs)
    if like is not None and follows and (not needs_answer or (like.answer is not None and view.kind(like.answer))):
        return like
    if not follows and answer is None:
        view.refuse_data_as_header()
    if view.kinds.get("messages") == "a list":
        return Layout("messages", ("messages",), answer or view.answer_beside_messages(), "chat turns")
    pieces = view.pieces()
    if pieces and answer is None:
        return view.layout((pieces,), None, "a text in pieces, some with an entity")
    inputs = like.inputs if like is not None and follows else view.known_inputs(answer)
    answer = answer or view.answer(inputs)
    if inputs and (answer or not needs_answer or not view.others(inputs)):
        return view.layout(inputs, answer, "by the names of the columns")
    return view.layout_by_values(inputs, answer)


def look_like_labels(answers: Sequence[str]) -> bool:
    """Whether answers are labels to choose from: short, and few enough that each one stands there twice on average."""
    distinct = set(answers)
    if not 2 <= len(distinct) <= min(300, len(answers) / 2):
        return False
    if any(len(answer) > _LONGEST_LABEL or "\n" in answer for answer in distinct):
        return False
    return len(distinct) <= 20 or not all(_is_number(answer) for answer in distinct)


@dataclass(frozen=True)
class _View:
    """A file's columns and what each mostly holds."""

    table: Table

    @classmethod
    def of(cls, table: Table) -> _View:
        if not any(record.values is not None for record in table.records):
            places = [f"{at(table.path, record.line)}: {record.problem}" for record in table.records[:5]]
            what = "no row can be read" if places else "the file has a header and no rows"
            raise DataError("\n  ".join([what, *places]), where=str(table.path), fix="give a file with one example a line")
        return cls(table)

    @cached_property
    def rows(self) -> list[Mapping[str, Any]]:
        return [record.values for record in self.table.records if record.values is not None]

    @cached_property
    def kinds(self) -> dict[str, str]:
        kinds = {}
        for name in self.table.header or dict.fromkeys(name for values in self.rows for name in values):
            found = [kind_of(values[name]) for values in self.rows[:_SAMPLE] if values.get(name) is not None]
            kinds[name] = max(sorted(set(found)), key=found.count) if found else "nothing"
        return kinds

    def values(self, name: str) -> list[str]:
        return [str(values[name]) for values in self.rows if values.get(name) is not None]

    def require(self, names: Sequence[str], option: str) -> None:
        for name in names:
            if self.kind(name) is None:
                what = f"there is no column {name!r}, which {option} names"
                raise DataError(what, where=str(self.table.path), fix=nearest(name, self.kinds))

    def layout(self, inputs: tuple[str, ...], answer: str | None, why: str) -> Layout:
        nested = frozenset(name for name in (*inputs, answer) if name and self.kind(name) in ("a list", "an object"))
        shape = "columns"
        if len(inputs) == 1 and inputs[0] in nested:
            found = [value for values in self.rows[:_SAMPLE] if isinstance(value := look_up(values, inputs[0]), list)]
            if any(are_pieces(value) for value in found):
                shape = "pieces"
            elif not any(all(isinstance(item, str) for item in value) for value in found):
                shape = "messages"
        return Layout(shape, inputs, answer, why, nested=nested)

    def kind(self, name: str) -> str | None:
        """What a column, or what a path leads to, mostly holds; ``None`` where there is no such thing."""
        if name in self.kinds or "." not in name:
            return self.kinds.get(name)
        found = [value for values in self.rows[:_SAMPLE] if not is_absent(value := look_up(values, name))]
        kinds = [kind_of(value) for value in found if value is not None]
        return max(sorted(set(kinds)), key=kinds.count) if kinds else "nothing" if found else None

    def pieces(self) -> str | None:
        """The only list column, where it holds texts in pieces some of which have an entity."""
        lists = [name for name, kind in self.kinds.items() if kind == "a list"]
        found = [values.get(lists[0]) for values in self.rows[:_SAMPLE]] if len(lists) == 1 else []
        marked = any(are_pieces(value) and any("entity" in item for item in value) for value in found if isinstance(value, list))
        return lists[0] if marked else None

    def known_inputs(self, answer: str | None) -> tuple[str, ...]:
        by_name = {_normal(name): name for name, kind in self.kinds.items() if kind == "text" and name != answer}
        for pair in _PAIRS:
            if all(name in by_name for name in pair):
                return tuple(by_name[name] for name in pair)
        return tuple(by_name[name] for name in _INPUTS if name in by_name)[:1]

    def answer(self, inputs: Sequence[str]) -> str | None:
        """The first column with a known answer's name that holds single values."""
        kinds = (*_SINGLE, "nothing")
        by_name = {_normal(name): name for name, kind in self.kinds.items() if kind in kinds and name not in inputs}
        return next((by_name[name] for name in _ANSWERS if name in by_name), None)

    def answer_beside_messages(self) -> str | None:
        """The field of the answer where conversations mostly end with the user; else the last turn is the answer."""
        turns = [values.get("messages") for values in self.rows[:_SAMPLE]]
        last = [item[-1].get("role") for item in turns if isinstance(item, list) and item and isinstance(item[-1], Mapping)]
        return self.answer(("messages",)) if last.count("user") * 2 > len(last) else None

    def others(self, taken: Sequence[str | None]) -> list[str]:
        """Columns that could be a question or an answer: single values, no identifiers, not the same on every row."""
        free = [name for name, kind in self.kinds.items() if kind in _SINGLE and name not in taken and not _is_id(name)]
        return [name for name in free if len(self.rows) == 1 or len(set(self.values(name))) > 1]

    def is_prose(self, name: str) -> bool:
        return self.kinds[name] == "text" and not all(_is_number(value) for value in self.values(name))

    def layout_by_values(self, inputs: tuple[str, ...], answer: str | None) -> Layout:
        """Choose by what the columns hold, where their names leave it open."""
        others = self.others([*inputs, answer])
        prose = [name for name in others if self.is_prose(name)]
        if inputs or answer:
            labels = [name for name in others if look_like_labels(self.values(name))]
            if inputs and others == labels and len(labels) == 1:
                return self.layout(inputs, labels[0], f"{labels[0]!r} has few distinct short values")
            if answer and len(prose) == 1:
                return self.layout((prose[0],), answer, f"{prose[0]!r} is the only other text")
        elif len(others) == 1 and prose and not {"a list", "an object"} & set(self.kinds.values()):
            return self.layout((prose[0],), None, f"{prose[0]!r} is the only text")
        elif len(others) == 2:
            labels = [name for name in others if look_like_labels(self.values(name))]
            rest = tuple(name for name in prose if name not in labels)
            if len(labels) == 1 and rest:
                return self.layout(rest, labels[0], f"{labels[0]!r} has few distinct short values")
        listed = ", ".join(f"{name} ({kind})" for name, kind in self.kinds.items())
        raise DataError(
            f"it is not clear which column is the question and which the answer; the columns are: {listed}",
            where=str(self.table.path),
            fix="name them: --input_field NAME --answer_field NAME, or --text_template '{question} => {answer}'",
        )

    def refuse_data_as_header(self) -> None:
        header = self.table.header
        if header is None or any(_normal(name) in (*_INPUTS, *_ANSWERS) for name in header):
            return
        for name in header:
            is_sentence = len(name) > _LONGEST_LABEL or len(name.split()) > 3 or name.endswith((".", ":", "!", "?", ","))
            if is_sentence or (name in (values := self.values(name)) and look_like_labels([name, *values])):
                raise DataError(
                    f"the first line looks like data, not like the names of the columns: {name[:_LONGEST_LABEL]!r}",
                    where=at(self.table.path, 1),
                    fix="put a line with names above it, such as text,label; if these are names, say which with --input_field",
                )


def _normal(name: str) -> str:
    """``Answer Key``, ``answer-key`` and ``answerKey`` are all ``answer_key``."""
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def _is_id(name: str) -> bool:
    normal = _normal(name)
    return (
        normal in ("", "id", "idx", "index", "uid", "uuid", "guid", "key")
        or normal.startswith("unnamed")
        or normal.endswith(("_id", "_idx", "_index"))
    )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[-+]?[\d.,]+\s*", text) is not None
