"""Plug-ins come through one door: built-in names and those of installed packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slmops.errors import MissingExtraError, UsageError
from slmops.registry import Entry, Registry


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a package that registers entry points, as pip would leave it on the path."""

    def call(*points: str, package: str = "thirdparty") -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text("[slmops.colours]\n" + "\n".join(points))

    monkeypatch.syspath_prepend(str(tmp_path))
    return call


def colours(**builtin: Entry) -> Registry:
    return Registry("colour", builtin)


def test_a_built_in_name_stands_for_an_object() -> None:
    assert colours(red=Entry("slmops.errors:nearest")).get("red").__name__ == "nearest"


def test_an_installed_package_adds_a_name(install) -> None:
    install("blue = slmops.errors:at")
    registry = colours(red=Entry("slmops.errors:nearest"))
    assert registry.names() == ["blue", "red"]
    assert registry.get("blue").__name__ == "at"


def test_a_name_given_twice_is_an_error(install) -> None:
    install("red = elsewhere:colour")
    with pytest.raises(UsageError, match=r"'red' is registered twice \(slmops\.errors:nearest, elsewhere:colour\)"):
        colours(red=Entry("slmops.errors:nearest")).names()


def test_two_packages_cannot_bring_one_name(install) -> None:
    install("blue = one:colour", package="one")
    install("blue = two:colour", package="two")
    with pytest.raises(UsageError, match=r"'blue' is registered twice .*uninstall|registered twice"):
        colours().get("blue")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown colour 'rde'\n.*did you mean 'red'"):
        colours(red=Entry("x:y"), blue=Entry("x:y")).get("rde")


def test_a_missing_package_names_the_extra_that_brings_it() -> None:
    sys.modules.pop("pastel", None)
    with pytest.raises(MissingExtraError, match=r"'pastel' is not installed\n.*slmops\[train\]"):
        colours(pink=Entry("pastel.shades:pink", "train")).get("pink")


def test_a_plug_ins_own_broken_import_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"slmops\.nowhere"):
        colours(pink=Entry("slmops.nowhere:pink", "train")).get("pink")
    with pytest.raises(ModuleNotFoundError, match="pastel"):
        colours(pink=Entry("pastel:pink")).get("pink")


def test_the_built_in_names_of_every_registry_exist() -> None:
    from slmops.data.sources import SOURCES
    from slmops.runtimes.base import RUNTIMES
    from slmops.tasks.base import TASKS
    from slmops.training.registry import OBJECTIVES

    for registry in (SOURCES, RUNTIMES, TASKS, OBJECTIVES):
        for name in registry.names():
            assert callable(registry.get(name))
