"""Where something stands in a document, and the list of everything that is wrong with it, told in one error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from prefect_kling.gateway.errors import StoryboardError

__all__ = ["MAX_TOLD", "START", "Path", "Place", "Problems", "did_you_mean", "label", "short"]

MAX_TOLD = 20
_MAX_NOTED = 200
"""Finding the words for a mistake takes time, and nobody mends thousands of them one by one."""

Path = tuple[str | int, ...]
"""Where a value is in a document's data, such as `("shots", 0, "prompt")`."""


class Place(NamedTuple):
    """A position in a file; both count from 1, columns in characters."""

    line: int
    column: int


START = Place(1, 1)


class Problems:
    """Everything found wrong with one document, raised together so that one run shows all there is to mend.

    Args:
        source: the document's name as the user knows it; every line of the error starts with it.
    """

    def __init__(self, source: str) -> None:
        self._source = _visible(source)
        self._found: list[tuple[Place | None, str]] = []
        self._places: set[Place | None] = set()

    def __bool__(self) -> bool:
        return bool(self._found)

    def has(self, place: Place) -> bool:
        """Whether something is noted at `place` already, so that one mistake is not told twice."""
        return place in self._places

    def add(self, place: Place | None, message: str) -> None:
        """Notes a problem: its place, None where the document was not read from text, and a sentence.

        Raises:
            StoryboardError: as `raise_any` does, where this is the one too many.
        """
        self._found.append((place, _visible(message)))
        self._places.add(place)
        if len(self._found) > _MAX_NOTED:
            raise self._error()

    def stop(self, place: Place | None, message: str) -> NoReturn:
        """Notes a problem that leaves nothing to go on with, and raises."""
        self.add(place, message)
        raise self._error()

    def raise_any(self) -> None:
        """Raises what was noted.

        Raises:
            StoryboardError: `FILE:LINE:COLUMN: message`, a line each, 20 at most.
        """
        if self._found:
            raise self._error()

    def _error(self) -> StoryboardError:
        found = sorted(dict.fromkeys(self._found), key=lambda problem: problem[0] or START)
        lines = [f"{self._where(place)}: {message}" for place, message in found[:MAX_TOLD]]
        if len(self._found) > _MAX_NOTED:
            lines.append(f"{self._source}: … and more than {_MAX_NOTED - MAX_TOLD} others")
        elif len(found) > MAX_TOLD:
            lines.append(f"{self._source}: … and {len(found) - MAX_TOLD:,} more")
        return StoryboardError("\n".join(lines))

    def _where(self, place: Place | None) -> str:
        return self._source if place is None else f"{self._source}:{place.line}:{place.column}"


def _visible(text: str) -> str:
    # What a document holds must not add lines to its error, or move a terminal's cursor.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause that names what was probably meant, or what there is; empty where there is nothing."""
    names = list(known)
    # Comparing is quadratic in length, and nobody's typo is this long.
    close = difflib.get_close_matches(name[:64], names, n=1) if len(names) <= 5000 else []
    if close:
        return f"; did you mean '{close[0]}'?"
    if not names:
        return ""
    shown = ", ".join(names[:12]) + (" …" if len(names) > 12 else "")
    return f"; there are: {shown}"


def label(path: Path, shot_ids: dict[int, str] | None = None) -> str:
    """A path as people say it: `shot 'dawn': images.harbour`, `defaults.duration`."""
    if len(path) >= 2 and path[0] == "shots" and isinstance(path[1], int):
        name = (shot_ids or {}).get(path[1])
        shot = f"shot '{name}'" if name else f"shot {path[1] + 1}"
        rest = _dotted(path[2:])
        return f"{shot}: {short(rest)}" if rest else shot
    return short(_dotted(path))


def _dotted(path: Path) -> str:
    return ".".join(step if step and step == step.strip() else f"'{step}'" for step in map(str, path))


def short(text: str) -> str:
    """Text cut to what fits into an error's line."""
    return text if len(text) <= 100 else f"{text[:80]}… ({len(text):,} characters)"
