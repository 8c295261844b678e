"""The rows of a series, each of which gives its document's variables other values: CSV, JSON, JSON Lines or YAML.

Pure but for the reading of the file, and bounded like that of a storyboard. Numbers, true and false stay as they are
written: `007` is no 7, and `1.50` no 1.5.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Final, NoReturn

from prefect_kling.storyboard.places import START, Place, Problems, short
from prefect_kling.storyboard.reader import source_text
from prefect_kling.storyboard.tree import Node, parse
from prefect_kling.storyboard.variables import is_name

__all__ = ["MAX_ROWS", "Row", "read_rows", "rows_of"]

MAX_ROWS: Final = 10_000
_DELIMITERS: Final = ",;\t"
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NONE: Final = "there are no rows; a series needs at least one"


@dataclass(frozen=True)
class Row:
    """One row: what it gives the document's variables.

    Attributes:
        number: counted from 1.
        place: `FILE:LINE` where it begins; empty where it was given directly.
        values: by variable; one whose cell is empty or null is not among them.
    """

    number: int
    place: str
    values: Mapping[str, str]

    @property
    def called(self) -> str:
        """What people call it."""
        return f"row {self.number} ({self.place})" if self.place else f"row {self.number}"


def read_rows(source: str) -> tuple[Row, ...]:
    """Reads the rows of a series.

    Blocking: it reads a file or fetches a URL. The suffix says what it is: `.csv` and `.tsv` (a header, then a line a
    row; comma, semicolon or tab), `.json` (a list of objects), `.jsonl` and `.ndjson` (an object a line), `.yaml` and
    `.yml` (a list of mappings). Of other files the text has to tell. Lines without any value are no rows.

    Args:
        source: a local path, an http(s) URL, or any URL that fsspec can open; UTF-8, at most 5 MB and 10,000 rows.

    Raises:
        StoryboardError: everything wrong with it, 20 problems at most, a line each: `FILE:LINE:COLUMN: message`.
    """
    shown, _, text, problems = source_text(source)
    found = _reader_of(shown, text)(text, problems)
    taken = _Taken(problems)
    for place, pairs in found:
        taken.add(place, pairs)
    problems.raise_any()
    if not taken.rows:
        problems.stop(START, _NONE)
    return tuple(
        Row(number, f"{shown}:{place.line}", values) for number, (place, values) in enumerate(taken.rows, start=1)
    )


def rows_of(given: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
    """The rows of a series that are given as values, as from Prefect's form or from Python.

    Raises:
        StoryboardError: everything wrong with them, 20 problems at most, a line each.
    """
    problems = Problems("rows")
    if len(given) > MAX_ROWS:
        problems.stop(None, _too_many())
    rows = []
    for number, row in enumerate(given, start=1):
        values: dict[str, str] = {}
        for name, value in row.items():
            if not is_name(str(name)):
                problems.add(None, f"row {number}: {_no_name(str(name))}")
            elif not isinstance(value, str | int | float | Decimal | None):
                problems.add(None, f"row {number}: {_no_text(name)}")
            elif value is not None:
                values[name] = _as_text(value)
        rows.append(Row(number, "", values))
    problems.raise_any()
    if not rows:
        problems.stop(None, _NONE)
    return tuple(rows)


_Pairs = Iterable[tuple[str, str | None, Place]]
_Found = Iterator[tuple[Place, _Pairs]]
"""Each row's place, and its columns: name, value (None: not given), and where a problem with the two is told."""


class _Taken:
    """The rows taken so far; what is wrong with one is noted, once a column's name."""

    def __init__(self, problems: Problems) -> None:
        self.rows: list[tuple[Place, dict[str, str]]] = []
        self._problems = problems
        self._names: dict[str, bool] = {}

    def add(self, place: Place, pairs: _Pairs) -> None:
        if len(self.rows) == MAX_ROWS:
            self._problems.stop(place, _too_many())
        values: dict[str, str] = {}
        seen: set[str] = set()
        for name, value, at in pairs:
            if name not in self._names:
                self._names[name] = is_name(name)
                if not self._names[name]:
                    self._problems.add(at, _no_name(name))
            if name in seen:
                self._problems.add(at, f"'{short(name)}' is given twice; remove one")
            seen.add(name)
            if value is not None:
                values[name] = value
        self.rows.append((place, values))


def _reader_of(shown: str, text: str) -> Callable[[str, Problems], _Found]:
    known = {
        ".csv": _csv, ".tsv": _csv, ".json": _json, ".jsonl": _json, ".ndjson": _json, ".yaml": _yaml, ".yml": _yaml,
    }  # fmt: skip
    by_suffix = known.get(PurePosixPath(shown).suffix.lower())
    if by_suffix is not None:
        return by_suffix
    begins = text.lstrip()[:2]
    if begins[:1] in ("[", "{"):
        return _json
    return _yaml if begins in ("- ", "-\n", "--", "# ", "%Y") else _csv


