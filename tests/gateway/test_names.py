"""What the gateway's room exports, and its tree of errors."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import pkgutil

import pytest

import prefect_kling.gateway
from prefect_kling.gateway import errors
from prefect_kling.gateway.errors import KlingError, RateLimited

MODULES = sorted(
    f"prefect_kling.gateway.{module.name}" for module in pkgutil.iter_modules(prefect_kling.gateway.__path__)
)
ERRORS = [getattr(errors, name) for name in errors.__all__]


def defined(source: str) -> set[str]:
    """The public names that a module's top level defines, imports left out."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_exports_exactly_its_public_names(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) == defined(inspect.getsource(module))
    assert all(hasattr(module, exported) for exported in module.__all__)
    assert module.__doc__


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_explained(name: str) -> None:
    module = importlib.import_module(name)
    for exported in module.__all__:
        thing = getattr(module, exported)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), exported


def test_the_gateway_knows_nothing_of_prefect_or_the_rooms_above() -> None:
    for name in MODULES:
        for node in ast.walk(ast.parse(inspect.getsource(importlib.import_module(name)))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            for one in imported:
                assert one.partition(".")[0] != "prefect"
                assert not one.startswith("prefect_kling.") or one.startswith("prefect_kling.gateway")


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = [line.split()[1] for line in (errors.__doc__ or "").splitlines() if line.startswith(("├", "└"))]
    assert {*drawn, "KlingError"} == set(errors.__all__)
    assert all(kind.__bases__ == (KlingError,) for kind in ERRORS if kind is not KlingError)


def test_only_trouble_that_passes_is_retryable() -> None:
    passing = {"RateLimited", "GatewayUnavailable", "LedgerUnavailable"}
    assert {kind.__name__ for kind in ERRORS if kind.retryable} == passing


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_survives_being_stored(kind: type[KlingError]) -> None:
    error = kind("what happened", status=402, code="1100", task_id="t1")
    error.retryable = True
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "what happened"
    assert vars(copy) == vars(error)


def test_a_stored_rate_limit_keeps_the_time_to_wait() -> None:
    assert pickle.loads(pickle.dumps(RateLimited("slow", retry_after=7.0))).retry_after == 7.0
