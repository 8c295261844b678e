"""Whatever a file holds, reading and planning it ends in a plan or a `StoryboardError`, and soon."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.storyboard.document import MultiShotPart, Shot, Storyboard
from prefect_kling.storyboard.plan import local_videos, plan
from prefect_kling.storyboard.reader import read_storyboard

FAST = settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])


def answered(folder: Path, data: bytes, variables: dict[str, str] | None = None) -> Storyboard | None:
    """What was read and planned, or None where it was refused in the way that refusals have."""
    path = folder / "film.yaml"
    path.write_bytes(data)
    try:
        document = read_storyboard(path, variables=variables)
        local_videos(document)
        plan(document)
    except StoryboardError as error:
        lines = str(error).split("\n")
        assert len(lines) <= 21
        for line in lines:
            assert re.match(rf"{re.escape(str(path))}(:\d+:\d+)?: \S", line), line
        return None
    return document.storyboard


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
NAMES = st.sampled_from([*Storyboard.model_fields, *Shot.model_fields, *MultiShotPart.model_fields]) | st.text(
    max_size=8
)
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
