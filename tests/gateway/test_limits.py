"""Limits on images and videos, both sides of each (gateway.md, `image_list[]` and `video_list[]`)."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.gateway.limits import (
    ImageFacts,
    VideoFacts,
    image_facts,
    image_facts_of_base64,
    image_refusal,
    video_refusal,
)

IMAGE = ImageFacts("PNG", 1280, 720, 100_000)
VIDEO = VideoFacts(5.04, 1280, 720, 24.0, 3_000_000)


def encoded(kind: str, width: int = 300, height: int = 300) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, True),
        ({"format": "JPEG"}, True),
        ({"format": "MPO"}, True),
        ({"format": "WEBP"}, False),
        ({"format": "GIF"}, False),
        ({"format": "HEIF"}, False),
        ({"bytes": 10_000_000}, True),
        ({"bytes": 10 * 1024 * 1024 + 1}, False),
        ({"width": 300, "height": 300}, True),
        ({"width": 299, "height": 300}, False),
        ({"width": 300, "height": 299}, False),
        ({"width": 750, "height": 300}, True),
        ({"width": 751, "height": 300}, False),
        ({"width": 300, "height": 750}, True),
        ({"width": 300, "height": 751}, False),
        ({"width": 2500, "height": 1000}, True),
        ({"width": 2501, "height": 1000}, False),
        ({"width": 10_000, "height": 10_000}, True),
    ],
)
def test_images(change: dict[str, str | int], taken: bool) -> None:
    facts = dataclasses.replace(IMAGE, **change)  # type: ignore[arg-type] # the table mixes fields of two types
    assert (image_refusal(facts) is None) is taken


@pytest.mark.parametrize(
    ("model", "refer_type", "seconds", "taken"),
    [
        ("kling-v3-omni", "base", 2.8, False),
        ("kling-v3-omni", "base", 3.0, True),
        ("kling-v3-omni", "base", 10.0, True),
        ("kling-v3-omni", "base", 10.04, True),  # generated clips run slightly over: allow 0.1 s
        ("kling-v3-omni", "base", 10.2, False),
        ("kling-v3-omni", "base", 15.0, False),
        ("kling-v3-omni", "feature", 2.8, False),
        ("kling-v3-omni", "feature", 3.0, True),
        ("kling-v3-omni", "feature", 15.0, True),
        ("kling-v3-omni", "feature", 15.04, True),
        ("kling-v3-omni", "feature", 15.2, False),
        ("kling-video-o1", "base", 10.04, True),
        ("kling-video-o1", "base", 10.2, False),
        ("kling-video-o1", "feature", 10.04, True),
        ("kling-video-o1", "feature", 10.2, False),
        ("kling-video-o1", "feature", 15.0, False),
        ("kling-v3-omni", "feature", float("nan"), False),
    ],
)
def test_lengths_of_videos(model: str, refer_type: str, seconds: float, taken: bool) -> None:
    facts = dataclasses.replace(VIDEO, seconds=seconds)
    assert (video_refusal(facts, model=model, refer_type=refer_type) is None) is taken


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, True),
        ({"width": 720, "height": 720}, True),
        ({"width": 719}, False),
        ({"height": 719}, False),
        ({"width": 2160, "height": 2160}, True),
        ({"width": 2161}, False),
        ({"height": 2161}, False),
        ({"width": 720, "height": 1280}, True),
        ({"frames_per_second": 23.0}, False),
        ({"frames_per_second": 24000 / 1001}, True),
        ({"frames_per_second": 24.0}, True),
        ({"frames_per_second": 60.0}, True),
        ({"frames_per_second": 61.0}, False),
        ({"bytes": 200_000_000}, True),
        ({"bytes": 200 * 1024 * 1024 + 1}, False),
    ],
)
@pytest.mark.parametrize("refer_type", ["base", "feature"])
def test_videos(change: dict[str, float], taken: bool, refer_type: str) -> None:
    facts = dataclasses.replace(VIDEO, **change)  # type: ignore[arg-type] # the table mixes fields of two types
    assert (video_refusal(facts, model="kling-v3-omni", refer_type=refer_type) is None) is taken


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (image_refusal(dataclasses.replace(IMAGE, format="GIF")), "GIF"),
        (image_refusal(dataclasses.replace(IMAGE, bytes=11 * 1024 * 1024)), "11.0 MB"),
        (image_refusal(dataclasses.replace(IMAGE, width=200)), "200x720"),
        (image_refusal(dataclasses.replace(IMAGE, width=2000)), "2.5"),
        (video_refusal(dataclasses.replace(VIDEO, seconds=12.3), model="kling-video-o1", refer_type="base"), "12.30 s"),
        (video_refusal(dataclasses.replace(VIDEO, width=640), model="kling-video-o1", refer_type="base"), "640x720"),
        (
            video_refusal(
                dataclasses.replace(VIDEO, frames_per_second=12.5), model="kling-video-o1", refer_type="base"
            ),
            "12.5 frames",
        ),
        (video_refusal(dataclasses.replace(VIDEO, bytes=300 << 20), model="kling-video-o1", refer_type="base"), "300"),
    ],
)
def test_a_refusal_says_what_was_found(refused: str | None, words: str) -> None:
    assert words in (refused or "")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_an_image_is_measured_from_its_bytes(kind: str) -> None:
    data = encoded(kind, 320, 310)
    assert image_facts(data) == ImageFacts(kind, 320, 310, len(data))
    assert image_facts_of_base64(base64.b64encode(data).decode()) == ImageFacts(kind, 320, 310, len(data))


@pytest.mark.parametrize(
    "text", ["", "A", "AAA", "AA=A", "not base64!", "é", "\n", "data:image/png;base64,iVBORw0KGgo=", "iVBORw0KGgo="]
)
def test_what_is_no_image_is_invalid_media(text: str) -> None:
    with pytest.raises(InvalidMedia):
        image_facts_of_base64(text)


def test_a_data_uri_says_what_to_send_instead() -> None:
    with pytest.raises(InvalidMedia, match="what follows the comma"):
        image_facts_of_base64("data:image/png;base64,iVBORw0KGgo=")


@pytest.mark.filterwarnings("ignore:::PIL")  # what Pillow thinks of broken files
@settings(max_examples=100)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]),
    cut=st.integers(0, 400),
    place=st.integers(0, 60),
    noise=st.binary(max_size=12),
)
def test_broken_images_give_facts_or_invalid_media(kind: str, cut: int, place: int, noise: bytes) -> None:
    data = bytearray(encoded(kind, 8, 8))
    data[place : place + len(noise)] = noise
    with contextlib.suppress(InvalidMedia):
        image_facts(bytes(data[:cut]))
