"""What people are told names nothing that they do not have."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("blocks", "tasks", "flows", "prefect_kling")


def said(file: Path) -> list[str]:
    """The texts of a module, but for its docstrings."""
    tree = ast.parse(file.read_text("utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings)
    return [node.value for node in texts if isinstance(node.value, str)]


def test_no_message_cites_the_gateways_own_rules() -> None:
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    assert len(files) > 100
    assert [(str(file), text) for file in files for text in said(file) if "gateway.md" in text] == []
