"""Copy, normalise or encode: a table of clips that differ, of cuts, and what a person is told about them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import AudioFacts, MediaFacts, VideoFacts
from prefect_kling.media.picture import Images
from prefect_kling.media.plan import JoinPlan, plan_join, usual_of
from prefect_kling.media.reencode import graph_command, parts_of
from prefect_kling.media.target import Target, covering, fitted, majority, target_of
from prefect_kling.media.timeline import film_frames, lay_out
from prefect_kling.media.transitions import Transition

X264 = (
    "x264 - core 165 - H.264/MPEG-4 AVC codec - options: cabac=1 ref=3 deblock=1:0:0 analyse=0x3:0x113 me=hex subme=7 "
    "psy=1 psy_rd=1.00:0.00 mixed_ref=1 me_range=16 chroma_me=1 trellis=1 8x8dct=1 cqm=0 deadzone=21,11 fast_pskip=1 "
    "chroma_qp_offset=-2 threads=2 lookahead_threads=1 sliced_threads=0 nr=0 decimate=1 interlaced=0 bluray_compat=0 "
    "constrained_intra=0 bframes=3 b_pyramid=2 b_adapt=1 b_bias=0 direct=1 weightb=1 open_gop=0 weightp=2 keyint=250 "
    "keyint_min=24 scenecut=40 intra_refresh=0 rc_lookahead=40 rc=crf mbtree=1 crf=23.0 qcomp=0.60 qpmin=0 qpmax=69 "
    "qpstep=4 ip_ratio=1.40 aq=1:1.00"
)
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
    encoder=X264,
)
AUDIO = AudioFacts(1, "aac", "LC", 44_100, 2, 215, Fraction(0), Fraction(5))


def clip(name: str, **different: Any) -> MediaFacts:
    return MediaFacts(Path(f"/{name}.mp4"), 1000, "isom", Fraction(5), replace(VIDEO, **different), AUDIO)


def planned(clips: list[MediaFacts], cut: Cut | None = None, *wanted: CutClip) -> JoinPlan:
    cut = cut or Cut()
    target = target_of(clips, cut)
    asked = wanted or [CutClip(found.path, found.path.stem) for found in clips]
    return plan_join(lay_out(asked, clips, cut, target.frame_rate), cut, target)


def test_alike_clips_are_copied_whatever_their_sound() -> None:
    plan = planned([clip("a"), replace(clip("b"), audio=None), clip("c", frames=48, packets=48)])
    assert plan.method == "copy"
    assert "All 3 clips are alike (h264 1280x720 at 24 frames a second)" in plan.reason


def test_one_safe_clip_is_copied() -> None:
    assert planned([clip("a")]).method == "copy"


def test_alike_clips_of_wide_or_turned_pixels_are_copied() -> None:
    """1280x720 in pixels of 4:3 is shown 1707 wide, which no film can be."""
    assert planned([clip(name, sample_aspect=Fraction(4, 3)) for name in "ab"]).method == "copy"
    assert planned([clip(name, rotation=90) for name in "ab"]).method == "copy"


def test_alike_clips_of_hevc_are_copied_unless_h264_is_wanted() -> None:
    hevc = [clip(name, codec="hevc", tag="hvc1", encoder=None) for name in "ab"]
    assert planned(hevc).method == "copy"
    plan = planned(hevc, Cut(codec="h264"))
    assert plan.method == "encode"
    assert "clip 1 (a.mp4) is hevc, not h264" in plan.reason


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
def test_each_difference_is_named_with_its_clip_which_is_encoded_like_the_others(
    different: dict[str, Any], words: str
) -> None:
    plan = planned([clip("a"), clip("odd", **different), clip("c")])
    assert (plan.method, plan.odd) == ("normalise", (1,))
    assert "2 of 3 are copied" in plan.reason
    assert f"clip 2 (odd.mp4) {words}" in plan.reason
    assert "clip 1" not in plan.reason


def test_no_field_is_forgotten() -> None:
    """Every field is part of the decision, or is listed here because copying does not depend on it."""
    # Where and how long it is; `start` is judged by `starts_clean`, and the size of the extradata by its hash.
    # The settings it was encoded with, and whether it states its pixels' shape, are in its parameter sets.
    irrelevant = {"index", "start", "seconds", "frames", "extradata_bytes", "encoder", "aspect_stated", "level"}
    judged = {name for different, _ in DIFFERENCES for name in different} | {"height"}
    assert judged | irrelevant == set(VIDEO.__dataclass_fields__)


WHY_ALL: list[tuple[dict[str, Any], str]] = [
    ({"encoder": None}, "how most clips were encoded is not to be found in them"),
    ({"encoder": "x264 - core 1 - options: frob=1 rc=crf"}, "how most clips were encoded is not to be found"),
    ({"constant": False}, "most clips are not as the film has to be"),
    ({"rotation": 90}, "of a kind that is not made here"),
    ({"sample_aspect": Fraction(4, 3)}, "of a kind that is not made here"),
    ({"pixel_format": "yuv444p"}, "of a kind that is not made here"),
    ({"field_order": 2}, "of a kind that is not made here"),
    ({"colour": (2, 1, 1, 1)}, "of a kind that is not made here"),
    ({"colour": (1, 1, 1, 0)}, "of a kind that is not made here"),
    ({"codec": "hevc", "tag": "hvc1"}, "how most clips were encoded is not to be found in them"),
]


@pytest.mark.parametrize(("usual", "why"), WHY_ALL, ids=[str(usual)[:40] for usual, _ in WHY_ALL])
def test_where_nothing_can_be_made_like_most_clips_all_is_encoded(usual: dict[str, Any], why: str) -> None:
    plan = planned([clip("a", **usual), clip("b", **usual), clip("odd", profile="Main")])
    assert (plan.method, plan.odd) == ("encode", ())
    assert why in plan.reason


def test_without_a_majority_all_is_encoded() -> None:
    plan = planned([clip("a"), clip("b", profile="Main")])
    assert plan.method == "encode"
    assert "no more than half of the clips are alike" in plan.reason


THIRD = Fraction(1, 3)
CUTS: list[tuple[str, Cut, dict[int, dict[str, Any]], str, tuple[int, ...]]] = [
    ("a trim", Cut(), {1: {"trim": (Fraction(1), None)}}, "normalise", (1,)),
    ("a trim of nothing", Cut(), {1: {"trim": (Fraction(0), Fraction(5))}}, "copy", ()),
    ("a repeated frame", Cut(), {2: {"repeats": True}}, "normalise", (2,)),
    ("cards", Cut(title="A", end_card="B"), {}, "normalise", (0, 4)),
    ("fades", Cut(fade_in=THIRD, fade_out=THIRD), {}, "normalise", (0, 2)),
    ("a fade over two clips", Cut(fade_in=Fraction(6)), {}, "encode", ()),
    ("soft captions", Cut(), {1: {"caption": "Hello"}}, "copy", ()),
    ("burnt captions", Cut(captions="burn"), {1: {"caption": "Hello"}}, "normalise", (1,)),
    ("burnt captions everywhere", Cut(captions="burn"), {n: {"caption": "Hello"} for n in range(3)}, "encode", ()),
    ("a transition", Cut(), {1: {"transition": Transition("wipe", THIRD)}}, "encode", ()),
    ("its own size", Cut(size=(1280, 720)), {}, "copy", ()),
    ("another size", Cut(size=(720, 1280)), {}, "encode", ()),
    ("a fade as long as its clip", Cut(fade_in=Fraction(5)), {}, "normalise", (0,)),
    ("a fade over a card alone", Cut(title="A", fade_in=Fraction(3)), {}, "normalise", (0,)),
    ("a fade over a card and a clip", Cut(title="A", fade_in=Fraction(4)), {}, "encode", ()),
    ("all clips trimmed", Cut(), {n: {"trim": (Fraction(1), None)} for n in range(3)}, "encode", ()),
    ("a transition of no time", Cut(), {1: {"transition": Transition("wipe")}}, "copy", ()),
    ("music", Cut(loudness=None, sound=False), {}, "copy", ()),
]


@pytest.mark.parametrize(("what", "cut", "wanted", "method", "odd"), CUTS, ids=[cut[0] for cut in CUTS])
def test_what_a_cut_asks_of_the_picture_decides_with(
    what: str, cut: Cut, wanted: dict[int, dict[str, Any]], method: str, odd: tuple[int, ...]
) -> None:
    clips = [clip(name) for name in "abc"]
    asked = [CutClip(found.path, found.path.stem, **wanted.get(n, {})) for n, found in enumerate(clips)]
    plan = planned(clips, cut, *asked)
    assert (plan.method, plan.odd) == (method, odd), plan.reason


def test_a_clip_that_cannot_be_copied_is_no_model_for_the_others() -> None:
    """It comes first, and is coded like they are."""
    plan = planned([clip("a", packets=140), clip("b"), clip("c")])
    assert (plan.method, plan.odd) == ("normalise", (0,))
    assert planned([clip("a", packets=140), clip("b", packets=140)]).method == "encode"


def test_nor_is_one_that_does_not_say_how_it_was_encoded() -> None:
    clips = [clip("a", encoder=None), clip("b"), clip("c", encoder=None), clip("odd", profile="Main")]
    assert usual_of(clips) == clips[1]
    assert (planned(clips).method, planned(clips).odd) == ("normalise", (3,))


def test_transitions_are_named_by_their_kinds_once() -> None:
    wipe = Transition("wipe", THIRD)
    clips = [clip(name) for name in "abcd"]
    plan = planned(clips, None, *(CutClip(found.path, found.path.stem, transition=wipe) for found in clips))
    assert plan.reason == "The picture has to be encoded anew: transitions show two clips at once (wipe)."


def test_a_long_list_of_differences_is_cut_short() -> None:
    plan = planned([clip("usual")] * 9 + [clip(f"odd{n}", rotation=90) for n in range(6)])
    assert plan.reason.count("(odd") == 4
    assert "2 more likewise" in plan.reason


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
    assert target_of(clips, Cut()) == target
    assert target_of(clips, Cut(size=(100, 50))) == Target(100, 50, target.frame_rate)


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


@pytest.mark.parametrize(
    ("size", "shown", "middle", "scaled"),
    [
        ((1280, 720), (1280, 720), (1280, 720), (1280, 720)),
        ((640, 360), (640, 360), (640, 360), (1280, 720)),
        ((720, 1280), (720, 1280), (720, 410), (1280, 728)),
        ((1000, 1000), (1000, 1000), (1000, 568), (1280, 728)),
        ((1920, 800), (1920, 800), (1428, 800), (1286, 720)),
        ((960, 720), (1280, 720), (960, 720), (1280, 720)),
        # Scaled whole it would be 1,440,000 wide.
        ((4000, 2), (4000, 2), (8, 2), (2880, 720)),
    ],
)
def test_a_picture_covers_the_films_and_its_middle_is_seen(
    size: tuple[int, int], shown: tuple[int, int], middle: tuple[int, int], scaled: tuple[int, int]
) -> None:
    assert covering(size, shown, Target(1280, 720, Fraction(24))) == (middle, scaled)


def test_untrusted_inputs_reach_ffmpeg_only_as_mov_from_this_disk() -> None:
    clips = [clip("-y"), clip("concat:a|b"), clip("-y")]
    target = Target(1280, 720, Fraction(24))
    timeline = lay_out([CutClip(found.path, "") for found in clips], clips, Cut(), target.frame_rate)
    (part,) = parts_of(timeline)
    command = graph_command(timeline, part, target, Images(), Path("/out.part"))
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
