"""What pydantic finds wrong with a storyboard's data, in words for the person who wrote it, each at its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from prefect_kling.storyboard.document import (
    Check,
    Cut,
    Defaults,
    MultiShotPart,
    Music,
    Shot,
    Storyboard,
    repeated_ids,
)
from prefect_kling.storyboard.places import Path, Place, Problems, did_you_mean, label, short

__all__ = ["note_mistakes", "note_repeated_ids", "shot_ids"]

_MANY_WORDS = 12
"""Of more words than these, those that were most likely meant are told."""
_UNIONS = {
    "elements": "takes a list of ids, or names with an id each",
    "multi_shot": "takes the word intelligence, or a list of 1 to 6 parts with prompt and duration",
}


def note_mistakes(error: ValidationError, data: Any, place_of: Callable[..., Place | None], problems: Problems) -> None:
    """Notes every entry of `error` once, at the key or value it is about.

    Args:
        error: from validating `data` as a `Storyboard`.
        data: what was validated.
        place_of: a path's place; with `key=True` the place of its key.
        problems: takes the mistakes; at places where it has one already nothing is added.
    """
    names = shot_ids(data)
    for path, of_key, message in _told_once(error, data):
        place = place_of(*path, key=of_key)
        if place is None or not problems.has(place):
            about = label(path, names)
            problems.add(place, f"{about}: {message}" if about else message)


def note_repeated_ids(data: Any, place_of: Callable[..., Place | None], problems: Problems) -> None:
    """Notes every shot whose id an earlier shot has."""
    names = shot_ids(data)
    positions = list(names)
    for index, first in repeated_ids(names.values()):
        shot, other = positions[index], positions[first]
        before = place_of("shots", other, "id")
        where = f" in line {before.line}" if before else ""
        problems.add(
            place_of("shots", shot, "id"),
            f"shot {shot + 1} has the id '{short(names[shot])}' of shot {other + 1}{where}; ids have to differ",
        )


def shot_ids(data: Any) -> dict[int, str]:
    """The ids that shots have in unchecked data, by the shots' positions from 0."""
    shots = data.get("shots") if isinstance(data, dict) else None
    return {
        n: shot["id"]
        for n, shot in enumerate(shots if isinstance(shots, list) else ())
        if isinstance(shot, dict) and isinstance(shot.get("id"), str)
    }


def _told_once(error: ValidationError, data: Any) -> Iterator[tuple[Path, bool, str]]:
    unfitting: dict[Path, bool] = {}
    for entry in error.errors(include_url=False):
        if entry["type"] == "repeated_id":
            continue  # `note_repeated_ids` has told it, at the id's own place
        path, of_key, branch_fits = _followed(entry["loc"], data, entry["type"])
        if branch_fits is None:
            yield path, of_key, _message(entry, path)
        elif branch_fits:
            unfitting[path[:3]] = False
            yield path, of_key, _message(entry, path)
        else:
            unfitting.setdefault(path[:3], True)
    for path, alone in unfitting.items():
        if alone:
            yield path, False, _UNIONS.get(str(path[-1]), "has the wrong type")


def _followed(loc: tuple[int | str, ...], data: Any, kind: str) -> tuple[Path, bool, bool | None]:
    """A pydantic location as a path in the data, whether it is about a key, and whether its union branch fits.

    Pydantic puts `[key]` and the names of union branches among the steps. None: there was no union.
    """
    path: list[str | int] = []
    here, of_key, fits = data, kind == "extra_forbidden", None
    for step in loc:
        if isinstance(here, dict) and step in here:
            here = here[step]
            path.append(step)
        elif isinstance(here, list) and isinstance(step, int):
            here = here[step] if step < len(here) else None
            path.append(step)
        elif step == "[key]":
            of_key = True
        elif isinstance(step, str) and "[" in step:
            fits = _fits(step, here)
        else:
            path.append(step)
    return tuple(path), of_key, fits


def _fits(branch: str, value: Any) -> bool:
    if branch.startswith("list["):
        return isinstance(value, list)
    if branch.startswith("dict["):
        return isinstance(value, dict)
    return isinstance(value, str)


def _message(entry: Any, path: Path) -> str:
    kind, context = entry["type"], entry.get("ctx") or {}
    tell = _MESSAGES.get(kind)
    return tell(entry["input"], context, path) if tell else f"{entry['msg']} (it is {_shown(entry['input'])})"


def _unknown(_value: Any, _context: dict[str, Any], path: Path) -> str:
    if path[-1] == "<<":
        return "merge keys are no part of YAML 1.2; say what all shots share under defaults"
    return f"there is no such field{did_you_mean(str(path[-1]), _model_at(path[:-1]).model_fields)}"


