"""Who answers, as recipes and commands say it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from slmops.config import build
from slmops.data.readers import read_table
from slmops.data.rows import Row
from slmops.errors import ConfigError, UsageError, nearest
from slmops.models.catalogue import advice, lookup
from slmops.models.hub import is_hub_id
from slmops.sections import AskedSection, PluginSpec, Section
from slmops.teachers.catalogue import API_MODELS, ApiOptions, is_api_teacher
from slmops.teachers.requests import RequestOptions

Kind = Literal["api", "recorded", "local"]


class Rule(Section):
    """Which rows a member of ``route`` answers. Give one or more of the fields; all of them must hold.

    Args:
        label: Gold answers.
        column: Name of a column of the row's file, with ``equals``.
        equals: Values of that column.
        matches: A regular expression that is found in the question.
        min_characters: Least length of the question.
        max_characters: Most.
    """

    label: tuple[str, ...] = Field((), description="Gold answers of the rows")
    column: str | None = Field(None, description="Column of the rows' file; with equals")
    equals: tuple[str, ...] = Field((), description="Values of that column")
    matches: str | None = Field(None, description="Regular expression that is found in the question")
    min_characters: int | None = Field(None, ge=0, description="Least length of the question")
    max_characters: int | None = Field(None, ge=0, description="Most length of the question")

    @field_validator("matches")
    @classmethod
    def _is_a_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if (self.column is None) != (not self.equals):
            raise ValueError("column and equals go together")
        if not self.model_dump(exclude_defaults=True):
            raise ValueError("a rule needs one of label, column, matches, min_characters, max_characters")
        return self

    def holds(self, row: Row) -> bool:
        """Whether it holds for a row.

        Raises:
            ConfigError: It goes by a column, and the row is of no file.
        """
        length = len(row.question)
        return (
            (not self.label or row.answer in self.label)
            and (self.column is None or _column(row, self.column) in self.equals)
            and (self.matches is None or re.search(self.matches, row.question) is not None)
            and (self.min_characters is None or length >= self.min_characters)
            and (self.max_characters is None or length <= self.max_characters)
        )


class Member(Section):
    """One who answers."""

    model: str = Field(description="API teacher, catalogue name, folder, .gguf file, hub id, or files of recorded answers")
    api: ApiOptions = Field(ApiOptions(), description="What differs from the catalogue of API teachers")
    weight: float = Field(1.0, gt=0, description="What its answers count for in an ensemble")
    when: Rule | None = Field(None, description="Which rows it answers where the ensemble routes; absent: those left over")

    @property
    def kind(self) -> Kind:
        """What it is.

        Raises:
            UsageError: Nothing is known by that name; the message has the nearest one.
        """
        if self.files:
            return "recorded"
        if is_api_teacher(self.model, self.api):
            return "api"
        if not (Path(self.model).exists() or lookup(self.model) or is_hub_id(self.model)):
            fix = f"{advice(self.model, API_MODELS)}; a model of any other endpoint needs --base_url"
            raise UsageError(f"unknown teacher {self.model!r}", where="--teacher", fix=fix)
        return "local"

    @property
    def files(self) -> list[Path]:
        """Files of recorded answers, if that is what it names."""
        files = [Path(name) for name in self.model.split(",")]
        return files if all(file.is_file() and file.suffix != ".gguf" for file in files) else []


class TeacherSpec(Section):
    """One teacher or an ensemble.

    Args:
        members: Who answers.
        combine: How several answers become one: a name of ``teachers.combiners`` and its options.
        requests: How APIs are asked; a cap on the cost holds for all of them together.
        mask_personal_data: Whether personal data is masked before it leaves the machine; ``auto``: yes, and questions to models
            on this machine stay as they are, which they do in any case.
        finders: What looks for personal data; absent: the patterns and, where it is installed, the phone number library.
    """

    members: tuple[Member, ...] = Field(min_length=1, description="Who answers")
    combine: PluginSpec | None = Field(None, description="How several answers become one: name and options")
    requests: RequestOptions = Field(RequestOptions(), description="Pace, patience and the cap on the cost")
    mask_personal_data: Literal["auto"] | bool = Field("auto", description="Mask personal data in what leaves the machine")
    finders: tuple[str, ...] | None = Field(None, description="What looks for personal data")

    @model_validator(mode="after")
    def _several_are_combined(self) -> TeacherSpec:
        if len(self.members) > 1 and self.combine is None:
            raise ValueError("several teachers need combine: vote, best-of-n, judge, route or mixture")
        return self

    @property
    def on_this_machine(self) -> Member | None:
        """The only member, if its weights are here: it can be tuned, measured and asked for signals."""
        return self.members[0] if self.combine is None and self.members[0].kind == "local" else None

    @property
    def gives_signals(self) -> bool:
        """Whether it says more than its answers: its distribution, or its log-probabilities."""
        logprobs = any(member.api.top_logprobs is not None for member in self.members)
        return self.on_this_machine is not None or logprobs or (self.combine or {}).get("name") == "mixture"


class TeacherOptions(Section):
    """Who answers, as commands are told it."""

    teacher_names: tuple[str, ...] = Field(
        (), description="API teachers, catalogue names, folders, .gguf files, hub ids, or files of recorded answers"
    )
    teacher: ApiOptions = Field(ApiOptions(), description="What differs from the catalogue of API teachers, for all names")
    members: tuple[Member, ...] = Field((), description="Teachers with options of their own, in place of names")
    combine: PluginSpec | None = Field(None, description="How the answers of several teachers become one: name and options")
    requests: RequestOptions = Field(RequestOptions(), description="Pace, patience and the cap on the cost")
    mask_personal_data: Literal["auto"] | bool = Field("auto", description="Mask personal data in what leaves the machine")
    finders: tuple[str, ...] | None = Field(None, description="What looks for personal data; absent: all that are installed")

    @property
    def spec(self) -> TeacherSpec:
        """Who answers.

        Raises:
            ConfigError: An option is wrong.
        """
        named = tuple(Member(model=name, api=self.teacher) for name in self.teacher_names)
        values = {name: getattr(self, name) for name in ("combine", "requests", "mask_personal_data", "finders")}
        return build(TeacherSpec, {**values, "members": self.members or named}, where="--teacher")


def spec_of(section: AskedSection, where: str = "teacher") -> TeacherSpec:
    """Who is asked by a section of a recipe.

    Raises:
        ConfigError: An option is wrong.
    """
    alone = {"model": section.model, "api": section.api}
    values = section.model_dump(include={"combine", "requests", "mask_personal_data", "finders"})
    return build(TeacherSpec, {**values, "members": section.members or [alone]}, where=where)


def _column(row: Row, name: str) -> str:
    file, _, line = row.origin.rpartition(":")
    if not file or not Path(file).is_file():
        fix = "route by label, matches or length"
        raise ConfigError(f"the row {row.origin or row.id!r} is of no file, so it has no column {name!r}", where="when", fix=fix)
    values = _records(file).get(int(line), {})
    if name not in values:
        raise ConfigError(f"no column {name!r}", where=row.origin, fix=nearest(name, values))
    return str(values[name])


@cache
def _records(file: str) -> dict[int, dict[str, Any]]:
    return {record.line: dict(record.values) for record in read_table(Path(file)).records if record.values is not None}
