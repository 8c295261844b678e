"""YAML 1.2 or JSON text as a tree whose every key and value knows its line and column, in bounded time and memory.

The tree is built from parser events, not by a loader: nothing recurses, nesting and size are checked while reading, and
`16:9`, `on` and `no` stay what the user wrote, since plain words are read by YAML 1.2's core schema below. Events come
from PyYAML's C parser, which Prefect installs: a storyboard of 1,000 shots takes about 0.1 s, where ruamel.yaml's pure
composer took 0.8 s. PyYAML's own reading of plain words is YAML 1.1 and is not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml  # type: ignore[import-untyped]  # ships no types
from yaml import events

from prefect_kling.storyboard.places import Path, Place, Problems, short

__all__ = ["MAX_DEPTH", "MAX_WEIGHT", "Node", "Scalar", "parse", "place_of"]

MAX_DEPTH = 32
# 2,000 shots with every field said are some 150,000 values; beyond this it is no storyboard but an attack or a mistake.
MAX_WEIGHT = 250_000

Scalar = str | int | float | bool | None

_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_TAG = "tag:yaml.org,2002:"
_TAGS = {"!", _TAG + "str", _TAG + "map", _TAG + "seq"}
# JSON writes characters beyond U+FFFF as two escapes, which YAML does not know.
_JSON_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")

_UNQUOTED = re.compile(r": *[{\[@`%]|: .*:\s")

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Node:
    """A value and where it stands.

    Attributes:
        value: a scalar, a dict of nodes or a list of nodes.
        keys: where each key of a dict stands.
        weight: how many values it holds, with aliases followed; long texts count for more.
        depth: how many collections it is nested to, itself one of them, with aliases followed; 0 for a scalar.
    """

    __slots__ = ("depth", "keys", "place", "value", "weight")

    def __init__(self, place: Place, value: Scalar | dict[str, Node] | list[Node], weight: int = 1) -> None:
        self.place = place
        self.value = value
        self.keys: dict[str, Place] = {}
        self.weight = weight
        self.depth = 0 if value is None or isinstance(value, str | int | float) else 1

    def plain(self) -> Any:
        """The same without places. Its depth and size were bounded in reading."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def parse(text: str, problems: Problems, *, as_written: bool = False) -> Node:
    """Reads one document.

    Args:
        text: YAML 1.2 or JSON.
        problems: takes what is wrong; keys given twice are noted and reading goes on.
        as_written: leave numbers, true and false the text that they are written as; null is None all the same.

    Raises:
        StoryboardError: the text is no YAML, or holds more than a storyboard can.
    """
    if bad := _FORBIDDEN.search(text):
        problems.stop(
            _place_in(text, bad.start()), f"the character U+{ord(bad[0]):04X} may not stand in YAML; remove it"
        )
    if text.lstrip()[:1] == "{":
        text = _JSON_PAIR.sub(_joined_pair, text)
    builder = _Builder(problems, as_written=as_written)
    try:
        for event in _events(text):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        place, message = _syntax(error, text)
        problems.stop(place, message)
    if builder.root is None:
        problems.stop(Place(1, 1), "the document is empty")
    return builder.root


def place_of(root: Node | None, path: Path, *, key: bool = False) -> Place | None:
    """Where `path` stands, or the nearest thing around it that is there; `key`: where its key stands."""
    if root is None:
        return None
    node, place = root, root.place
    for n, step in enumerate(path):
        if isinstance(node.value, dict) and isinstance(step, str) and step in node.value:
            place = node.keys[step]
            node = node.value[step]
        elif isinstance(node.value, list) and isinstance(step, int) and 0 <= step < len(node.value):
            node = node.value[step]
            place = node.place
        else:
            return node.place
        if not (key and n == len(path) - 1):
            place = node.place
    return place


def _events(text: str) -> Iterator[Any]:
    yield from yaml.parse(text, Loader=_Parser)


