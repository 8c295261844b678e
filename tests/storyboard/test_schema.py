"""The committed JSON Schema: the models', complete for an editor, and true of what the reader takes and refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # ships no types
from ruamel.yaml import YAML

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.storyboard.document import Check, Cut, Defaults, MultiShotPart, Music, Shot, Storyboard
from prefect_kling.storyboard.reader import Document
from prefect_kling.storyboard.schema import storyboard_schema

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "storyboard.schema.json"
EXAMPLES = sorted((ROOT / "storyboards").glob("*.yaml"))
SCHEMA = storyboard_schema()
Read = Callable[..., Document]


def mistakes(text: str) -> list[str]:
    """What an editor would underline."""
    data = YAML(typ="safe", pure=True).load(text)
    return [str(error.json_path) for error in Draft202012Validator(SCHEMA).iter_errors(data)]


def test_the_committed_schema_is_the_models() -> None:
    made = json.dumps(SCHEMA, indent=2, ensure_ascii=False) + "\n"
    renew = "the models have changed: prefect-kling schema > docs/storyboard.schema.json"
    assert FILE.read_text("utf-8") == made, renew


def test_it_is_a_schema_of_its_draft_with_a_name() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["$id"] == "urn:prefect-kling:storyboard"
    assert SCHEMA["title"] == "Storyboard"


def definitions() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "Storyboard", SCHEMA
    yield from SCHEMA["$defs"].items()


@pytest.mark.parametrize("model", [Storyboard, Defaults, Shot, MultiShotPart, Check, Cut, Music])
def test_every_field_is_described_with_its_default(model: type[Storyboard]) -> None:
    found = dict(definitions())[model.__name__]
    assert found["description"]
    assert found["additionalProperties"] is False
    assert list(found["properties"]) == list(model.model_fields)
    assert set(found.get("required", ())) == {name for name, field in model.model_fields.items() if field.is_required()}
    for name, said in found["properties"].items():
        assert said["description"], name
        if name not in found.get("required", ()):
            validator = Draft202012Validator({**said, "$defs": SCHEMA["$defs"]})
            assert validator.is_valid(said["default"]), name


def test_every_definition_is_described() -> None:
    assert [name for name, found in definitions() if not found.get("description") or not found.get("title")] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_validate(path: Path) -> None:
    assert mistakes(path.read_text("utf-8")) == []


def test_the_documented_storyboard_validates() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "storyboard.md").read_text("utf-8"), flags=re.DOTALL)
    assert mistakes(text) == []


def test_an_example_names_it_for_editors() -> None:
    first = (ROOT / "storyboards" / "lighthouse.yaml").read_text("utf-8").split("\n")[0]
    assert first == "# yaml-language-server: $schema=../docs/storyboard.schema.json"
    assert (ROOT / "storyboards" / first.partition("=")[2]).resolve() == FILE


SHOT = "title: T\nshots:\n  - id: a\n    prompt: x\n    "


@pytest.mark.parametrize(
    "field",
    [
        "sound: on",
        "sound: true",
        "keep_original_sound: no\n    feature: a.mp4",
        "keep_original_sound: false\n    feature: a.mp4",
        "in_cut: no",
        "in_cut: off",
        "in_cut: false",
        "fit: yes",
        "fit: true",
        "check: true",
        "check: {length: yes, black: 0.5, frozen: 2}",
        "check: {function: films.checks:sharp}",
        "images: {hafen_über: x.png}",
        "elements: [4711]",
        "elements: {lamp: 4711}",
        "multi_shot: intelligence",
        "aspect_ratio: 16:9",
        "max_retakes: 3",
        'duration: "{{ n }}"',
        'mode: "{{ m }}"',
        'elements: ["{{ n }}"]',
        'in_cut: "{{ yes_no }}"',
        "trim: [0.5, 4]",
        "trim: []",
        'trim: ["{{ n }}", 0]',
        "transition: crossfade",
        "transition: ''",
        'transition_length: "{{ n }}"',
        "caption: |\n      Two\n      lines",
    ],
)
def test_what_the_reader_takes_is_not_underlined(read: Read, field: str) -> None:
    values = {"n": "5", "m": "pro", "yes_no": "no"}
    read(SHOT + field, {name: value for name, value in values.items() if f"{{{{ {name} }}}}" in field})
    assert mistakes(SHOT + field) == []


@pytest.mark.parametrize(
    ("field", "at"),
    [
        ("promt: x", "$.shots[0]"),
        ("mode: prp", "$.shots[0].mode"),
        ("model: kling-v3", "$.shots[0].model"),
        ("sound: yes", "$.shots[0].sound"),
        ("sound: 1", "$.shots[0].sound"),
        ("keep_original_sound: on", "$.shots[0].keep_original_sound"),
        ("in_cut: maybe", "$.shots[0].in_cut"),
        ("duration: 16", "$.shots[0].duration"),
        ("duration: 4.5", "$.shots[0].duration"),
        ("takes: 0", "$.shots[0].takes"),
        ("images: [x.png]", "$.shots[0].images"),
        ("images: {p: ''}", "$.shots[0].images.p"),
        ("elements: lamp", "$.shots[0].elements"),
        ("multi_shot: smart", "$.shots[0].multi_shot"),
        ("multi_shot: [{prompt: x}]", "$.shots[0].multi_shot"),
        ("check: {blakc: 1}", "$.shots[0].check"),
        ("soften: softer", "$.shots[0].soften"),
        ("trim: [1, 2, 3]", "$.shots[0].trim"),
        ("trim: [1, soon]", "$.shots[0].trim[1]"),
        ("transition: dissolved", "$.shots[0].transition"),
        ("transition_length: 6", "$.shots[0].transition_length"),
        ("caption: [x]", "$.shots[0].caption"),
    ],
)
def test_what_the_reader_refuses_is_underlined(read: Read, field: str, at: str) -> None:
    with pytest.raises(StoryboardError):
        read(SHOT + field)
    assert mistakes(SHOT + field) == [at]


CUT = "title: T\nshots:\n  - id: a\n    prompt: x\ncut:\n  "


@pytest.mark.parametrize(
    "field",
    [
        "music: bed.mp3",
        "music: {file: bed.mp3, loop: no, gain: -6.5}",
        "sound: none",
        "sound: false",
        "sound: true",
        "size: 1080x1920",
        "size: ''",
        "transition: hblur",
        "loudness: -23",
        "loudness: 0",
        "poster_at: 2.5",
        "otio: yes",
        'fit: "{{ n }}"',
    ],
)
def test_what_the_reader_takes_of_a_cut_is_not_underlined(read: Read, field: str) -> None:
    read(CUT + field, {"n": "crop"} if "{{" in field else None)
    assert mistakes(CUT + field) == []


@pytest.mark.parametrize(
    ("field", "at"),
    [
        ("musik: bed.mp3", "$.cut"),
        ("music: [bed.mp3]", "$.cut.music"),
        ("music: {gian: 1}", "$.cut.music"),
        ("sound: clip", "$.cut.sound"),
        ("size: wide", "$.cut.size"),
        ("transition: faade", "$.cut.transition"),
        ("loudness: -40", "$.cut.loudness"),
        ("codec: hevc", "$.cut.codec"),
        ("fade_in: 11", "$.cut.fade_in"),
    ],
)
def test_what_the_reader_refuses_of_a_cut_is_underlined(read: Read, field: str, at: str) -> None:
    with pytest.raises(StoryboardError):
        read(CUT + field)
    assert mistakes(CUT + field) == [at]


@pytest.mark.parametrize("text", ["shots: [{id: a}]", "title: T", "title: T\nshots: []", "title: T\nshots: [{}]"])
def test_what_is_missing_is_underlined(text: str) -> None:
    assert len(mistakes(text)) == 1
