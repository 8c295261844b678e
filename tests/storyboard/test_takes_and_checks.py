"""What a document says of takes, checks, softer words, fitting and drafts, as the plan has it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from prefect_kling.gateway.errors import InvalidRequest, StoryboardError
from prefect_kling.storyboard.document import LONGEST_BLACK, LONGEST_FROZEN, Check, Defaults, Shot, Storyboard
from prefect_kling.storyboard.drafts import draft_edition, draft_of
from prefect_kling.storyboard.plan import Plan, images_to_fit, plan
from prefect_kling.storyboard.reader import document_of, read_storyboard

PIC = "https://example.com/pic.png"
ALL = Check(length=True, size=True, frames=True, decodes=True, sound=True, black=LONGEST_BLACK, frozen=LONGEST_FROZEN)


def planned(*shots: dict[str, Any], look: str = "", defaults: dict[str, Any] | None = None) -> Plan:
    named = [{"id": "abcdefgh"[n], "prompt": "x"} | shot for n, shot in enumerate(shots)]
    board = {"title": "T", "look": look, "defaults": defaults or {}, "shots": named}
    return plan(document_of(Storyboard.model_validate(board)))


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (True, ALL),
        ("true", ALL),
        (False, Check(off=True)),
        ("false", Check(off=True)),
        ({}, Check()),
        ({"black": "0.25", "function": "a.b:c"}, Check(black=0.25, function="a.b:c")),
    ],
)
def test_a_check_may_be_said_in_a_word(said: Any, means: Check) -> None:
    assert Shot.model_validate({"id": "a", "check": said}).check == means
    assert Defaults.model_validate({"check": said}).check == means


@pytest.mark.parametrize(
    "said", ["yes", 1, ["black"], {"black": True}, {"black": -1}, {"black": 16}, {"blck": 1}, {"function": "os"}]
)
def test_a_check_that_is_none_is_refused(said: Any) -> None:
    with pytest.raises(ValidationError):
        Shot.model_validate({"id": "a", "check": said})


def test_a_shots_check_takes_the_place_of_the_defaults() -> None:
    shots: list[dict[str, Any]] = [{}, {"check": {"sound": True}}, {"check": False}]
    found = [shot.check for shot in planned(*shots, defaults={"check": True}).shots]
    assert found == [ALL, Check(sound=True), Check(off=True)]


def test_retakes_and_fitting_come_from_the_defaults_where_the_shot_is_silent() -> None:
    shots = planned({}, {"max_retakes": 0, "fit": False}, defaults={"max_retakes": 3, "fit": "yes"}).shots
    assert [(shot.max_retakes, shot.fit) for shot in shots] == [(3, True), (0, False)]
    assert [(shot.max_retakes, shot.fit) for shot in planned({}, {"fit": True}).shots] == [(0, False), (0, True)]


def test_softer_words_are_a_shots_request_in_all_but_the_prompt() -> None:
    (shot,) = planned({"images": {"coast": PIC}, "soften": ["the {coast}", "a coast"]}, look="16mm").shots
    assert [request.prompt for request in shot.softer] == ["the <<<image_1>>>, 16mm", "a coast, 16mm"]
    own = shot.request.body() | {"prompt": "a coast, 16mm"}
    assert shot.filled({}, wording=2).body() == own


def test_softer_words_are_checked_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(
        "title: T\nlook: l\nshots:\n  - id: a\n    prompt: x\n    soften:\n      - fine\n      - a {cost}\n"
        f"      - {'y' * 2499}\n    sound: on\n    base: https://example.com/c.mp4\n"
    )
    with pytest.raises(StoryboardError) as caught:
        plan(read_storyboard(path))
    lines = [line.removeprefix(f"{path}:") for line in str(caught.value).split("\n")]
    assert [line.split(":")[0] for line in lines] == ["8", "9", "10"], lines
    assert "soften" in lines[0]
    assert "cost" in lines[0]
    assert "2,502 characters" in lines[1]
    assert "'on' cannot go with a video" in lines[2]


def test_softer_words_need_words() -> None:
    parts = [{"prompt": "one", "duration": 3}, {"prompt": "two", "duration": 2}]
    with pytest.raises(StoryboardError, match="soften: there is no prompt"):
        planned({"prompt": "", "multi_shot": parts, "soften": ["x"]})


def warned(*shots: dict[str, Any]) -> list[bool]:
    return [any("get softer" in warning for warning in shot.warnings) for shot in planned(*shots).shots]


def test_a_chain_of_clips_that_get_softer_is_warned_of_past_four() -> None:
    chain = [{"continues": "abcdefg"[n]} for n in range(6)]
    assert warned({}, *chain) == [False] * 5 + [True] * 2
    assert warned({}, *chain[:2], {"base": "c"}, {"first_frame": "d"}, {"base": "e"}) == [False] * 5 + [True]


@pytest.mark.parametrize("anchor", [{"images": {"coast": PIC}}, {"elements": [4711]}])
def test_a_reference_anchors_the_look_again(anchor: dict[str, Any]) -> None:
    chain = [{"continues": "abcdefg"[n]} for n in range(6)]
    chain[3] |= anchor
    assert warned({}, *chain) == [False] * 7


def test_a_next_shot_in_a_look_is_no_hop() -> None:
    chain = [{"continues": "abcdefg"[n]} for n in range(4)]
    assert warned({}, *chain, {"feature": "e"}, {"continues": "f"}) == [False] * 7


def test_the_plan_of_some_shots_has_what_they_need_and_shows_just_them() -> None:
    whole = planned({}, {"base": "a"}, {"in_cut": False}, {"feature": "c"}, {})
    part = whole.only(["d", "b"])
    assert [(shot.id, shot.in_cut) for shot in part.shots] == [("a", False), ("b", True), ("c", False), ("d", True)]
    assert [shot.id for shot in part.order] == ["a", "b", "c", "d"]
    assert part.critical_path in {("a", "b"), ("c", "d")}
    assert part.usd == 4 * Decimal("0.0633") * 5
    assert [shot.in_cut for shot in whole.only(["c"]).shots] == [True]


def test_a_draft_is_cheap_and_another_document() -> None:
    shots = [
        {"id": "a", "prompt": "x", "mode": "pro", "takes": 3, "take": 2, "max_retakes": 2},
        {"id": "b", "prompt": "y"},
    ]
    document = document_of(
        Storyboard.model_validate({"title": "T", "defaults": {"mode": "pro", "max_retakes": 1}, "shots": shots})
    )
    draft = draft_of(document)
    found = plan(draft).shots
    assert [(s.request.mode, s.takes, s.take, s.max_retakes) for s in found] == [("std", 1, 0, 0)] * 2
    assert draft.digest != document.digest
    assert plan(draft).usd == 2 * 5 * Decimal("0.0633")
    assert [draft_edition(name) for name in ("main", "monday")] == ["draft", "monday-draft"]


@pytest.fixture
def odd(tmp_path: Path) -> Callable[..., Path]:
    """A storyboard with an image that the gateway would not take, and what it says of fitting."""
    Image.new("RGB", (900, 200), "teal").save(tmp_path / "wide.png")

    def write(fit: str) -> Path:
        path = tmp_path / "board.yaml"
        path.write_text(
            f"title: T\nshots:\n  - id: a\n    prompt: x\n    images:\n      wide: wide.png\n    fit: {fit}\n"
        )
        return path

    return write


def test_an_image_that_does_not_fit_is_told_unless_it_is_made_to(odd: Callable[..., Path]) -> None:
    strict = read_storyboard(odd("no"))
    assert images_to_fit(strict) == ()
    with pytest.raises(StoryboardError, match=r"wide\.png' cannot be sent: it is 900x200 pixels"):
        plan(strict)
    fitting = read_storyboard(odd("yes"))
    (source,) = images_to_fit(fitting)
    assert Path(source).name == "wide.png"
    assert plan(fitting, fitting={source: None}).shots[0].fit
    with pytest.raises(StoryboardError, match=r"wide\.png' cannot be sent: it is broken"):
        plan(fitting, fitting={source: "it is broken"})


def test_a_request_that_is_wrong_in_softer_words_is_told_when_it_is_filled() -> None:
    (shot,) = planned({"images": {"coast": PIC}, "soften": ["a coast"]}).shots
    (entry,) = shot.inputs
    with pytest.raises(InvalidRequest, match="shot 'a' was not sent"):
        shot.filled({entry.place: "http://127.0.0.1/x.png"}, wording=1)
