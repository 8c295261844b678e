"""Whatever a file holds, reading and planning it ends in a plan or a `StoryboardError`, and soon."""

from __future__ import annotations

import copy
import json
import re
import string
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml  # type: ignore[import-untyped]  # ships no types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.storyboard.document import Cut, MultiShotPart, Music, Shot, Storyboard, slug
from prefect_kling.storyboard.plan import images_to_fit, local_videos, plan
from prefect_kling.storyboard.reader import MAX_BYTES, Document, document_of, read_storyboard
from prefect_kling.storyboard.variables import Expansion, VariableProblem

FAST = settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])


def answered(folder: Path, data: bytes, variables: Mapping[str, str] | None = None) -> Storyboard | None:
    """What was read and planned, or None where it was refused in the way that refusals have."""
    path = folder / "film.yaml"
    path.write_bytes(data)
    (folder / "f.ttf").touch()
    try:
        document = read_storyboard(path, variables=variables)
        planned(document)
    except StoryboardError as error:
        told(error, str(path))
        return None
    return document.storyboard


def told(error: StoryboardError, source: str) -> None:
    """Sees to it that an error has the form that all have."""
    lines = str(error).split("\n")
    assert len(lines) <= 21
    for line in lines:
        assert re.match(rf"{re.escape(source)}(:\d+:\d+)?: \S", line), line


def planned(document: Document) -> None:
    """All that is done with a document before anything is bought."""
    local_videos(document)
    images_to_fit(document)
    found = plan(document)
    assert [shot.title for shot in found.shot_cuts] == [shot.id for shot in found.shots if shot.in_cut]
    assert found.film_seconds > 0
    assert [shot.id for shot in found.shots] == [shot.id for shot in document.storyboard.shots]
    assert sorted(shot.id for shot in found.order) == sorted(shot.id for shot in found.shots)
    assert 0 < found.usd <= found.upper_usd
    assert slug(document.storyboard.title).encode()


@FAST
@given(st.binary(max_size=400))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    answered(tmp_path, data)


YAML_SIGNS = st.text(st.sampled_from(string.ascii_lowercase[:3] + "0 \n\t:-?,[]{}#&*!|>'\"%@`\\~.é港\x85"), max_size=60)


@FAST
@given(
    st.lists(
        YAML_SIGNS | st.sampled_from(["title: T\n", "shots:\n", "  - id: a\n", "    prompt: ", "{{ x }}", "---\n"])
    )
)
def test_any_text_that_looks_like_yaml(tmp_path: Path, parts: list[str]) -> None:
    answered(tmp_path, "".join(parts).encode(), {"x": "y"})


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
NAMES = st.sampled_from(
    [name for model in (Storyboard, Shot, MultiShotPart, Cut, Music) for name in model.model_fields]
) | st.text(max_size=8)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5))


@FAST
@given(TREES)
def test_any_tree(tmp_path: Path, tree: Any) -> None:
    answered(tmp_path, json.dumps(tree).encode())


WORDS = ["", "a", "b", "nobody", "on", "yes", "std", "16:9", "intelligence", "kling-video-o1", "{p}", "{base}"]
ADDRESSES = ["https://example.com/x", "file:///etc/hostname", "s3://b/x", "//[", "http://[", "../x", "/", "film.yaml"]
VALUES = st.sampled_from([*WORDS, *ADDRESSES, "{{x}}", "{{"])
FIELDS = st.one_of(
    VALUES,
    TREES,
    st.integers(-1, 20),
    st.dictionaries(st.sampled_from(["p", "base", "b-c"]), VALUES | st.integers(0, 9), max_size=3),
    st.lists(st.fixed_dictionaries({"prompt": VALUES, "duration": st.integers(0, 9)}), max_size=3),
)
SHOTS = st.dictionaries(st.sampled_from([name for name in Shot.model_fields if name != "id"]), FIELDS, max_size=5)


@FAST
@given(st.lists(SHOTS, min_size=1, max_size=4))
def test_any_fields_of_shots(tmp_path: Path, shots: list[dict[str, Any]]) -> None:
    board = {"title": "T", "shots": [{"id": "abcd"[n], **shot} for n, shot in enumerate(shots)]}
    answered(tmp_path, json.dumps(board).encode(), {"x": "y"} if "{{x}}" in json.dumps(board) else None)


