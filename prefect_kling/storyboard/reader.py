"""Reading a storyboard: from a path or an address to a checked `Document`, or everything that is wrong with it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

from pydantic import ValidationError

from prefect_kling.storyboard.document import OF_THE_CUT, Storyboard
from prefect_kling.storyboard.mistakes import note_mistakes, note_repeated_ids, shot_ids
from prefect_kling.storyboard.places import START, Place, Problems, label
from prefect_kling.storyboard.places import Path as DataPath

if TYPE_CHECKING:
    from prefect_kling.storyboard.tree import Node
    from prefect_kling.storyboard.variables import Expansion

__all__ = [
    "MAX_BYTES",
    "Document",
    "Positions",
    "SourceText",
    "digest_of",
    "document_of",
    "read_storyboard",
    "source_text",
    "variables_named",
]

MAX_BYTES = 5 * 1024 * 1024
_FETCH_SECONDS = 30.0
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True)
class Positions:
    """Where a document's values stand in its text; a typed-in document has no text, and every answer is None."""

    _root: Node | None = field(default=None, repr=False)

    def of(self, *path: str | int, key: bool = False) -> Place | None:
        """Where the value at `path` stands, or the nearest thing around it; `key`: where its key stands."""
        if self._root is None:
            return None
        from prefect_kling.storyboard.tree import place_of  # brings YAML, which typed-in documents do not need

        return place_of(self._root, path, key=key)


class SourceText(NamedTuple):
    """What was read: how to call it, the folder it is in, its text, and where to note what is wrong with it."""

    shown: str
    root: str | None
    text: str
    problems: Problems


@dataclass(frozen=True)
class Document:
    """A storyboard that was read, its variables filled in.

    Attributes:
        storyboard: what it says.
        source: its path or URL as the user gave it, without a URL's password and query, for people to read.
        root: the folder of its relative paths: an absolute path, or a URL ending in `/`; None where it was typed in.
        digest: sha256 of what it says, in hex. Comments, formatting, the cut and fields left at their defaults do not
            count; values of variables do.
        positions: where things stand in its text.
        allow_outside: whether it may use files outside of its folder.
    """

    storyboard: Storyboard
    source: str
    root: str | None
    digest: str
    positions: Positions = field(default_factory=Positions, compare=False, repr=False)
    allow_outside: bool = False


def read_storyboard(
    source: str | Path, *, variables: Mapping[str, str] | None = None, allow_outside: bool = False
) -> Document:
    """Reads a storyboard and fills in its variables.

    Blocking: it reads a file or fetches a URL.

    Args:
        source: a local path, an http(s) URL, or any URL that fsspec can open; UTF-8, YAML 1.2 or JSON, at most 5 MB.
        variables: values for `{{ name }}` in its texts; each has to be used.
        allow_outside: it may use files outside of its folder.

    Raises:
        StoryboardError: everything wrong with it, 20 problems at most, a line each: `FILE:LINE:COLUMN: message`.
    """
    from prefect_kling.storyboard.tree import parse  # brings YAML, which typed-in documents do not need

    shown, root, text, problems = source_text(source)
    tree = parse(text, problems)
    positions = Positions(tree)
    data = _data(tree, _expansion(variables, problems), problems)
    storyboard = _validated(data, positions, problems)
    _refuse_zero(storyboard, positions, problems)
    return Document(storyboard, shown, root, digest_of(storyboard), positions, allow_outside)


def document_of(storyboard: Storyboard, *, variables: Mapping[str, str] | None = None) -> Document:
    """Makes a document of a storyboard that was typed in, with no file and so no folder: its media have to be URLs.

    Args:
        storyboard: as from Prefect's form or from Python.
        variables: as for `read_storyboard`.

    Raises:
        StoryboardError: everything wrong with its variables and what they made of it, a line each.
    """
    problems = Problems("storyboard")
    expansion = _expansion(variables, problems)
    typed = storyboard.model_dump(mode="json", exclude_unset=True)
    names = shot_ids(typed)
    data = _filled(typed, (), expansion, lambda path, said: problems.add(None, f"{label(path, names)}: {said}"))
    _note_unused(expansion, None, problems)
    storyboard = _validated(data, Positions(), problems)
    return Document(storyboard, "storyboard", None, digest_of(storyboard))


def source_text(source: str | Path) -> SourceText:
    """A file's text, from wherever a storyboard can be read.

    Blocking: it reads a file or fetches a URL.

    Raises:
        StoryboardError: it is not there, cannot be read, is too large or is not UTF-8.
    """
    try:
        shown, root, fetch = _located(str(source))
    except ValueError as error:
        Problems(str(source)).stop(START, f"it cannot be read: {error}")
    problems = Problems(shown)
    return SourceText(shown, root, _decoded(_fetched(fetch, problems), problems), problems)


def variables_named(source: str | Path | Storyboard) -> frozenset[str]:
    """The variables that a document's texts name, whatever they are given; of what is no template, none.

    Blocking, where it is a path or URL: it reads a file or fetches a URL.

    Raises:
        StoryboardError: the document cannot be read.
    """
    expansion = _expansion(None, Problems("storyboard"))
    if isinstance(source, Storyboard):
        _look_through(source.model_dump(mode="json", exclude_unset=True), expansion)
    else:
        from prefect_kling.storyboard.tree import parse  # brings YAML, which typed-in documents do not need

        _, _, text, problems = source_text(source)
        tree = parse(text, problems)
        problems.raise_any()
        _look_through(tree.plain(), expansion)
    return frozenset(expansion.named)


def _look_through(value: Any, expansion: Expansion) -> None:
    from prefect_kling.storyboard.variables import VariableProblem

    if isinstance(value, str):
        with suppress(VariableProblem):  # told where the document is filled in
            expansion.look(value)
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            _look_through(child, expansion)


