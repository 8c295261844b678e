"""What every room's tests can ask for: the table of raw request bodies and what gateway.md says about each."""

from __future__ import annotations

import base64
import functools
import io
import json
from pathlib import Path
from typing import Any

import pytest

_TABLE = json.loads((Path(__file__).parent / "gateway" / "raw_bodies.json").read_text("utf-8"))
_ROWS: list[dict[str, Any]] = _TABLE["rows"]


@pytest.fixture(params=_ROWS, ids=[row["name"] for row in _ROWS])
def raw_body(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One row of `tests/gateway/raw_bodies.json`, whose head says what the columns mean, with its whole `body`."""
    return _expanded(request.param)


@pytest.fixture
def raw_bodies() -> list[dict[str, Any]]:
    """Every row, for tests that would rather loop, such as those that start a server."""
    return [_expanded(row) for row in _ROWS]


def _expanded(row: dict[str, Any]) -> dict[str, Any]:
    fields = {**_TABLE["bases"][row["like"]], **row.get("set", {})}
    for field in row.get("drop", ()):
        del fields[field]
    return {**row, "body": _value(fields)}


def _value(short: Any) -> Any:
    """A value of the table as JSON means it: `$repeat`, `$join`, `$list` and `$image` written out."""
    match short:
        case {"$repeat": [text, times]}:
            return text * times
        case {"$join": parts}:
            return "".join(_value(part) for part in parts)
        case {"$list": [item, times]}:
            return [_value(item) for _ in range(times)]
        case {"$image": [kind, width, height, *size]}:
            return _image(kind, width, height, *size)
        case dict():
            return {key: _value(value) for key, value in short.items()}
        case list():
            return [_value(item) for item in short]
        case _:
            return short


@functools.cache
def _image(kind: str, width: int, height: int, size: int = 0) -> str:
    from PIL import Image  # slow to import, and most tests need no image

    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, kind)
    return base64.b64encode(file.getvalue().ljust(size, b"\0")).decode("ascii")