@FAST
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="{}"), max_size=50), min_size=1)
)
def test_any_prompt_arrives_as_it_was_written(tmp_path: Path, prompts: list[str]) -> None:
    shots = [{"id": f"s{n}", "prompt": f"x{prompt}"} for n, prompt in enumerate(prompts)]
    for text in (
        json.dumps({"title": "T", "shots": shots}),
        json.dumps({"title": "T", "shots": shots}, ensure_ascii=False),
    ):
        found = answered(tmp_path, text.encode())
        assert found is not None
        assert [shot.prompt for shot in found.shots] == [shot["prompt"] for shot in shots]


# Near-valid documents: one that says every field, with a few things changed.

WHOLE: dict[str, Any] = {
    "title": "Every field",
    "look": "hand-held, 16mm grain",
    "defaults": {
        "model": "kling-v3-omni", "mode": "std", "aspect_ratio": "16:9", "duration": 5, "sound": "off",
        "keep_original_sound": "no", "check": True, "max_retakes": 1, "fit": "no",
    },
    "shots": [
        {"id": "street", "prompt": "A street", "model": "kling-video-o1", "mode": "pro", "duration": 10, "takes": 2},
        {
            "id": "night", "prompt": "As {base}", "base": "street", "keep_original_sound": "yes", "take": 1,
            "trim": [1, 4.5], "transition": "wipe", "transition_length": 1, "caption": "Night",
            "narration": "film.yaml",
        },
        {"id": "door", "prompt": "As in {feature}", "feature": "street", "soften": ["A door", "Some door"]},
        {"id": "inside", "prompt": "Through the door", "continues": "door", "check": {"black": 0.5, "length": True}},
        {
            "id": "table", "prompt": "{letter}, {lamp}", "images": {"letter": "https://example.com/x.png"},
            "elements": {"lamp": 4711}, "fit": "yes",
        },
        {"id": "talk", "sound": "on", "multi_shot": [{"prompt": "A", "duration": 3}, {"prompt": "B", "duration": 5}]},
        {"id": "dream", "prompt": "The sea", "multi_shot": "intelligence", "in_cut": False, "max_retakes": 2},
        {"id": "end", "prompt": "{{ x }}", "first_frame": "inside", "end_frame": "https://example.com/x.jpg"},
    ],
    "cut": {
        "transition": "crossfade", "transition_length": 0.5, "fade_in": 1, "fade_out": "1.5", "size": "1080x1920",
        "fit": "crop", "codec": "h264", "loudness": -23, "sound": "none", "captions": "burn", "title": "Every field",
        "music": {"file": "film.yaml", "gain": -9, "loop": True, "fade": 1, "ducking": False}, "end_card": "Fin",
        "poster_at": 3, "drop_repeat": True, "font": "f.ttf", "otio": True,
    },
}  # fmt: skip


def places(tree: Any, parent: Any = None, key: Any = None) -> Iterator[tuple[Any, Any, Any]]:
    """Every value of a tree with what holds it and where."""
    if parent is not None:
        yield parent, key, tree
    for step, child in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(child, tree, step)


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """The whole document with up to four values dropped, doubled, made another, nested or exchanged."""
    tree = copy.deepcopy(WHOLE)
    for _ in range(draw(st.integers(1, 4))):
        there = list(places(tree))
        if not there:
            break
        parent, key, value = draw(st.sampled_from(there))
        _, _, other = draw(st.sampled_from(there))
        match draw(st.sampled_from(["drop", "double", "other", "nest", "exchange", "rename"])):
            case "drop":
                del parent[key]
            case "double" if isinstance(parent, list):
                parent.insert(key, value)
            case "double" | "rename" if isinstance(parent, dict):
                parent[draw(NAMES)] = value
            case "nest":
                parent[key] = draw(st.sampled_from([[value], {"id": value}, {key: value}, [value] * 20]))
            case "exchange":
                parent[key] = copy.deepcopy(other)
            case _:
                parent[key] = draw(SCALARS | VALUES | st.sampled_from(ODD_SCALARS))
    return tree


