"""The models: bounds, the form's schema, names of folders."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prefect_kling.storyboard.document import Cut, Defaults, MultiShotPart, Music, Shot, Storyboard, repeated_ids, slug


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Lighthouse", "lighthouse"),
        ("  A  Film:  part/2 ", "a-film-part-2"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "film"),
        ("", "film"),
        ("🎬", "film"),
        (".hidden", "hidden"),
        ("港の夜", "港の夜"),
        ("हिन्दी", "हिन्दी"),
        ("\uff26\uff29\uff2c\uff2d", "film"),
        ("a\0b\nc", "a-b-c"),
        ("CON", "con-film"),
        ("lpt1", "lpt1-film"),
        ("x" * 300, "x" * 80),
        ("é" * 300, "é" * 40),
    ],
)
def test_a_title_gives_a_folder_name(title: str, name: str) -> None:
    assert slug(title) == name


@given(st.text())
def test_a_folder_name_is_never_empty_a_path_or_hidden(title: str) -> None:
    name = slug(title)
    assert name
    assert len(name.encode()) <= 85
    assert not set(name) & set('/\\:*?"<>|\0 ')
    assert not name.startswith((".", "-"))
    assert slug(name) == name or name.endswith("-film")


def test_ids_used_again_are_found_with_their_first_use() -> None:
    assert repeated_ids(["a", "b", "a", "c", "b", "a"]) == [(2, 0), (4, 1), (5, 0)]


def test_a_storyboard_made_in_python_has_different_ids() -> None:
    with pytest.raises(ValidationError, match="shots 1 and 2 have the same id 'a'"):
        Storyboard(title="T", shots=[Shot(id="a"), Shot(id="a")])


@pytest.mark.parametrize("model", [Storyboard, Shot, Defaults, Cut, Music, MultiShotPart])
def test_every_field_is_described_and_no_unknown_one_taken(model: type[Any]) -> None:
    schema = model.model_json_schema()
    assert schema["additionalProperties"] is False
    assert [name for name, field in schema["properties"].items() if not field.get("description")] == []


def test_the_schema_is_one_that_prefects_form_can_draw() -> None:
    """Optional fields and discriminated unions are what it draws badly or not at all."""
    text = json.dumps(Storyboard.model_json_schema())
    assert '"null"' not in text
    assert "discriminator" not in text
    assert Storyboard.model_json_schema()["required"] == ["title", "shots"]


@pytest.mark.parametrize("name", ["a", "A-1_b", "7", "x" * 64])
def test_ids(name: str) -> None:
    assert Shot(id=name).id == name


@pytest.mark.parametrize("name", ["", "-a", "_a", "a b", "a.b", "é", "x" * 65, "a\n", "../a"])
def test_no_ids(name: str) -> None:
    with pytest.raises(ValidationError):
        Shot(id=name)


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("sound", True, "on"),
        ("sound", False, "off"),
        ("sound", "on", "on"),
        ("sound", "false", "off"),
        ("keep_original_sound", True, "yes"),
        ("keep_original_sound", False, "no"),
        ("keep_original_sound", "yes", "yes"),
        ("duration", 7, 7),
        ("duration", "7", 7),
        ("in_cut", False, False),
        ("in_cut", "no", False),
        ("elements", ["12", 13], [12, 13]),
        ("elements", {"keeper": 12}, {"keeper": 12}),
        ("multi_shot", "intelligence", "intelligence"),
        ("trim", [], []),
        ("trim", ["0.5", 2], [0.5, 2]),
        ("transition_length", "0.25", 0.25),
    ],
)
def test_values_are_taken_as_people_write_them(field: str, given: object, kept: object) -> None:
    assert getattr(Shot.model_validate({"id": "a", field: given}), field) == kept


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sound", 1), ("sound", "loud"), ("sound", None), ("sound", []),
        ("duration", True), ("duration", 5.0), ("duration", "5 s"), ("duration", 16), ("duration", None),
        ("elements", [True]), ("elements", [0]), ("elements", [2**63]), ("elements", {"a b": 1}), ("elements", "12"),
        ("images", {"a": ""}), ("images", {"1a": "x"}), ("images", ["x"]),
        ("trim", [1]), ("trim", [1, 2, 3]), ("trim", 2), ("trim", [-1, 2]), ("trim", [True, 2]), ("trim", None),
        ("transition", "none"), ("transition_length", 5.1), ("transition_length", "nan"), ("caption", "x" * 501),
    ],
)  # fmt: skip
def test_values_that_mean_nothing_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Shot.model_validate({"id": "a", field: value})


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("sound", False, "none"),
        ("sound", "true", "clips"),
        ("music", "bed.mp3", Music(file="bed.mp3")),
        ("music", {"file": "bed.mp3", "gain": "-6.5", "loop": "no"}, Music(file="bed.mp3", gain=-6.5, loop=False)),
        ("loudness", "-23", -23),
        ("loudness", 0, 0),
        ("loudness", -6, -6),
        ("poster_at", -1, -1),
        ("poster_at", 0, 0),
        ("size", "64x4096", "64x4096"),
        ("size", "2250x4000", "2250x4000"),
        ("otio", "yes", True),
    ],
)
def test_a_cut_is_taken_as_people_write_it(field: str, given: object, kept: object) -> None:
    assert getattr(Cut.model_validate({field: given}), field) == kept


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sound", 0), ("sound", "off"), ("music", ["bed.mp3"]), ("music", None), ("music", {"gain": 13}),
        ("loudness", -37), ("loudness", -5.9), ("loudness", -0.1), ("loudness", 3), ("loudness", "nan"),
        ("loudness", True), ("poster_at", -0.5), ("poster_at", -2), ("poster_at", "inf"),
        ("size", "1081x1920"), ("size", "62x64"), ("size", "64x4098"), ("size", "3002x3000"), ("size", "1080 x 1920"),
        ("size", "1080x1920\n"), ("size", 1080), ("transition", ""), ("transition_length", 0), ("title", "x" * 201),
    ],
)  # fmt: skip
def test_a_cut_that_means_nothing_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Cut.model_validate({field: value})


def test_the_models_are_cheap_to_import() -> None:
    """The command's help and Prefect's form need them; YAML, Jinja2 and fsspec they do not need."""
    heavy = "{'yaml', 'ruamel', 'jinja2', 'fsspec', 'prefect', 'PIL'}"
    code = f"import sys; import prefect_kling.storyboard.document; print({heavy} & set(sys.modules))"
    before = "import sys; import prefect_kling.gateway.requests; " + f"print({heavy} & set(sys.modules))"
    found = [
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True) for c in (code, before)
    ]
    assert found[0].stdout == found[1].stdout == "set()\n"
