"""The guards of the unusual layout: root folders that the build maps into the package."""

from __future__ import annotations

import ast
import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import prefect_kling

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED = ("blocks", "tasks", "flows", "deployments")

# Data flows down: what each room may import of ours, besides itself.
BELOW = {
    "gateway": set(),
    # media: its plain values `cut`, `facts` and `transitions` alone, which a document's cut becomes; see below.
    "storyboard": {"gateway", "media"},
    "media": {"gateway"},
    "first_use": set(),
    "serving": set(),
    "deployments": set(),
    "automations": {"gateway"},
    "simulator": {"gateway", "serving"},
    "settings": {"gateway"},
    "clips": {"gateway"},
    "ledger": {"gateway", "clips", "settings", "media"},
    "callbacks": {"gateway", "clips", "settings", "ledger", "serving"},
    "blocks": {"gateway", "clips", "settings"},
    "tasks": {"gateway", "clips", "settings", "blocks", "ledger", "callbacks", "media", "storyboard"},
    "flows": {
        "gateway",
        "clips",
        "settings",
        "blocks",
        "ledger",
        "callbacks",
        "media",
        "storyboard",
        "tasks",
        "first_use",
    },
    "terminal": {"storyboard", "flows"},
    "plan_view": {"storyboard", "flows", "terminal"},
    "tables": {"ledger", "terminal"},
    "cli_studio": {"blocks", "gateway", "simulator"},
    "cli_codes": {"gateway"},
    "checkup": {"gateway", "clips", "settings", "ledger", "callbacks", "media"},
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module's dotted name and file."""
    for top in ("prefect_kling", *MAPPED):
        for path in sorted((ROOT / top).rglob("*.py")):
            if any(parent.is_symlink() for parent in path.parents):
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            dotted = parts if top == "prefect_kling" else ("prefect_kling", *parts)
            yield ".".join(dotted).removesuffix(".__init__"), path


MODULES = dict(modules())


def test_every_folder_with_python_in_it_is_listed_for_the_build() -> None:
    folders = {name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in MODULES.items()}
    assert folders == set(PYPROJECT["tool"]["setuptools"]["packages"])


@pytest.mark.parametrize("folder", MAPPED)
def test_each_mapped_folder_has_its_link_for_type_checkers(folder: str) -> None:
    link = ROOT / "prefect_kling" / folder
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder
    assert PYPROJECT["tool"]["setuptools"]["package-dir"][f"prefect_kling.{folder}"] == folder


@pytest.mark.parametrize("name", sorted(name for name, path in MODULES.items() if path.name != "__init__.py"))
def test_no_module_is_named_like_the_standard_library_or_like_what_its_package_exports(name: str) -> None:
    package, _, module = name.rpartition(".")
    exported = getattr(importlib.import_module(package), "__all__", ())
    assert module not in exported
    assert package != "prefect_kling" or module not in sys.stdlib_module_names


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downwards(name: str) -> None:
    room = name.split(".")[1] if "." in name else ""
    if room not in BELOW:
        assert room in ("", "cli") or room.startswith("cli_"), f"say in BELOW what {room} may import"
        return
    for imported in _imports(MODULES[name]):
        other = imported.split(".")[1]
        assert other == room or other in BELOW[room], f"{name} imports {imported}"


def test_a_storyboard_takes_plain_values_from_the_cutting_room_and_nothing_that_works() -> None:
    taken = {other for name in MODULES if ".storyboard." in name for other in _imports(MODULES[name])}
    plain = {f"prefect_kling.media.{name}" for name in ("cut", "facts", "transitions")}
    assert {name for name in taken if name.startswith("prefect_kling.media")} == plain


def test_public_names_are_all_there() -> None:
    for name in prefect_kling.__all__:
        assert getattr(prefect_kling, name).__module__.startswith("prefect_kling.")
    assert set(prefect_kling.__all__) <= set(dir(prefect_kling))
    with pytest.raises(AttributeError, match="no attribute 'Clips'"):
        _ = prefect_kling.Clips


def test_a_failed_import_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(prefect_kling), "estimate_cost", raising=False)
    monkeypatch.setitem(sys.modules, "prefect_kling.gateway.prices", None)
    with pytest.raises(ImportError):
        _ = prefect_kling.estimate_cost


def test_the_design_names_can_be_imported_from_tasks_and_flows() -> None:
    tasks = importlib.import_module("prefect_kling.tasks")
    flows = importlib.import_module("prefect_kling.flows")
    for name in ("create_video", "wait_for_video", "download_video", "extract_last_frame", "host_file", "join_clips"):
        assert getattr(tasks, name).fn.__doc__
    for name in ("generate_video", "render_series", "render_storyboard", "sweep"):
        assert getattr(flows, name).fn.__doc__


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [
                f"{node.module}.{alias.name}" if node.module == "prefect_kling" else str(node.module)
                for alias in node.names
            ]
        yield from (name for name in names if name.startswith("prefect_kling."))
