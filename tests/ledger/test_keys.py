"""Keys: pinned by hand, moved by everything that makes another video, and by nothing else."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import random
from typing import Any

import pytest
from pydantic import BaseModel

from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.gateway.requests import ImageInput, MultiPrompt, OmniVideoRequest, VideoInput
from prefect_kling.ledger.keys import KEY_VERSION, Identity, Place, base_key, canonical, key_of
from prefect_kling.ledger.purchases import Order

PICTURE = base64.b64encode(b"a picture").decode()
SHA_OF_PICTURE = hashlib.sha256(b"a picture").hexdigest()
SHA = "c0ffee" + 58 * "0"
IMAGE: Place = ("image_list", 0, "image_url")
VIDEO: Place = ("video_list", 0, "video_url")

TEXT = {"model": "kling-v3-omni", "prompt": "A fox", "mode": "std", "duration": "5", "aspect_ratio": "16:9"}
EDIT = {
    "model": "kling-v3-omni",
    "prompt": "At night",
    "mode": "std",
    "video_list": [{"video_url": "https://cdn.example.com/r/1.mp4?sig=abc", "refer_type": "base"}],
}
FRAME = {
    "model": "kling-v3-omni",
    "prompt": "He goes on",
    "mode": "std",
    "duration": "5",
    "image_list": [{"image_url": "https://files.example.com/x.png", "type": "first_frame"}],
}
PLAIN_IMAGE = {**TEXT, "image_list": [{"image_url": "https://films.example.com/harbour.png"}]}
SHOTS = {
    "model": "kling-v3-omni",
    "mode": "pro",
    "duration": "6",
    "aspect_ratio": "9:16",
    "multi_shot": True,
    "shot_type": "customize",
    "multi_prompt": [
        {"index": 1, "prompt": "A door", "duration": "2"},
        {"index": 2, "prompt": "A room", "duration": "4"},
    ],
}

# Never changed: whoever changes them buys everything anew. A new version of the key gets new rows.
GOLDEN: dict[str, tuple[dict[str, Any], dict[Place, Identity], str]] = {
    "text": (TEXT, {}, "17fe65ff55d24886bae0e67379c6e9d31aa973483eb8c22921691eb864da959b"),
    "base edit of a clip": (
        EDIT,
        {VIDEO: ("clip", SHA)},
        "aadb18696ac943714a145f83e81a0d40c92c9aaccd4a6f21be34ff709526a000",
    ),
    "last frame of a clip": (
        FRAME,
        {IMAGE: ("last-frame", SHA)},
        "fa5e2053131a3d4487dd66c3c353f028ae7d68e9588c96c57159bf1aab0c96bd",
    ),
    "local image": (
        PLAIN_IMAGE,
        {IMAGE: ("file", SHA)},
        "5d34763e566309b509fe800e4ee36b61522deed311022cd0b81ed50566e53551",
    ),
    "the user's own URL": (PLAIN_IMAGE, {}, "4ed59500e561a380da84e1169221c04e2cd5c27c83f64465ff68a72605c5b003"),
    "Base64": (
        {**PLAIN_IMAGE, "image_list": [{"image_url": PICTURE}]},
        {},
        "ae6ec90c42d6a73bf021b07c57b12e2f4a39d50e3dd6b4e5bf50f9e87d3d0c29",
    ),
    "several shots": (SHOTS, {}, "5270edaf92c17ccec6f96dff03cc3319c25da901a9ffa6fa1a13780136f86aa5"),
    "words beyond ASCII": (
        {**TEXT, "prompt": "Ein Füchslein 🦊"},
        {},
        "e204cc7c0b62ca73429543377fca3b35ac93e1c0039ea81832ba1646e1b050ce",
    ),
}


def key(body: dict[str, Any], identities: dict[Place, Identity] | None = None) -> str:
    return base_key(canonical(body, identities))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_keys(name: str) -> None:
    body, identities, expected = GOLDEN[name]
    assert key(body, identities) == f"{KEY_VERSION}:{expected}"


def test_the_key_version_is_said() -> None:
    assert KEY_VERSION == "k1"


@pytest.mark.parametrize("body", [TEXT, EDIT, FRAME, SHOTS])
def test_a_body_as_sent_is_what_is_hashed(body: dict[str, Any]) -> None:
    assert OmniVideoRequest.model_validate(body).body() == body


def test_takes_are_told_apart_and_belong_together() -> None:
    base = key(TEXT)
    assert key_of(base, 1) == f"{base}#1"
    assert key_of(base, 2) == f"{base}#2"


# By field: a body, and the same with another value there.
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "model": (TEXT, {"model": "kling-video-o1"}),
    "prompt": (TEXT, {"prompt": "A fox "}),
    "image_list": (TEXT, {"image_list": [{"image_url": "https://films.example.com/b.png"}]}),
    "video_list": (EDIT, {"video_list": [{"video_url": "https://films.example.com/b.mp4", "refer_type": "base"}]}),
    "element_list": (TEXT, {"element_list": [{"element_id": 1}]}),
    "mode": (TEXT, {"mode": "pro"}),
    "duration": (TEXT, {"duration": "6"}),
    "aspect_ratio": (TEXT, {"aspect_ratio": "1:1"}),
    "sound": (TEXT, {"sound": "on"}),
    "multi_shot": (TEXT, {"multi_shot": True, "shot_type": "intelligence"}),
    "shot_type": (SHOTS, {"shot_type": "intelligence", "prompt": "A house"}),
    "multi_prompt": (SHOTS, {"multi_prompt": list(reversed(SHOTS["multi_prompt"]))}),  # type: ignore[call-overload]
    "external_task_id": (TEXT, {"external_task_id": "mine"}),
    "watermark_info": (TEXT, {"watermark_info": {"enabled": True}}),
}
IRRELEVANT = {"callback_url": "where the gateway calls back is no part of the picture, and holds each purchase's token"}


def test_every_field_of_a_request_is_in_the_key_or_irrelevant_for_a_reason() -> None:
    assert not CHANGES.keys() & IRRELEVANT.keys()
    assert CHANGES.keys() | IRRELEVANT.keys() == OmniVideoRequest.model_fields.keys()
    assert all(IRRELEVANT.values())


@pytest.mark.parametrize("field", CHANGES)
def test_another_value_is_another_video(field: str) -> None:
    body, change = CHANGES[field]
    assert key({**body, **change}) != key(body)


@pytest.mark.parametrize("field", IRRELEVANT)
def test_what_is_irrelevant_is_left_out(field: str) -> None:
    assert key({**TEXT, field: "https://hooks.example.com/kling/0123456789abcdef"}) == key(TEXT)
    assert field not in canonical({**TEXT, field: "x"})


PARTS: list[tuple[type[BaseModel], dict[str, Any], tuple[str, int], dict[str, Any]]] = [
    (ImageInput, FRAME, ("image_list", 0), {"image_url": "https://files.example.com/y.png", "type": "end_frame"}),
    (
        VideoInput,
        EDIT,
        ("video_list", 0),
        {"video_url": "https://cdn.example.com/r/2.mp4", "refer_type": "feature", "keep_original_sound": "yes"},
    ),
    (MultiPrompt, SHOTS, ("multi_prompt", 1), {"index": 3, "prompt": "A hall", "duration": "3"}),
]


@pytest.mark.parametrize(("kind", "body", "place", "others"), PARTS)
def test_every_field_of_the_parts_is_in_the_key(
    kind: type[BaseModel], body: dict[str, Any], place: tuple[str, int], others: dict[str, Any]
) -> None:
    assert others.keys() == kind.model_fields.keys()
    for field, value in others.items():
        changed = copy.deepcopy(body)
        changed[place[0]][place[1]][field] = value
        assert key(changed) != key(body), field


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same JSON with its fields in another order."""
    if isinstance(value, dict):
        names = list(value)
        rng.shuffle(names)
        return {name: shuffled(value[name], rng) for name in names}
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("body", [TEXT, EDIT, FRAME, SHOTS])
def test_the_order_of_fields_is_no_matter(body: dict[str, Any]) -> None:
    rng = random.Random(7)
    assert {key(shuffled(body, rng)) for _ in range(20)} == {key(body)}