class _Open:
    """A collection whose end has not been read yet."""

    __slots__ = ("anchor", "key", "key_place", "node")

    def __init__(self, node: Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: str | None = None
        self.key_place: Place | None = None


class _Builder:
    def __init__(self, problems: Problems, *, as_written: bool) -> None:
        self._plain = _as_written if as_written else _plain
        self.root: Node | None = None
        self._problems = problems
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._weight = 0

    def take(self, event: Any) -> None:
        kind = type(event)
        if kind is events.ScalarEvent:
            self._scalar(event)
        elif kind is events.MappingStartEvent:
            self._start(event, {})
        elif kind is events.SequenceStartEvent:
            self._start(event, [])
        elif kind in (events.MappingEndEvent, events.SequenceEndEvent):
            closed = self._open.pop()
            self._put(closed.node, closed.anchor)
        elif kind is events.AliasEvent:
            self._alias(event)
        elif kind is events.DocumentStartEvent and self.root is not None:
            self._problems.stop(_place(event), "a second document starts here; a file holds one")

    def _scalar(self, event: Any) -> None:
        place = _place(event)
        self._check_tag(event, place)
        text = event.value
        if "\0" in text:
            self._problems.stop(place, "the text holds a NUL character; remove it")
        weight = 1 + len(text) // 64
        self._grow(weight, place)
        if self._wants_key():
            self._open[-1].key, self._open[-1].key_place = text, place
            return
        # Quoted text, and text in a block, is never a number or a word with a meaning.
        value = self._plain(text) if event.implicit[0] and event.tag is None else text
        self._put(Node(place, value, weight), event.anchor)

    def _start(self, event: Any, empty: dict[str, Node] | list[Node]) -> None:
        place = _place(event)
        self._check_tag(event, place)
        self._grow(1, place)
        if self._wants_key():
            self._problems.stop(place, 'a key has to be a plain word; a variable stands in quotes: "{{ name }}"')
        self._go_down(1, place)
        self._open.append(_Open(Node(place, empty), event.anchor))

    def _alias(self, event: Any) -> None:
        place = _place(event)
        name = short(event.anchor)
        if self._wants_key():
            self._problems.stop(place, "a key has to be a plain word, not an alias")
        node = self._anchors.get(event.anchor)
        if node is None:
            self._problems.stop(place, f"*{name} refers to no &{name} that ends before it")
        self._go_down(node.depth, place)
        self._grow(node.weight, place)
        self._put(node, None)

    def _put(self, node: Node, anchor: str | None) -> None:
        # Only what has ended can be referred to, so that nothing ever holds itself.
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.node.weight += node.weight
        parent.node.depth = max(parent.node.depth, 1 + node.depth)
        if isinstance(parent.node.value, list):
            parent.node.value.append(node)
        elif isinstance(parent.node.value, dict) and parent.key is not None and parent.key_place is not None:
            self._put_by_key(parent.node.value, parent.node.keys, parent.key, parent.key_place, node)
            parent.key = parent.key_place = None

    def _put_by_key(self, mapping: dict[str, Node], keys: dict[str, Place], key: str, place: Place, node: Node) -> None:
        if key in mapping:
            self._problems.add(place, f"'{short(key)}' is given twice, first in line {keys[key].line}; remove one")
            return
        mapping[key] = node
        keys[key] = place

    def _wants_key(self) -> bool:
        return bool(self._open) and self._open[-1].key is None and isinstance(self._open[-1].node.value, dict)

    def _go_down(self, depth: int, place: Place) -> None:
        # What an alias holds is as deep as if it stood there, whatever its own text looks like.
        if len(self._open) + depth > MAX_DEPTH:
            self._problems.stop(place, f"this is nested more than {MAX_DEPTH} deep, which nothing here needs")

    def _grow(self, weight: int, place: Place) -> None:
        self._weight += weight
        if self._weight > MAX_WEIGHT:
            self._problems.stop(place, "this is more than a document can hold; are aliases multiplying it?")

    def _check_tag(self, event: Any, place: Place) -> None:
        if event.tag is not None and event.tag not in _TAGS:
            tag = short(event.tag.replace(_TAG, "!!"))
            self._problems.stop(place, f"the tag {tag} has no meaning here; remove it, and quote what has to be text")


def _place(event: Any) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1)


def _place_in(text: str, index: int) -> Place:
    start = text.rfind("\n", 0, index) + 1
    return Place(text.count("\n", 0, index) + 1, index - start + 1)


def _plain(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789":
        return text
    if _INT.fullmatch(text):
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    # Beyond 300 digits Python has no float that is one; nobody writes them but to break something.
    if len(text) <= 300 and _FLOAT.fullmatch(text):
        return float(text)
    return text


def _as_written(text: str) -> Scalar:
    return None if _WORDS.get(text, text) is None else text


def _joined_pair(match: re.Match[str]) -> str:
    character = 0x10000 + ((int(match[2], 16) & 0x3FF) << 10) + (int(match[3], 16) & 0x3FF)
    return f"{match[1]}\\U{character:08X}"


def _syntax(error: Any, text: str) -> tuple[Place, str]:
    # What is never closed is best shown where it opens.
    unclosed = "end of stream" in str(error.problem) and error.context_mark is not None
    mark = error.context_mark if unclosed else error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)
    line = (text.split("\n", place.line)[place.line - 1 : place.line] or [""])[0]
    if "\t" in line[: place.column] and not line[: place.column - 1].strip():
        column = line.index("\t") + 1
        return Place(place.line, column), "a tab is used as indentation; YAML wants spaces"
    said = " ".join(part for part in (error.context, error.problem) if part)
    hint = (
        "; text that starts with { or [ or holds a colon and a space has to stand in quotes"
        if _UNQUOTED.search(line)
        else ""
    )
    return place, f"this is not valid YAML: {said}{hint}"