def _csv(text: str, problems: Problems) -> _Found:
    delimiter = max(_DELIMITERS, key=lambda sign: len(_header(text, sign)))
    # Each line is its own item, so that a record's first line is known: values may hold line ends.
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    while True:
        place = Place(records.line_num + 1, 1)
        try:
            cells = [cell.strip() for cell in next(records)]
        except StopIteration:
            return
        except csv.Error as error:
            problems.stop(place, f"this is no CSV: {error}; a value that holds quotes has them doubled, within quotes")
        if not any(cells):
            continue
        if names is None:
            names = cells
            _check_header(names, place, problems)
        elif len(cells) != len(names):
            problems.add(
                place,
                f"the header names {len(names)} columns, and this line has {len(cells)}; a value with a "
                f"{_SPOKEN[delimiter]} in it has to stand in quotes",
            )
        else:
            yield place, ((name, cell or None, place) for name, cell in zip(names, cells, strict=True))


_SPOKEN: Final = {",": "comma", ";": "semicolon", "\t": "tab"}


def _header(text: str, delimiter: str) -> list[str]:
    try:
        records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return next((cells for cells in records if any(cells)), [])
    except csv.Error:
        return []  # told when the file is read


def _check_header(names: Sequence[str], place: Place, problems: Problems) -> None:
    for column, name in enumerate(names, start=1):
        if not name:
            problems.add(place, f"column {column} has no name; give it one, or remove it")
        elif not is_name(name):
            problems.add(place, f"column {column}: {_no_name(name)}")
        elif name in names[: column - 1]:
            problems.add(place, f"column {column}: '{short(name)}' is there already; rename or remove one")
    problems.raise_any()


class _Object(list[tuple[str, Any]]):
    """A JSON object, which may name a key twice."""


def _json(text: str, problems: Problems) -> _Found:
    """A list of objects, or one object after another."""
    there = _JsonText(text, problems)
    listed = there.take("[")
    while not (there.take("]") if listed else there.ended()):
        place, value = there.value()
        if isinstance(value, _Object):
            yield place, _of_json(value, place, problems)
        else:
            problems.add(place, "a row is an object with a value for each variable")
        if listed and not there.take(","):
            if not there.take("]"):
                there.stop("a comma is missing, or the list is not closed")
            break
    if not there.ended():
        there.stop("something follows the list")


class _JsonText:
    """JSON read value by value, so that each has a place."""

    def __init__(self, text: str, problems: Problems) -> None:
        self._text, self._problems = text, problems
        self._at = self._counted = 0
        self._line, self._line_end = 1, -1
        self._decoder = json.JSONDecoder(
            object_pairs_hook=_Object, parse_int=str, parse_float=str, parse_constant=_no_constant
        )

    def take(self, sign: str) -> bool:
        """Goes past a sign, if it is the next."""
        found = not self.ended() and self._text[self._at] == sign
        self._at += found
        return found

    def ended(self) -> bool:
        """Whether nothing but space is left; goes past that."""
        found = _SPACE.match(self._text, self._at)
        self._at = self._at if found is None else found.end()
        return self._at == len(self._text)

    def value(self) -> tuple[Place, Any]:
        """The next value, and where it stands."""
        self.ended()
        place = self._place(self._at)
        try:
            value, self._at = self._decoder.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            self._problems.stop(self._place(error.pos), f"this is no JSON: {error.msg}")
        except ValueError as error:
            self._problems.stop(place, f"this is no JSON: {error}")
        except RecursionError:
            self._problems.stop(place, "this is nested too deep; rows are flat")
        return place, value

    def stop(self, said: str) -> NoReturn:
        self._problems.stop(self._place(self._at), f"this is no JSON: {said}")

    def _place(self, index: int) -> Place:
        # Counted on from the last place: a list may stand in one line of megabytes.
        self._line += self._text.count("\n", self._counted, index)
        self._line_end = max(self._line_end, self._text.rfind("\n", self._counted, index))
        self._counted = index
        return Place(self._line, index - self._line_end)


def _of_json(value: _Object, place: Place, problems: Problems) -> _Pairs:
    for name, said in value:
        if isinstance(said, list):
            problems.add(place, _no_text(name))
        else:
            yield name, None if said is None else _as_text(said), place


def _no_constant(name: str) -> str:
    raise ValueError(f"{name} is no number that it has")


def _yaml(text: str, problems: Problems) -> _Found:
    root = parse(text, problems, as_written=True)
    if not isinstance(root.value, list):
        problems.stop(root.place, "rows are a list of mappings; begin each with a hyphen")
    for node in root.value:
        if isinstance(node.value, dict):
            yield node.place, _of_yaml(node, node.value, problems)
        else:
            problems.add(node.place, "a row is a mapping with a value for each variable")


def _of_yaml(node: Node, row: Mapping[str, Node], problems: Problems) -> _Pairs:
    for name, said in row.items():
        if isinstance(said.value, dict | list):
            problems.add(said.place, _no_text(name))
        else:
            yield name, None if said.value is None else str(said.value), node.keys[name]


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _no_name(name: str) -> str:
    return f"'{short(name)}' cannot be a variable's name; use letters, digits and _"


def _no_text(name: str) -> str:
    return f"'{short(name)}' has to be text or a number; lists and mappings cannot be filled in"


def _too_many() -> str:
    return f"these are more than {MAX_ROWS:,} rows; make several series of them"
