"""Two models' answers to the same questions: from the measurements of a run, or from files of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.artifact import Artifact
from slmops.data.columns import Columns, choose_layout
from slmops.data.readers import read_table
from slmops.data.records import Record
from slmops.data.rowfiles import Rejected
from slmops.data.rows import Message, Row
from slmops.data.shapes import BadRow, Layout
from slmops.errors import ArtifactError, DataError, UsageError, at, nearest
from slmops.evaluation.systems import RESULT
from slmops.files import canonical, read_json, read_jsonl

_MEASURED = "measure."
_QUANTIZED, _PACKAGED = "teacher-quantized", "packaged"


@dataclass(frozen=True)
class Said:
    """What a model said to a question; ``origin`` is the place where that stands."""

    messages: tuple[Message, ...]
    answer: str
    origin: str


@dataclass(frozen=True)
class Answers:
    """A model's answers by the ids of their questions, and the rows that hold none, with the reason."""

    name: str
    said: Mapping[str, Said]
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two answers to one question, without white space around them."""

    id: str
    messages: tuple[Message, ...]
    a: str
    b: str

    @property
    def equal(self) -> bool:
        """Whether both say the same, so that nobody has to compare them."""
        return self.a == self.b


@dataclass(frozen=True)
class Paired:
    """Two models side by side; ``rejected`` are the rows that only one of them answers, or that hold no answer."""

    a: str
    b: str
    pairs: tuple[Pair, ...]
    rejected: tuple[Rejected, ...]


def find_answers(name: str, sources: Sequence[Path] = ()) -> Answers:
    """The answers of one model.

    Args:
        name: A file of answers (records with ``question`` or ``messages``, ``answer`` and, if there is one, ``id``), a
            measurement's ``result.json`` or its folder, or a row of the comparison in one of the sources, such as ``distilled``.
        sources: Folders of finished runs, their reports, or measurements.

    Raises:
        UsageError: No source has a model of that name, or several have.
        ArtifactError: A source is no finished run.
        DataError: A file cannot be read, or holds no answer.
    """
    path = Path(name)
    if path.is_file() and path.name != RESULT:
        return _of_file(name, path)
    place = path.parent if path.name == RESULT else path
    if (place / RESULT).is_file():
        return _of_measurement(name, place)
    known = [measurements(source) for source in sources]
    found = [folders[name] for folders in known if name in folders]
    if len(found) > 1:
        raise UsageError(f"{name!r} is in several of the sources", fix="give the paths: " + ", ".join(map(str, found)))
    if not found:
        names = {one for folders in known for one in folders}
        fix = nearest(name, names) if names else "give the folder of a run, or the path of a file of answers"
        raise UsageError(f"no answers of {name!r}", fix=fix)
    return _of_measurement(name, found[0])


def measurements(source: Path) -> dict[str, Path]:
    """The measured models of a finished run by the names of their rows, each with its folder.

    Args:
        source: The run's folder, its report, or one measurement's folder or ``result.json``.

    Raises:
        ArtifactError: It is none of these.
    """
    folder = source if source.is_dir() else source.parent
    if (folder / RESULT).is_file():
        return {_stage(folder).removeprefix(_MEASURED): folder}
    root = next((place for place in (folder, folder.parent.parent) if (place / "run.json").is_file()), None)
    if root is None:
        what = "no finished run" if source.exists() else "there is no such folder"
        raise ArtifactError(what, where=str(source), fix="give the folder of a run that came to its end, or files of answers")
    stages: Mapping[str, str] = read_json(root / "run.json")["stages"]
    found = {
        stage.removeprefix(_MEASURED): root / "artifacts" / name for stage, name in stages.items() if stage.startswith(_MEASURED)
    }
    report = root / "report.json"
    return found | (_exported(read_json(report), found) if report.is_file() else {})


def side_by_side(a: Answers, b: Answers) -> Paired:
    """The questions that both answer, in the order of ``a``.

    Raises:
        DataError: There is none.
    """
    pairs, alone = [], [*a.rejected, *b.rejected]
    for id, said in a.said.items():
        other = b.said.get(id)
        if other is None:
            alone.append(_aside(said, f"not answered by the other model: {b.name}"))
        elif other.messages != said.messages:
            alone.append(_aside(other, f"another question of the same id: {said.origin}"))
        else:
            pairs.append(Pair(id, said.messages, said.answer.strip(), other.answer.strip()))
    alone += [_aside(said, f"not answered by the other model: {a.name}") for id, said in b.said.items() if id not in a.said]
    if not pairs:
        raise DataError(f"no question is answered by both {a.name} and {b.name}", fix="give answers to the same questions")
    return Paired(a.name, b.name, tuple(pairs), tuple(alone))


def _exported(report: Mapping[str, Any], found: Mapping[str, Path]) -> dict[str, Path]:
    """Rows that are named otherwise than the measurement of their package, which ends with its scheme."""
    schemes = {line["model"]: line["chosen"] for line in report.get("export", [])}
    names = {_QUANTIZED: _QUANTIZED, _PACKAGED: (report.get("verdict") or {}).get("packaged")}
    stages = {row: f"{model}.{schemes[model]}" for row, model in names.items() if model in schemes}
    return {row: found[stage] for row, stage in stages.items() if stage in found}


def _stage(folder: Path) -> str:
    return Artifact.load(folder, "measurement").manifest.stage


def _of_measurement(name: str, folder: Path) -> Answers:
    artifact = Artifact.load(folder, "measurement")
    rows = [Row.from_dict(value) for value in read_jsonl(_test_rows(artifact))]
    answers: list[str] = read_json(folder / RESULT)["answers"]
    if len(answers) != len(rows):
        raise ArtifactError(f"{len(answers):,} answers to {len(rows):,} test rows", where=str(folder), fix="run it again")
    # Equal questions have equal ids, and the same answer: one of them is enough.
    return Answers(name, {row.id: Said(row.messages, said, str(folder)) for row, said in zip(rows, answers, strict=True)})


def _test_rows(artifact: Artifact) -> Path:
    """The file of the rows that were asked: of the data beside the measurement, else where its specification says."""
    data = artifact.manifest.parents.get("data", "")
    beside = [folder / "test.jsonl" for folder in artifact.path.parent.glob(f"*-{data[:12]}")] if data else []
    spec = artifact.path / "spec.json"
    named = [Path(read_json(spec)["test"])] if spec.is_file() else []
    for file in (*beside, *named):
        if file.is_file():
            return file
    raise ArtifactError("the test rows of this measurement are gone", where=str(artifact.path), fix="run it again")


def _of_file(name: str, path: Path) -> Answers:
    table = read_table(path)
    layout = choose_layout(table, Columns())
    said: dict[str, Said] = {}
    rejected: list[Rejected] = []
    for record in table.records:
        origin = at(path, record.line)
        try:
            id, one = _read(layout, record, origin)
            if id in said:
                raise BadRow(f"duplicate of {said[id].origin}: the same id or question")
        except BadRow as error:
            text = record.raw if record.values is None else canonical(dict(record.values))
            rejected.append(Rejected(origin, str(error), text))
        else:
            said[id] = one
    if not said:
        places = "\n  ".join(f"{bad.origin}: {bad.reason}" for bad in rejected[:5])
        raise DataError(f"no answer can be read\n  {places}", where=str(path), fix="write records with id, question and answer")
    return Answers(name, said, tuple(rejected))


def _read(layout: Layout, record: Record, origin: str) -> tuple[str, Said]:
    """The question's id and what was said; an empty answer is one."""
    if record.values is None:
        raise BadRow(record.problem)
    example = layout.example(record.values)
    if example.answer is None:
        raise BadRow("no answer")
    row = Row.of(example.messages)
    id = record.values.get("id")
    return (str(id) if isinstance(id, str | int) and str(id).strip() else row.id), Said(row.messages, example.answer, origin)


def _aside(said: Said, reason: str) -> Rejected:
    return Rejected(said.origin, reason, canonical({"question": said.messages[-1]["content"], "answer": said.answer}))
