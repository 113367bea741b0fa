"""The command line: quick help, one spelling, near names for mistakes, no tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml

import slmops
from slmops import cli
from slmops.commands.common import new_app
from slmops.config import Recipe
from slmops.recipes import shipped
from tests.commands import Call

HEAVY = ("torch", "transformers", "sklearn", "onnxruntime", "onnxruntime_genai", "fastapi", "openai", "pyarrow")


def modules_after(*arguments: str) -> set[str]:
    """The packages that a call of the command line imports in a fresh process."""
    script = (
        "import sys\nfrom slmops.cli import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit:\n    pass\n"
        "print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_that_takes_time() -> None:
    assert modules_after("--help").isdisjoint({*HEAVY, "typer", "click", "pydantic", "yaml", "numpy", "jinja2", "rich"})


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_help_of_a_verb_imports_no_engine(verb: str) -> None:
    assert modules_after(verb, "--help").isdisjoint(HEAVY)


def test_help_lists_the_verbs(call: Call) -> None:
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        result = call(*arguments)
        assert result.code == 0
        assert [line.split()[0] for line in result.out.splitlines() if line.startswith("  ")] == list(cli.VERBS)
    assert call("--version").out == f"slmops {slmops.__version__}\n"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(call: Call, verb: str) -> None:
    for option in ("--help", "-h"):
        result = call(verb, option)
        assert (result.code, result.err) == (0, "")
        assert result.out.startswith(f"Usage: slmops {verb} ")


@pytest.mark.parametrize(
    ("arguments", "problem", "hint"),
    [
        (["rum"], "unknown verb 'rum'", "did you mean 'run'?"),
        (["run", "--plam", "support-routing"], "No such option: --plam", "--plan"),
        (["distill", "--dta", "x.csv"], "No such option: --dta", "--data"),
        (["config", "explian", "support-routing"], "No such command 'explian'", "'explain'"),
        (["recipes", "support-rooting"], "no recipe 'support-rooting'", "did you mean 'support-routing'?"),
        (["run", "support-rooting", "--plan"], "no recipe 'support-rooting'", "did you mean 'support-routing'?"),
        (["run", "support-routing", "training.epoch=1", "--plan"], "training.epoch: unknown key", "did you mean 'epochs'?"),
        (["run", "support-routing", "epochs", "--plan"], "'epochs' is not key=value", "write for example"),
        (["run"], "name one recipe", "slmops run RECIPE"),
        (["serve", "/nowhere/at/all"], "/nowhere/at/all: there is no such folder", "point to the folder"),
        (["ask", "/nowhere/at/all", "hello"], "/nowhere/at/all: there is no such folder", "point to the folder"),
    ],
)
def test_a_mistake_is_named_with_what_was_meant(call: Call, arguments: list[str], problem: str, hint: str) -> None:
    result = call(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert problem in result.err
    assert hint in result.err
    assert "Traceback" not in result.err


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    file = tmp_path / "tickets.csv"
    rows = [f"where is parcel {number},delivery\nmoney back {number},refund" for number in range(20)]
    file.write_text("text,label\n" + "\n".join(rows) + "\n")
    return file


@pytest.mark.parametrize(
    ("change", "problem", "hint"),
    [
        ({"--teacher": "smollm2-135m-instrukt"}, "smollm2-135m-instrukt", "smollm2-135m-instruct"),
        ({"--task_type": "clasification"}, "unknown task type 'clasification'", "did you mean 'classification'?"),
        ({"--data": "nowhere.csv"}, "nowhere.csv", "no such file"),
        ({"--gate": "acuracy >= 0.9"}, "unknown measure 'acuracy'", "did you mean 'accuracy'?"),
        ({"--student_layers": "many"}, "should be a valid integer", "--student_layers"),
    ],
)
def test_distill_names_what_is_wrong_before_it_starts(
    call: Call, labelled: Path, tiny_model: Path, tmp_path: Path, change: dict[str, str], problem: str, hint: str
) -> None:
    options = {"--data": str(labelled), "--teacher": str(tiny_model), "--output_path": str(tmp_path / "out"), **change}
    result = call("distill", *(word for pair in options.items() for word in pair), "--plan")
    assert result.code == 2
    assert problem in result.err
    assert hint in result.err
    assert not (tmp_path / "out").exists()


def test_distill_plans_an_api_teacher_without_a_key(
    call: Call, labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    words = ["distill", "--data", str(labelled), "--teacher", "gpt-4o", "-o", str(tmp_path / "out"), "--plan"]
    lacking = call(*words)
    assert lacking.code == 2
    assert "student.model: this teacher is no model that a student could be cut from" in lacking.err
    words += ["--student", str(tiny_model), "--max_cost", "3"]
    planned = call(*words)
    assert planned.code == 0, planned.err
    assert "gpt-4o (OpenAI): 40 rows, 40 calls" in planned.err
    assert "\nterms   OpenAI" in planned.err
    facts = json.loads(call(*words, "--json", "answers.retries=2").out)
    assert facts["requests"]["calls"] == 40
    assert facts["requests"]["most_cost"] > 3 * facts["requests"]["cost"]
    assert facts["recipe"]["teacher"]["requests"] == {"max_cost": 3.0}
    assert facts["recipe"]["training"]["objectives"] == [{"name": "cross_entropy"}]
    assert [step["stage"] for step in facts["stages"]][:3] == ["data", "answers", "untuned"]
    assert not (tmp_path / "out").exists()


def test_a_hyphen_and_an_underscore_are_one(call: Call, labelled: Path, tiny_model: Path, tmp_path: Path) -> None:
    outputs = []
    for sign in "-_":
        options = {"data_name": labelled, "teacher": tiny_model, "output_path": tmp_path / "out", "student_layers": 2}
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', sign)}", str(value))]
        result = call("distill", *words, "--plan", "--json")
        assert result.code == 0, result.err
        outputs.append(json.loads(result.out)["recipe"])
    assert outputs[0] == outputs[1]
    assert outputs[0]["student"]["layers"] == 2


def test_a_shipped_recipe_is_printed_as_it_is(call: Call) -> None:
    for name, file in shipped().items():
        printed = call("recipes", name).out
        assert printed == file.read_text(encoding="utf-8")
        assert Recipe.model_validate(yaml.safe_load(printed)).name == name


def test_the_shipped_recipes_are_listed_with_a_summary(call: Call) -> None:
    listed = call("recipes").out
    for name, file in shipped().items():
        assert f"{name} " in listed
        assert str(file) in listed
        assert file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") in listed


def test_config_explain_prints_json_on_request(call: Call) -> None:
    result = call("config", "explain", "support-routing", "training.epochs=7", "--json")
    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(result.out)}
    assert rows["training.epochs"] == (7.0, "command line")
    assert rows["name"] == ("support-routing", "recipe")
    assert rows["training.weight_decay"] == (0.0, "default")


def test_config_explain_prints_a_line_a_value(call: Call) -> None:
    lines = call("config", "explain", "support-routing").out.splitlines()
    assert any(line.split() == ["training.weight_decay", "0.0", "(default)"] for line in lines)


def with_command(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """A verb ``try`` that does this."""
    app = new_app()
    app.command()(action)
    module = type(sys)("slmops_trial_verb")
    module.app = app  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.VERBS, "try", (f"{module.__name__}:app", ""))


def test_ctrl_c_says_that_the_same_command_continues(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with_command(monkeypatch, interrupted)
    result = call("try")
    assert (result.code, result.err.strip()) == (130, "stopped; the same command continues")


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("torch", "error: the package 'torch' is not installed\n  → pip install 'slmops[train]'\n"),
        ("fastapi.responses", "error: the package 'fastapi' is not installed\n  → pip install 'slmops[serve]'\n"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    call: Call, monkeypatch: pytest.MonkeyPatch, package: str, message: str
) -> None:
    def lacking() -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    with_command(monkeypatch, lacking)
    result = call("try")
    assert (result.code, result.err) == (2, message)


def test_a_mistake_of_our_own_keeps_its_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        import slmops.nowhere  # type: ignore[import-not-found] # noqa: F401 - there is none, which is the mistake

    with_command(monkeypatch, broken)
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        call("try")


def test_the_extras_that_are_named_bring_the_packages() -> None:
    project = tomllib.loads((Path(slmops.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    for package, extra in cli._EXTRAS.items():
        brought = [requirement.partition(">=")[0] for requirement in extras[extra]]
        assert package.replace("_", "-").replace("sklearn", "scikit-learn") in brought


def test_an_exit_code_is_that_of_the_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from slmops.errors import GateError, InconclusiveError

    for error, code in ((GateError("no model passes", fix="see the report"), 1), (InconclusiveError("few rows"), 3)):

        def gated(error: Exception = error) -> None:
            raise error

        with_command(monkeypatch, lambda: gated())
        result = call("try")
        assert (result.code, result.out, result.err) == (code, "", f"error: {error}\n")


def test_a_typer_exit_keeps_its_code(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaving() -> None:
        raise typer.Exit(5)

    with_command(monkeypatch, leaving)
    assert call("try").code == 5