def _model_at(path: Path) -> type[BaseModel]:
    if path[-1:] == ("check",):
        return Check
    if path == ("cut", "music"):
        return Music
    if path[:1] == ("shots",):
        return MultiShotPart if "multi_shot" in path else Shot
    models: dict[str, type[BaseModel]] = {"defaults": Defaults, "cut": Cut}
    return models.get(str(path[0]), Storyboard) if path else Storyboard


def _not_text(value: Any, _context: dict[str, Any], _path: Path) -> str:
    if isinstance(value, dict | list):
        return f"takes text, not {_shown(value)}; text that starts with {{ or [ has to stand in quotes"
    if value is None:
        return "is empty; write the text after the colon, or remove the line"
    return f"takes text, not {_shown(value)}; put it in quotes"


def _not_one_of(value: Any, context: dict[str, Any], path: Path) -> str:
    if path[-1] in _UNIONS:
        return f"{_UNIONS[str(path[-1])]}, not {_shown(value)}"
    words = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
    words = [word for word in words if word]
    meant = did_you_mean(value, words) if isinstance(value, str) else ""
    if len(words) > _MANY_WORDS:
        return f"there is no {path[-1]} {_shown(value)}{meant or did_you_mean('', words)}"
    return f"takes {' or '.join(words)}, not {_shown(value)}{meant if 'did you' in meant else ''}"


def _bad_pattern(value: Any, _context: dict[str, Any], path: Path) -> str:
    if path[-1] == "id":
        return f"{_shown(value)} is no id; letters, digits, - and _ are allowed, a letter or digit first"
    if path[-1] == "function":
        return f"{_shown(value)} names no function; write package.module:function"
    if path[-1] == "size":
        return f"{_shown(value)} is no size; write WIDTHxHEIGHT in pixels, such as 1080x1920"
    return f"{_shown(value)} is no name; letters, digits and _ are allowed, a letter or _ first"


def _not_a_number(value: Any, _context: dict[str, Any], path: Path) -> str:
    unit = {"gain": "dB", "loudness": "LUFS"}.get(str(path[-1]), "seconds")
    return f"takes a number of {unit}, not {_shown(value)}"


def _bound(bound: float) -> float:
    return int(bound) if bound == int(bound) else bound


def _missing(_value: Any, _context: dict[str, Any], _path: Path) -> str:
    return "is missing; it has to be given"


def _not_a_mapping(value: Any, _context: dict[str, Any], path: Path) -> str:
    if not path:
        return f"a storyboard is a mapping with title and shots, not {_shown(value)}"
    if path[-1] == "check":
        return f"takes true, false, or fields such as black: 0.5, not {_shown(value)}"
    if path[-1] == "music":
        return f"takes a file, or fields such as file: bed.mp3 and gain: -12, not {_shown(value)}"
    return f"takes fields with values, not {_shown(value)}"


def _too_short(_value: Any, _context: dict[str, Any], path: Path) -> str:
    if path == ("shots",):
        return "there are none; a film needs at least one shot"
    return "is empty; give at least one, or remove the line"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    return (
        f"'{short(value)}'"
        if isinstance(value, str)
        else short(str(value)).replace("True", "true").replace("False", "false")
    )


_MESSAGES: dict[str, Callable[[Any, dict[str, Any], Path], str]] = {
    "extra_forbidden": _unknown,
    "missing": _missing,
    "string_type": _not_text,
    "string_pattern_mismatch": _bad_pattern,
    "string_too_short": lambda _v, _c, _p: "is empty; write something, or remove the line",
    "string_too_long": lambda v, c, _p: f"has {len(v):,} characters; at most {c['max_length']:,} are taken",
    "literal_error": _not_one_of,
    "whole": lambda v, _c, _p: f"takes a whole number, not {_shown(v)}",
    "int_type": lambda v, _c, _p: f"takes a whole number, not {_shown(v)}",
    "number": _not_a_number,
    "float_parsing": _not_a_number,
    "float_type": _not_a_number,
    "bool_parsing": lambda v, _c, _p: f"takes true or false, not {_shown(v)}",
    "bool_type": lambda v, _c, _p: f"takes true or false, not {_shown(v)}",
    "greater_than_equal": lambda v, c, _p: f"has to be at least {_bound(c['ge'])}, not {_shown(v)}",
    "less_than_equal": lambda v, c, _p: f"may be {_bound(c['le'])} at most, not {_shown(v)}",
    "list_type": lambda v, _c, _p: f"takes a list, not {_shown(v)}",
    "dict_type": lambda v, _c, _p: f"takes names with a value each, not {_shown(v)}",
    "model_type": _not_a_mapping,
    "too_short": _too_short,
    "too_long": lambda _v, c, _p: f"has too many entries; at most {c['max_length']:,} are taken",
}