def test_the_order_of_images_is() -> None:
    images = [{"image_url": f"https://films.example.com/{name}.png"} for name in "ab"]
    assert key({**TEXT, "image_list": images}) != key({**TEXT, "image_list": images[::-1]})


def test_an_upstream_clip_is_its_content_wherever_it_is_hosted_now() -> None:
    elsewhere = {**EDIT, "video_list": [{"video_url": "https://files.example.com/up.mp4", "refer_type": "base"}]}
    clip: Identity = ("clip", SHA)
    assert key(EDIT, {VIDEO: clip}) == key(elsewhere, {VIDEO: clip})
    assert key(EDIT) != key(elsewhere)
    assert key(EDIT, {VIDEO: clip}) != key(EDIT, {VIDEO: ("clip", SHA[::-1])})


def test_what_is_taken_from_a_clip_is_in_the_key() -> None:
    kinds = [key(FRAME, {IMAGE: (kind, SHA)}) for kind in ("clip", "last-frame", "file", "url")]
    assert len(set(kinds)) == 4


def test_a_file_is_its_content_uploaded_or_sent_as_base64() -> None:
    sent = {**PLAIN_IMAGE, "image_list": [{"image_url": PICTURE}]}
    assert key(sent) == key(PLAIN_IMAGE, {IMAGE: ("file", SHA_OF_PICTURE)})


def test_what_the_ledger_keeps_names_everything_and_carries_no_picture() -> None:
    body = {**PLAIN_IMAGE, "image_list": [{"image_url": PICTURE}, {"image_url": "https://films.example.com/a.png"}]}
    before = copy.deepcopy(body)
    found = canonical(body)
    assert found["image_list"] == [
        {"image_url": {"file": SHA_OF_PICTURE}},
        {"image_url": {"url": "https://films.example.com/a.png"}},
    ]
    assert PICTURE not in json.dumps(found)
    assert body == before


@pytest.mark.parametrize("edition", ["", "x" * 256, "a\0b", "two\nlines"])
def test_an_edition_that_a_database_cannot_hold_is_refused(edition: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 255 printable characters"):
        Order(edition, "k1:0#1", {}, "kling-v3-omni", 5, 1000)
