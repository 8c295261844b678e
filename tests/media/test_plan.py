"""Copy or encode: a table of clips that differ, and what a person is told about it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.facts import AudioFacts, MediaFacts, VideoFacts
from prefect_kling.media.plan import majority, plan_join
from prefect_kling.media.reencode import Target, film_frames, fitted, graph_command, target_of

VIDEO = VideoFacts(
    index=0,
    codec="h264",
    tag="avc1",
    profile="High",
    width=1280,
    height=720,
    rotation=0,
    mirrored=False,
    sample_aspect=Fraction(1),
    pixel_format="yuv420p",
    field_order=1,
    colour=(1, 1, 1, 1),
    frame_rate=Fraction(24),
    time_base=Fraction(1, 12_288),
    start=Fraction(0),
    seconds=Fraction(5),
    frames=120,
    packets=120,
    delay=1024,
    constant=True,
    starts_clean=True,
    parameters_inside=False,
    extradata_bytes=49,
    extradata_sha256="a" * 64,
)
AUDIO = AudioFacts(1, "aac", "LC", 44_100, 2, 215, Fraction(0), Fraction(5))


def clip(name: str, **different: Any) -> MediaFacts:
    return MediaFacts(Path(f"/{name}.mp4"), 1000, "isom", Fraction(5), replace(VIDEO, **different), AUDIO)


def test_alike_clips_are_copied_whatever_their_sound() -> None:
    plan = plan_join([clip("a"), replace(clip("b"), audio=None), clip("c", frames=48, packets=48)])
    assert plan.method == "copy"
    assert "All 3 clips are alike (h264 1280x720 at 24 frames a second)" in plan.reason


def test_one_safe_clip_is_copied() -> None:
    assert plan_join([clip("a")]).method == "copy"


DIFFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"codec": "hevc", "tag": "hvc1"}, "has codec hevc (hvc1) instead of h264 (avc1)"),
    ({"tag": "avc3"}, "has codec h264 (avc3) instead of h264 (avc1)"),
    ({"profile": "Main"}, "has profile Main instead of High"),
    ({"width": 1920, "height": 1080}, "has size 1920x1080 instead of 1280x720"),
    ({"pixel_format": "yuv420p10le"}, "has pixel format yuv420p10le instead of yuv420p"),
    ({"field_order": 2}, "has field order 2 instead of 1"),
    ({"frame_rate": Fraction(30)}, "has frame rate 30 instead of 24"),
    ({"time_base": Fraction(1, 24)}, "has time base 1/24 instead of 1/12288"),
    ({"sample_aspect": Fraction(4, 3)}, "has sample aspect 4/3 instead of 1"),
    ({"rotation": 90}, "has rotation 90 instead of 0"),
    ({"mirrored": True}, "has rotation 0 mirrored instead of 0"),
    ({"colour": (1, 9, 16, 9)}, "has colour tags 1/9/16/9 instead of 1/1/1/1"),
    ({"extradata_sha256": "b" * 64}, "was encoded with other settings (its parameter sets differ)"),
    ({"delay": 512}, "has reordering delay 512 instead of 1024"),
    ({"packets": 140}, "shows 120 of its 140 coded frames (edit list)"),
    ({"constant": False}, "has unevenly spaced frames"),
    ({"starts_clean": False}, "does not start with a whole picture at time 0"),
    ({"parameters_inside": True}, "changes its parameter sets on the way"),
    ({"codec": "av1", "tag": "av01"}, "is av1, which is not spliced"),
]


@pytest.mark.parametrize(("different", "words"), DIFFERENCES, ids=[words for _, words in DIFFERENCES])
def test_each_difference_means_encoding_and_is_named_with_its_clip(different: dict[str, Any], words: str) -> None:
    plan = plan_join([clip("a"), clip("odd", **different), clip("c")])
    assert plan.method == "encode"
    assert f"clip 2 (odd.mp4) {words}" in plan.reason
    assert "clip 1" not in plan.reason


def test_no_field_is_forgotten() -> None:
    """Every field is part of the decision, or is listed here because copying does not depend on it."""
    # Where and how long it is; `start` is judged by `starts_clean`, and the size of the extradata by its hash.
    irrelevant = {"index", "start", "seconds", "frames", "packets", "extradata_bytes"}
    judged = {name for different, _ in DIFFERENCES for name in different} | {"height"}
    assert judged | irrelevant == set(VIDEO.__dataclass_fields__)


def test_equally_unsafe_clips_are_encoded_although_they_are_alike() -> None:
    assert plan_join([clip("a", constant=False), clip("b", constant=False)]).method == "encode"


def test_a_long_list_of_differences_is_cut_short() -> None:
    plan = plan_join([clip("usual")] * 9 + [clip(f"odd{n}", rotation=90) for n in range(6)])
    assert plan.reason.count("(odd") == 4
    assert "2 more clips differ as well" in plan.reason


def test_a_film_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidMedia, match="at least one clip"):
        plan_join([])


def test_the_first_of_equally_frequent_values_wins() -> None:
    assert majority(["b", "a", "a", "b", "c"]) == "b"


# --- What the film of an encode will be --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clips", "target"),
    [
        ([clip("a"), clip("b", width=640, height=360)], Target(1280, 720, Fraction(24))),
        ([clip("a", width=640, height=360), clip("b"), clip("c")], Target(1280, 720, Fraction(24))),
        ([clip("a", rotation=90)], Target(720, 1280, Fraction(24))),
        ([clip("a", sample_aspect=Fraction(4, 3))], Target(1706, 720, Fraction(24))),
        ([*[clip("a", frame_rate=Fraction(30))] * 2, clip("b")], Target(1280, 720, Fraction(30))),
        # A mean rate is nothing to encode at; an even clip's is, though it be in the minority.
        ([clip("a", constant=False, frame_rate=Fraction(2430, 100))], Target(1280, 720, Fraction(24))),
        ([*[clip("a", constant=False, frame_rate=Fraction(29))] * 2, clip("b")], Target(1280, 720, Fraction(24))),
    ],
)  # fmt: skip
def test_the_film_has_the_size_and_rate_that_most_clips_have(clips: list[MediaFacts], target: Target) -> None:
    assert target_of(clips) == target


def test_a_clip_keeps_all_its_frames_at_its_own_rate_and_its_length_at_another() -> None:
    assert film_frames(clip("a", frames=121, seconds=Fraction(121, 24)), Fraction(24)) == 121
    assert film_frames(clip("a", frames=150, frame_rate=Fraction(30)), Fraction(24)) == 120
    assert film_frames(clip("a", frames=1, frame_rate=Fraction(60), seconds=Fraction(1, 60)), Fraction(24)) == 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1280, 720), (1280, 720, 0, 0)),
        ((640, 360), (1280, 720, 0, 0)),
        ((720, 1280), (404, 720, 438, 0)),
        ((1000, 1000), (720, 720, 280, 0)),
        ((1920, 800), (1280, 534, 0, 92)),
        ((4000, 3), (1280, 2, 0, 358)),
    ],
)
def test_a_picture_fits_whole_into_the_films_with_even_bars(
    size: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    assert fitted(size, Target(1280, 720, Fraction(24))) == expected


def test_untrusted_inputs_reach_ffmpeg_only_as_mov_from_this_disk() -> None:
    clips = [clip("-y"), clip("concat:a|b"), clip("-y")]
    command = graph_command(clips, Target(1280, 720, Fraction(24)), Path("/out.part"))
    inputs = [n for n, word in enumerate(command) if word == "-i"]
    assert [command[n + 1] for n in inputs] == ["file:/-y.mp4", "file:/concat:a|b.mp4", "file:/-y.mp4"]
    for start, end in zip([0, *[n + 2 for n in inputs]], inputs, strict=False):
        options = command[start:end]
        assert options[options.index("-f") + 1] == "mov"
        assert options[options.index("-protocol_whitelist") + 1] == "file"
        assert options[options.index("-err_detect") + 1] == "explode"
        assert "-max_pixels" in options
    assert "-xerror" in command
    assert "-nostdin" in command