def _located(source: str) -> tuple[str, str | None, Callable[[], bytes]]:
    """What to call a source, the folder it is in, and how to get its bytes."""
    scheme = _SCHEME.match(source)
    if scheme is None or scheme[1].lower() == "file":
        path = Path(source[len(scheme[0]) :] if scheme else source)
        return source, str(Path(os.path.abspath(path)).parent), lambda: _local_bytes(path)  # noqa: PTH100 - links stay
    parts = urlsplit(source)
    shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    if scheme[1].lower() in ("http", "https"):
        return shown, urljoin(shown, "."), lambda: _http_bytes(source)
    return shown, shown.rpartition("/")[0] + "/", lambda: _fsspec_bytes(source)


def _fetched(fetch: Callable[[], bytes], problems: Problems) -> bytes:
    import httpx

    try:
        data = fetch()
    except FileNotFoundError:
        problems.stop(START, "there is no such file")
    except ImportError as error:
        problems.stop(START, f"reading this address needs another package: {error}")
    except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
        problems.stop(START, f"it cannot be read: {error or type(error).__name__}")
    if len(data) > MAX_BYTES:
        problems.stop(START, f"it has more than {MAX_BYTES // 1024 // 1024} MB, which is too much")
    return data


def _local_bytes(path: Path) -> bytes:
    # A pipe or a device would block for ever.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is no regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _http_bytes(url: str) -> bytes:
    import httpx  # fsspec would need aiohttp, which nothing here brings

    data, begun = bytearray(), time.monotonic()
    with httpx.stream("GET", url, timeout=_FETCH_SECONDS, follow_redirects=True) as answer:
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise FileNotFoundError(url)
        if not answer.is_success:
            raise OSError(f"the server answered {answer.status_code} {answer.reason_phrase}")
        for chunk in answer.iter_bytes():
            data += chunk
            if len(data) > MAX_BYTES:
                break
            if time.monotonic() - begun > _FETCH_SECONDS:  # httpx bounds each wait, and a drip is never late
                raise OSError(f"the server took more than {_FETCH_SECONDS:g} s")
    return bytes(data)


def _fsspec_bytes(url: str) -> bytes:
    import fsspec

    try:
        with fsspec.open(url, "rb") as file:
            return bytes(file.read(MAX_BYTES + 1))
    except (OSError, ImportError, ValueError):
        raise
    except Exception as error:  # drivers raise what they like
        raise OSError(f"{type(error).__name__}: {error}") from error


def _decoded(data: bytes, problems: Problems) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", errors="replace")
        place = Place(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
        problems.stop(place, "this is not UTF-8 text; save the file as UTF-8")


def _expansion(variables: Mapping[str, str] | None, problems: Problems) -> Expansion:
    from prefect_kling.storyboard.variables import Expansion, VariableProblem  # brings Jinja2

    try:
        return Expansion(variables or {})
    except VariableProblem as error:
        problems.stop(START, str(error))


def _note_unused(expansion: Expansion, place: Place | None, problems: Problems) -> None:
    for message in expansion.unused():
        problems.add(place, message)


def _data(tree: Node, expansion: Expansion, problems: Problems) -> Any:
    """The tree as plain values, variables filled in. Its depth and size were bounded in reading."""
    from prefect_kling.storyboard.variables import VariableProblem

    def plain(node: Node) -> Any:
        value = node.value
        if isinstance(value, str):
            try:
                return expansion.text(value)
            except VariableProblem as error:
                problems.add(node.place, str(error))
                return value
        if isinstance(value, dict):
            return {key: plain(child) for key, child in value.items()}
        if isinstance(value, list):
            return [plain(child) for child in value]
        return value

    data = plain(tree)
    _note_unused(expansion, START, problems)
    return data


def _filled(value: Any, path: DataPath, expansion: Expansion, note: Callable[[DataPath, str], None]) -> Any:
    """Typed-in values with their variables filled in."""
    from prefect_kling.storyboard.variables import VariableProblem

    if isinstance(value, str):
        try:
            return expansion.text(value)
        except VariableProblem as error:
            note(path, str(error))
            return value
    if isinstance(value, dict):
        return {key: _filled(child, (*path, key), expansion, note) for key, child in value.items()}
    if isinstance(value, list):
        return [_filled(child, (*path, n), expansion, note) for n, child in enumerate(value)]
    return value


def _validated(data: Any, positions: Positions, problems: Problems) -> Storyboard:
    note_repeated_ids(data, positions.of, problems)
    try:
        storyboard = Storyboard.model_validate(data)
    except ValidationError as error:
        note_mistakes(error, data, positions.of, problems)
        problems.raise_any()
        raise
    problems.raise_any()
    return storyboard


def _refuse_zero(storyboard: Storyboard, positions: Positions, problems: Problems) -> None:
    # The form sends 0 for "not said"; who writes it in a file means something else, and would pay for 5 s.
    for n, shot in enumerate(storyboard.shots):
        if shot.duration == 0 and "duration" in shot.model_fields_set:
            message = f"shot '{shot.id}': duration: 0 seconds cannot be made; for the default remove the line"
            problems.add(positions.of("shots", n, "duration"), message)
    problems.raise_any()


def digest_of(storyboard: Storyboard) -> str:
    """A document's digest: sha256 of what it says that is not a default, in hex.

    Without the cut: money is held for a document, and one that is only cut in another way buys the same.
    """
    of_the_cut: dict[str, Any] = {"cut": True, "shots": {"__all__": set(OF_THE_CUT)}}
    said = storyboard.model_dump(mode="json", exclude_defaults=True, exclude=of_the_cut)
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