ODD_SCALARS: list[Any] = [
    0, -1, 2**63, 10**400, -(10**30), 1e308, float("inf"), float("nan"), -0.0, 1.5, True, None, [], {}, "", " ",
    "\x1b[2J", "0x10", "1e5", "٣", "\u202e", "\ufeff", "é" * 3000, "a" * 70, "<<", "~", "{{ x }}",
    "{{ x|truncate(1) }}", "{x}",
]  # fmt: skip


@FAST
@given(changed())
def test_any_change_of_a_whole_document(tmp_path: Path, tree: dict[str, Any]) -> None:
    variables = {"x": "y"} if "{{ x" in json.dumps(tree) else None
    answered(tmp_path, yaml.dump(tree, allow_unicode=True).encode(), variables)
    answered(tmp_path, json.dumps(tree).encode(), variables)


@FAST
@given(changed())
def test_any_change_of_a_storyboard_that_was_typed_in(tree: dict[str, Any]) -> None:
    try:
        board = Storyboard.model_validate(tree)
    except ValidationError:
        return
    try:
        planned(document_of(board, variables={"x": "y"}))
    except StoryboardError as error:
        told(error, "storyboard")


def test_the_whole_document_itself_is_taken(tmp_path: Path) -> None:
    board = answered(tmp_path, yaml.dump(WHOLE).encode(), {"x": "y"})
    assert board is not None
    assert {field for shot in board.shots for field in shot.model_fields_set} >= Shot.model_fields.keys() - {
        "aspect_ratio"
    }
    assert board.cut.model_fields_set == set(Cut.model_fields)
    assert board.cut.music.model_fields_set == set(Music.model_fields)


EDITS = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 12), st.binary(max_size=6) | YAML_SIGNS.map(str.encode))
)


