"""The table of raw bodies against the request model, and the body that is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from prefect_kling.gateway import requests, rules
from prefect_kling.gateway.requests import ElementInput, ImageInput, MultiPrompt, OmniVideoRequest, VideoInput

TEXT = {"model": "kling-v3-omni", "prompt": "A fox", "aspect_ratio": "16:9"}
VIDEO = {"video_url": "https://example.com/a.mp4", "refer_type": "base"}
EDIT = {"model": "kling-v3-omni", "prompt": "Make it night", "video_list": [VIDEO]}


def refusals(body: dict[str, Any], **context: bool) -> set[tuple[str, str]]:
    """`(rule or "table", top-level field)` for everything that is wrong with a body."""
    try:
        OmniVideoRequest.model_validate(body, context=context)
    except ValidationError as error:
        found = set()
        for e in error.errors():
            if e["type"] == "rules":
                found |= {(_rule(rule), field.partition(".")[0]) for field, rule, _ in e["ctx"]["broken"]}
            else:
                found.add((e.get("ctx", {}).get("rule", "table"), str(e["loc"][0])))
        return found
    return set()


def _rule(rule: str) -> str:
    return rule if rule.isdigit() else "table"


def test_every_row_of_the_table_gets_the_verdict_gateway_md_gives(raw_body: dict[str, Any]) -> None:
    found = refusals(raw_body["body"])
    if "refused" in raw_body:
        wanted = (raw_body["refused"], raw_body["field"])
        # What makes an address unfit for a callback (https, public) is one row of the table and rule 9 at once.
        assert wanted in found or (raw_body["field"] == "callback_url" and found == {("9", "callback_url")})
        return
    assert not found
    said = OmniVideoRequest.model_validate(raw_body["body"]).warnings()
    assert {text.partition(":")[0] for text in said} == ({raw_body["warned"]} if "warned" in raw_body else set())


def test_a_gateway_on_loopback_gives_the_same_verdicts_but_for_loopback_addresses(raw_body: dict[str, Any]) -> None:
    match raw_body.get("loopback"):
        case "any":
            return
        case "accepted":
            assert not refusals(raw_body["body"], loopback=True)
        case _:
            assert refusals(raw_body["body"], loopback=True) == refusals(raw_body["body"])


def test_json_text_gets_the_same_verdict_as_values(raw_body: dict[str, Any]) -> None:
    try:
        OmniVideoRequest.model_validate_json(json.dumps(raw_body["body"]))
    except ValidationError:
        assert "refused" in raw_body
    else:
        assert "refused" not in raw_body


def test_the_table_names_each_row_once_and_is_long_enough(raw_bodies: list[dict[str, Any]]) -> None:
    assert len(raw_bodies) == len({row["name"] for row in raw_bodies}) >= 120


@pytest.mark.parametrize("rule", ["table", *map(str, range(1, 11))])
def test_every_rule_has_a_row_that_breaks_it(raw_bodies: list[dict[str, Any]], rule: str) -> None:
    assert any(row.get("refused") == rule for row in raw_bodies)


@pytest.mark.parametrize(
    ("model", "place"),
    [
        (OmniVideoRequest, None),
        (ImageInput, "image_list"),
        (VideoInput, "video_list"),
        (ElementInput, "element_list"),
        (MultiPrompt, "multi_prompt"),
    ],
)
def test_every_field_of_the_model_is_in_the_table(
    raw_bodies: list[dict[str, Any]], model: type[BaseModel], place: str | None
) -> None:
    accepted = [row["body"] for row in raw_bodies if "refused" not in row]
    parts = accepted if place is None else [part for body in accepted for part in body.get(place, [])]
    assert {field for part in parts for field in part} == set(model.model_fields)


def test_every_model_of_a_part_is_covered_by_the_test_above() -> None:
    models = {value for value in vars(requests).values() if isinstance(value, type) and issubclass(value, BaseModel)}
    public = {model for model in models if not model.__name__.startswith("_")} - {BaseModel}
    assert public == {OmniVideoRequest, ImageInput, VideoInput, ElementInput, MultiPrompt}


def test_several_broken_rules_are_told_at_once() -> None:
    body = {"model": "kling-video-o1", "element_list": [{"element_id": 1}] * 8, "duration": "11"}
    assert refusals(body) == {
        ("1", "prompt"),
        ("2", "aspect_ratio"),
        ("6", "element_list"),
        ("table", "duration"),
    }


def test_a_refusal_names_the_field_and_what_it_breaks_in_words() -> None:
    with pytest.raises(ValidationError, match=r"aspect_ratio: needed unless there is a first_frame image"):
        OmniVideoRequest.model_validate({"model": "kling-v3-omni", "prompt": "A fox"})


def test_the_schema_offers_the_lengths_that_some_model_takes() -> None:
    lengths = {str(n) for least, most in rules.SECONDS.values() for n in range(least, most + 1)}
    assert set(OmniVideoRequest.model_json_schema()["properties"]["duration"]["enum"]) == lengths


def test_a_refused_image_is_not_repeated_in_full() -> None:
    with pytest.raises(ValidationError) as caught:
        OmniVideoRequest.model_validate({**TEXT, "image_list": [{"image_url": "A" * 100_000}]})
    assert all(len(e["msg"]) < 500 for e in caught.value.errors())


@pytest.mark.parametrize("url", ["http://127.0.0.1/a.mp4", "http://localhost:1/a.mp4", "http://[::1]/a.mp4"])
def test_loopback_is_off_unless_the_context_says_so(url: str) -> None:
    body = {**EDIT, "video_list": [{"video_url": url}]}
    assert refusals(body) == refusals(body, loopback=False) == {("9", "video_list")}
    assert refusals(body, loopback=True) == set()


def test_loopback_holds_for_http_and_every_url() -> None:
    body = {
        **TEXT,
        "image_list": [{"image_url": "http://127.0.0.1:8000/a.png"}],
        "video_list": [{"video_url": "http://127.0.0.1:8000/a.mp4", "refer_type": "feature"}],
        "callback_url": "http://127.0.0.1:9000/kling/x",
    }
    assert {field for _, field in refusals(body)} == {"image_list", "video_list", "callback_url"}
    assert refusals(body, loopback=True) == set()


def test_loopback_does_not_excuse_other_private_addresses() -> None:
    assert refusals({**TEXT, "callback_url": "http://10.0.0.1/kling"}, loopback=True) == {("9", "callback_url")}
    assert refusals({**TEXT, "callback_url": "http://example.com/kling"}, loopback=True) == {("9", "callback_url")}


def test_the_body_always_says_mode_and_duration() -> None:
    assert OmniVideoRequest.model_validate(TEXT).body() == {**TEXT, "mode": "std", "duration": "5"}


def test_the_body_says_what_was_asked_for() -> None:
    asked = {**TEXT, "mode": "pro", "duration": "12", "sound": "off", "external_task_id": "x"}
    assert OmniVideoRequest.model_validate(asked).body() == asked


@pytest.mark.parametrize("video", [VIDEO, {"video_url": VIDEO["video_url"]}])
def test_a_base_edit_is_sent_without_duration_and_aspect_ratio(video: dict[str, str]) -> None:
    asked = {**EDIT, "video_list": [video], "duration": "5", "aspect_ratio": "16:9"}
    assert OmniVideoRequest.model_validate(asked).body() == {**EDIT, "video_list": [video], "mode": "std"}


def test_a_feature_video_is_sent_with_duration_and_aspect_ratio() -> None:
    asked = {**TEXT, "video_list": [{**VIDEO, "refer_type": "feature"}], "duration": "7", "mode": "std"}
    assert OmniVideoRequest.model_validate(asked).body() == asked


def test_the_body_keeps_the_order_of_inputs() -> None:
    images = [{"image_url": f"https://example.com/{n}.png"} for n in (3, 1, 2)]
    elements = [{"element_id": n} for n in (9, 7, 8)]
    body = OmniVideoRequest.model_validate({**TEXT, "image_list": images, "element_list": elements}).body()
    assert body["image_list"] == images
    assert body["element_list"] == elements


def test_the_body_of_every_accepted_row_says_the_same_again(raw_body: dict[str, Any]) -> None:
    if "refused" in raw_body:
        return
    asked = OmniVideoRequest.model_validate(raw_body["body"])
    body = asked.body()
    assert set(body) <= {*raw_body["body"], "mode", "duration"}
    assert OmniVideoRequest.model_validate(body).body() == body
    assert OmniVideoRequest.model_validate(json.loads(json.dumps(body))).body() == body
    assert "null" not in json.dumps({**body, "prompt": "", "watermark_info": {}})
    for field, value in raw_body["body"].items():
        assert body.get(field, value) == value


def test_fields_left_out_and_fields_set_to_none_are_the_same_request() -> None:
    whole = OmniVideoRequest.model_validate(OmniVideoRequest.model_validate(TEXT).model_dump())
    assert whole == OmniVideoRequest.model_validate(TEXT)


def test_what_a_user_puts_into_watermark_info_is_sent_untouched() -> None:
    info = {"enabled": None, "places": [None, {"x": 1}]}
    assert OmniVideoRequest.model_validate({**TEXT, "watermark_info": info}).body()["watermark_info"] == info


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), "\ud800", b"x"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    assert refusals({**TEXT, "watermark_info": {"x": value}}) == {("table", "watermark_info")}


def test_a_lone_surrogate_is_refused() -> None:
    assert refusals({**TEXT, "prompt": "\ud800"}) == {("table", "prompt")}


@pytest.mark.parametrize(
    "part",
    [
        OmniVideoRequest.model_validate(TEXT),
        ImageInput(image_url="https://example.com/a.png"),
        VideoInput(video_url="https://example.com/a.mp4"),
        ElementInput(element_id=1),
        MultiPrompt(index=1, prompt="a", duration="5"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_request_cannot_be_changed_behind_the_rules(part: BaseModel) -> None:
    for field in type(part).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, field, getattr(part, field))


def test_changing_the_callers_lists_changes_no_request() -> None:
    images = [{"image_url": "https://example.com/a.png"}]
    request = OmniVideoRequest.model_validate({**TEXT, "image_list": images})
    images.append({"image_url": "https://example.com/b.png"})
    assert len(request.body()["image_list"]) == 1


def test_changing_a_body_changes_no_request() -> None:
    request = OmniVideoRequest.model_validate(EDIT)
    request.body()["video_list"].clear()
    assert len(request.body()["video_list"]) == 1


@pytest.mark.parametrize(
    ("video", "base", "feature"),
    [(None, False, False), ("base", True, False), ("feature", False, True), ("unsaid", True, False)],
)
def test_a_video_is_base_unless_called_feature(video: str | None, base: bool, feature: bool) -> None:
    videos = [] if video is None else [{**VIDEO, "refer_type": None if video == "unsaid" else video}]
    request = OmniVideoRequest.model_validate({**TEXT, "video_list": videos})
    assert (request.base_video is not None, request.feature_video is not None) == (base, feature)


@pytest.mark.parametrize(
    ("body", "seconds"), [(TEXT, 5), ({**TEXT, "duration": "15"}, 15), ({**EDIT, "duration": "7"}, None)]
)
def test_a_request_knows_the_seconds_it_is_billed_by(body: dict[str, Any], seconds: int | None) -> None:
    assert OmniVideoRequest.model_validate(body).seconds == seconds


def test_the_images_with_a_place_are_found() -> None:
    frames = [{"image_url": f"https://example.com/{kind}.png", "type": kind} for kind in ("end_frame", "first_frame")]
    request = OmniVideoRequest.model_validate({**TEXT, "image_list": frames})
    first, end = request.image("first_frame"), request.image("end_frame")
    assert first is not None
    assert end is not None
    assert (first.image_url, end.image_url) == (
        "https://example.com/first_frame.png",
        "https://example.com/end_frame.png",
    )
    assert OmniVideoRequest.model_validate(TEXT).image("first_frame") is None


# A few signs that matter; the whole of Unicode takes seconds to load.
SIGNS = 'a15:/."\\é狐 '
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(SIGNS, max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(SIGNS, max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*OmniVideoRequest.model_fields, "x"]), json_values))
def test_any_json_is_either_accepted_or_refused_with_a_validation_error(fields: dict[str, Any]) -> None:
    refusals(fields)
    refusals({**TEXT, **fields})