@FAST
@given(EDITS, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1", "utf-7"]))
def test_any_edit_of_a_whole_documents_text(tmp_path: Path, edits: list[tuple[int, int, bytes]], encoding: str) -> None:
    data = bytearray(yaml.dump(WHOLE, sort_keys=False).encode(encoding))
    for start, length, put in edits:
        at = start % max(1, len(data))
        data[at : at + length] = put
    answered(tmp_path, bytes(data), {"x": "y"})


@FAST
@given(st.dictionaries(NAMES | st.sampled_from(["x", "self", "range", "__class__"]), SCALARS | VALUES, max_size=4))
def test_any_variables(tmp_path: Path, variables: dict[str, Any]) -> None:
    answered(tmp_path, yaml.dump(WHOLE).encode(), variables)


TEMPLATE_SIGNS = st.sampled_from([
    "x", "big", "nobody", "'a'", "''", "5", "1.5", "1e400", "none", "true", "self", "range", "_x", "'\\0'", "'\\ud800'",
    "+", "-", "~", "==", "<", " in ", " not ", " is ", " and ", " or ", " if ", " else ", "(", ")", ",", "=", "[", "]",
    ".", "__class__", "{", "}", "*", "**", "//", "%", ":", "|", "|truncate(1)", "|replace('a',x)", "|d(x)", "|int(1,2)",
    "|upper", "|first", "|last", "|length", "|urlencode", "|title", "|wordcount", "|float", "|abs", "|join", "boolean=",
    "9" * 30,
])  # fmt: skip


@FAST
@given(st.lists(TEMPLATE_SIGNS, max_size=20).map("".join))
def test_any_template(template: str) -> None:
    try:
        filled = Expansion({"x": "Lamp", "big": "é " * 5000}).text("{{ " + template + " }}")
    except VariableProblem:
        return
    assert len(filled.encode()) <= 4 * 20_000
    assert not re.search(r"<(class|function|Template)|object at", filled)


REFUSED = {
    "an enormous number": b"title: T\nshots: [{id: a, prompt: x, duration: " + b"9" * 100_000 + b"}]",
    "an enormous fraction": b"title: T\nshots: [{id: a, prompt: x, duration: 1e" + b"9" * 1000 + b"}]",
    "an enormous element": b"title: T\nshots: [{id: a, prompt: x, elements: [0x" + b"f" * 1000 + b"]}]",
    "infinity": b"title: T\nshots: [{id: a, prompt: x, check: {black: 1e999}}]",
    "a timestamp": b"title: T\nshots: [{id: a, prompt: x, duration: 2026-11-22T00:00:00Z}]",
    "sixty": b"title: T\nshots: [{id: a, prompt: x, duration: 0:05}]",
    "a tag": b"title: !!binary aGVsbG8=\nshots: [{id: a, prompt: x}]",
    "a tag of Python": b"title: !!python/object/apply:os.system [id]\nshots: [{id: a, prompt: x}]",
    "a set": b"title: T\nshots: !!set {a, b}",
    "an ordered map": b"title: T\nshots: !!omap [a: 1]",
    "a merge key": b"base: &b {mode: pro}\ntitle: T\nshots: [{id: a, prompt: x, <<: *b}]",
    "merge keys": b"title: T\nshots: [{id: a, prompt: x, <<: [{}, {}]}]",
    "keys given twice": b"title: T\ntitle: T\nshots: [{id: a, prompt: x}]",
    "a key that is a list": b"? [title]\n: T\nshots: [{id: a, prompt: x}]",
    "a key that is empty": b"? \n: T\ntitle: T\nshots: [{id: a, prompt: x}]",
    "an alias of itself": b"title: T\nshots: &a [{id: a, prompt: x, images: *a}]",
    "UTF-16": "title: T\nshots: [{id: a, prompt: x}]".encode("utf-16"),
    "UTF-16 without a mark": "title: T\nshots: [{id: a, prompt: x}]".encode("utf-16-le"),
    "UTF-32": "title: T\nshots: [{id: a, prompt: x}]".encode("utf-32"),
    "half a character": b'{"title": "\\ud83d", "shots": [{"id": "a", "prompt": "x"}]}',
    "half a character from a template": b"title: \"{{ '\\\\ud83d' }}\"\nshots: [{id: a, prompt: x}]",
    "NUL": b"title: T\0\nshots: [{id: a, prompt: x}]",
    "another YAML": b"%YAML 3.0\n---\ntitle: T\nshots: [{id: a, prompt: x}]",
    "a class": b'title: "{{ x.__class__ }}"\nshots: [{id: a, prompt: x}]',
    "a method": b"title: \"{{ ''.join(['a']) }}\"\nshots: [{id: a, prompt: x}]",
    "a loop": b'title: "{% for a in range(10**9) %}x{% endfor %}"\nshots: [{id: a, prompt: x}]',
    "a range": b'title: "{{ range(10**9) }}"\nshots: [{id: a, prompt: x}]',
    "a power": b'title: "{{ 9**9**9 }}"\nshots: [{id: a, prompt: x}]',
    "a product": b"title: \"{{ 'a' * 10**10 }}\"\nshots: [{id: a, prompt: x}]",
    "a text that grows": b'title: "{{ x' + b"|replace('', x)" * 19 + b' }}"\nshots: [{id: a, prompt: x}]',
    "a deep template": b'title: "{{ ' + b"not " * 150 + b'x }}"\nshots: [{id: a, prompt: x}]',
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.timeout(10)
def test_what_storyboards_do_not_hold_is_refused(tmp_path: Path, name: str) -> None:
    assert answered(tmp_path, REFUSED[name], {"x": "y" * 100} if b"{{ x" in REFUSED[name] else None) is None


SIZE = 300_000
FLOODS = {
    "[": "[" * SIZE,
    "{": "{a: " * (SIZE // 4),
    "- ": "- " * (SIZE // 2),
    "? ": "? " * (SIZE // 2),
    "empty lists": "[" + "[]," * (SIZE // 3) + "]",
    "nothing": "title: T\nshots: [" + "~," * 100_000 + "]",
    "one key": "a: 1\n" * (SIZE // 5),
    "anchors": "&a " * (SIZE // 3),
    "tags": "!a " * (SIZE // 3),
    "escapes": '"' + "\\u0041" * (SIZE // 6) + '"',
    "one word": "a" * SIZE + ": 1",
    "lines": "a\n" * (SIZE // 2),
    "shots": "title: T\nshots:\n" + "- {id: a, zz: 1}\n" * 20_000,
    "images": "title: T\nshots:\n- id: a\n  images: {" + ",".join(f"k{n}: x" for n in range(20_000)) + "}",
    "elements": "title: T\nshots:\n- id: a\n  elements: [" + "x," * 100_000 + "]",
    "braces": 'title: "' + "{{" * (SIZE // 2) + '"',
    "names": 'title: "' + "{{ x }}" * (SIZE // 8) + '"',
}


@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.timeout(10)
def test_floods_are_refused_in_bounded_time(tmp_path: Path, name: str) -> None:
    assert answered(tmp_path, FLOODS[name].encode()) is None


def _filled(text: str, head: str = "", tail: str = "") -> bytes:
    """A document as large as one may be."""
    return (head + text * ((MAX_BYTES - len(head) - len(tail)) // len(text)) + tail).encode()


ONE_SHOT = "title: T\nshots:\n- id: a\n  prompt: x\n"
LARGEST = {
    "open": _filled("["),
    "opened blocks": _filled("- "),
    "indented": "".join(" " * n + "a:\n" for n in range(3000)).encode(),
    "a line": _filled("x", "title: "),
    "a line of colons": _filled(": "),
    "anchors": "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9 if n else 'x'}]\n" for n in range(30)).encode(),
    "a chain of anchors": "".join(
        f"a{n}: &a{n} {'[' * 25}{f'*a{n - 1}' if n else ''}{']' * 25}\n" for n in range(2000)
    ).encode(),
    "aliases of a long text": _filled("*a,", f"a: &a {'x' * 60_000}\nb: [", "]"),
    "lists": _filled("[],", "[", "]"),
    "keys": (ONE_SHOT + "".join(f"k{n}: 1\n" for n in range(100_000))).encode(),
    "elements": (ONE_SHOT + "  elements: {" + ",".join(f"k{n}: x" for n in range(80_000)) + "}").encode(),
    "long values": (ONE_SHOT + "  soften: [" + "'{{ x }}'," * 200_000 + "]").encode(),
    "missing shots": (
        "title: T\nshots:\n" + "".join(f"- {{id: s{n}, continues: t{n}}}\n" for n in range(2000))
    ).encode(),
    "missing files": (
        "title: T\nshots:\n" + "".join(f"- {{id: s{n}, prompt: x, base: '{'a/' * 1000}'}}\n" for n in range(2000))
    ).encode(),
}
CHILD = """
import resource, sys
from pathlib import Path
from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.storyboard.plan import images_to_fit, local_videos, plan
from prefect_kling.storyboard.reader import read_storyboard

folder = Path(sys.argv[1])
plan(read_storyboard(folder / "good.yaml", variables={"x": "y"}))  # with all that is imported on the way
before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (before + 500 * 2**20,) * 2)
for path in sorted(folder.glob("bad-*.yaml")):
    try:
        document = read_storyboard(path, variables={"x": "y" * 10_000} if b"{{" in path.read_bytes() else None)
        local_videos(document)
        images_to_fit(document)
        plan(document)
    except StoryboardError as error:
        assert len(str(error)) < 20_000
        print(path.stem.removeprefix("bad-"))
"""


@pytest.mark.timeout(60)
def test_the_largest_documents_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text('title: "{{ x|upper }}"\nshots: [{id: a, prompt: x}]')
    for name, data in LARGEST.items():
        (tmp_path / f"bad-{name}.yaml").write_bytes(data)
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=False, timeout=55
    )
    assert ended.stderr == ""
    assert sorted(ended.stdout.splitlines()) == sorted(LARGEST)


def test_of_what_is_far_too_large_no_more_than_is_needed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "film.yaml"
    with path.open("wb") as file:
        file.truncate(50 * 2**30)  # takes no room on the disk
    with pytest.raises(StoryboardError, match="it has more than 5 MB"):
        read_storyboard(path)
    with fsspec.open("memory://far/film.yaml", "wb") as far:
        far.write(b"#" * (50 * 2**20))
    with pytest.raises(StoryboardError, match="it has more than 5 MB"):
        read_storyboard("memory://far/film.yaml")
