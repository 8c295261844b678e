"""A clip's picture as the film shows it: the right way up, in its colours and its place, to the frame.

The filters are run by themselves, without an encoder behind them, and what comes out is compared pixel by pixel.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg as graphs
import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.picture import Colours, Images, faded, scene_picture
from prefect_kling.media.probe import probe
from prefect_kling.media.target import Target, target_of
from prefect_kling.media.timeline import lay_out

Pixels = NDArray[np.int16]
Ffmpeg = Callable[..., None]

# Of the corners in the order in which one reads: top left, top right, bottom left, bottom right.
CORNERS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (40, 40, 200), "white": (230, 230, 230)}


@pytest.fixture(scope="session")
def quarters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A still of four colours, 160x90."""
    colours = np.array(list(CORNERS.values()), np.uint8).reshape(2, 2, 3)
    path = tmp_path_factory.mktemp("quarters") / "quarters.png"
    Image.fromarray(colours.repeat(45, axis=0).repeat(80, axis=1)).save(path)
    return path


@pytest.fixture
def filmed(quarters: Path, ffmpeg: Ffmpeg, tmp_path: Path) -> Callable[..., Path]:
    """`filmed(filters, *options)`: a clip of two frames of it; without options its colours are not tagged."""

    def make(filters: str, *options: str, name: str = "clip.mp4", size: str = "160:90") -> Path:
        out = tmp_path / name
        scaled = f"scale={size}:flags=neighbor:{filters}"
        if not options:
            scaled += ",setparams=range=unknown:color_primaries=unknown:color_trc=unknown:colorspace=unknown"
        coder = () if "-c:v" in options else ("-crf", "4")
        ffmpeg("-loop", "1", "-r", "24", "-i", quarters, "-frames:v", "2", "-vf", scaled, *coder, *options, out)
        return out

    return make


def drawn(picture: Any, size: tuple[int, int], *, pixel_format: str = "yuv420p") -> list[Pixels]:
    """The frames of a filter graph as ffmpeg stores them: luma and both colours, each as large as the picture."""
    output = graphs.output(picture, "pipe:", format="rawvideo", pix_fmt=pixel_format).global_args("-v", "error")
    command = graphs.compile(output, cmd=imageio_ffmpeg.get_ffmpeg_exe())
    raw = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    width, height = size
    deep = pixel_format.endswith("10le")
    planes = np.frombuffer(raw, np.uint16 if deep else np.uint8).astype(np.int16) >> (2 if deep else 0)
    frames = []
    for frame in planes.reshape(-1, width * height * 3 // 2):
        chroma = frame[width * height :].reshape(2, height // 2, width // 2).repeat(2, axis=1).repeat(2, axis=2)
        frames.append(np.stack([frame[: width * height].reshape(height, width), *chroma], axis=2))
    return frames


def rgb_of(frame: Pixels) -> Pixels:
    """What a player makes of BT.709 with limited range."""
    luma, blue, red = ((frame - np.array([16, 128, 128])) / np.array([219, 224, 224])).transpose(2, 0, 1)
    colours = [
        luma + 1.5748 * red,
        luma - 0.18733 * blue - 0.46813 * red,
        luma + 1.8556 * blue,
    ]
    return (np.stack(colours, axis=2) * 255).round().astype(np.int16)


def corners_of(frame: Pixels, box: tuple[int, int, int, int] | None = None) -> list[str]:
    """Which colours the corners of a part of a picture (left, top, right, bottom) have."""
    rgb = rgb_of(frame)
    left, top, right, bottom = box or (0, 0, rgb.shape[1], rgb.shape[0])
    wide, high = right - left, bottom - top
    found = []
    for down in (1, 3):
        for across in (1, 3):
            seen = rgb[top + down * high // 4, left + across * wide // 4]
            near = {name: int(np.abs(seen - np.array(colour)).max()) for name, colour in CORNERS.items()}
            best = min(near, key=near.__getitem__)
            found.append(best if near[best] <= 8 else f"{best} but for {near[best]}")
    return found


def shown(clip: MediaFacts, size: tuple[int, int] = (160, 90), **said: Any) -> list[Pixels]:
    """All the frames of a clip as a film of that size shows them."""
    target = Target(*size, clip.video.frame_rate)
    timeline = lay_out([CutClip(clip.path, "")], [clip], Cut(), target.frame_rate)
    frames = timeline.frames
    picture = scene_picture(timeline.scenes[0], 0, 0, frames, target, Images(), **said)
    found = drawn(picture, size, pixel_format=said.get("pixel_format", "yuv420p"))
    assert len(found) == frames
    return found


# --- Colours -------------------------------------------------------------------------------------------------------

TAGS_709 = ("-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709")
TAGS_601 = ("-color_primaries", "smpte170m", "-color_trc", "smpte170m", "-colorspace", "smpte170m")
TAGS_2020 = ("-color_primaries", "bt2020", "-color_trc", "bt2020-10", "-colorspace", "bt2020nc")
HEVC = ("-c:v", "libx265", "-x265-params", "log-level=none:qp=6")
STORED: dict[str, tuple[str, tuple[str, ...]]] = {
    "BT.709": ("out_color_matrix=bt709,format=yuv420p", TAGS_709),
    "BT.601": ("out_color_matrix=bt601,format=yuv420p", TAGS_601),
    "BT.2020": ("out_color_matrix=bt2020,format=yuv420p10le", TAGS_2020),
    "untagged and small": ("out_color_matrix=bt601,format=yuv420p", ()),
    "a matrix that nobody has": (
        "out_color_matrix=bt601,format=yuv420p",
        ("-bsf:v", "h264_metadata=matrix_coefficients=8"),
    ),
    "full range": ("out_color_matrix=bt709:out_range=pc,format=yuvj420p", (*TAGS_709, "-color_range", "pc")),
    "4:4:4": ("out_color_matrix=bt709,format=yuv444p", TAGS_709),
    "4:2:2": ("out_color_matrix=bt709,format=yuv422p", TAGS_709),
    "10 bits": ("out_color_matrix=bt709,format=yuv420p10le", TAGS_709),
    "RGB": ("out_range=pc,format=rgb24", ("-c:v", "libx264rgb", "-crf", "4")),
    "HEVC": ("out_color_matrix=bt709,format=yuv420p", (*HEVC, *TAGS_709, "-tag:v", "hvc1")),
    "HEVC, in-band": ("out_color_matrix=bt709,format=yuv420p", (*HEVC, *TAGS_709, "-tag:v", "hev1")),
}


@pytest.mark.parametrize("kind", STORED)
async def test_colours_stay_what_they_were_however_a_clip_stores_them(filmed: Callable[..., Path], kind: str) -> None:
    filters, options = STORED[kind]
    (clip,) = await probe([filmed(filters, *options)])
    for frame in shown(clip):
        assert corners_of(frame) == list(CORNERS)


async def test_untagged_colours_of_a_large_picture_are_those_of_high_definition(filmed: Callable[..., Path]) -> None:
    (clip,) = await probe([filmed("out_color_matrix=bt709,format=yuv420p", size="1280:720")])
    assert clip.video.colour[-1] == 2
    assert corners_of(shown(clip)[0]) == list(CORNERS)


async def test_untagged_colours_keep_their_numbers_in_a_film_that_is_untagged_too(filmed: Callable[..., Path]) -> None:
    (clip,) = await probe([filmed("out_color_matrix=bt601,format=yuv420p")])
    assert clip.video.colour == (0, 2, 2, 2)
    plain = drawn(graphs.input(str(clip.path)).video, (160, 90))
    kept = shown(clip, colours=Colours(*clip.video.colour))
    assert np.abs(kept[0] - plain[0]).max() <= 1


async def test_a_film_of_10_bits_is_of_the_same_colours(filmed: Callable[..., Path]) -> None:
    (clip,) = await probe([filmed("out_color_matrix=bt709,format=yuv420p", *TAGS_709)])
    assert corners_of(shown(clip, pixel_format="yuv420p10le")[0]) == list(CORNERS)


# --- Changes on the way ---------------------------------------------------------------------------------------------

CHANGED: dict[str, dict[str, Any]] = {
    "size": {"size": "320:180"},
    "range": {"filters": "out_color_matrix=bt709:out_range=pc,format=yuvj420p"},
    "pixel format": {"filters": "out_color_matrix=bt709,format=yuv444p"},
    "depth": {"filters": "out_color_matrix=bt709,format=yuv420p10le"},
}


@pytest.fixture
def changing(filmed: Callable[..., Path], ffmpeg: Ffmpeg, tmp_path: Path) -> Callable[[str], Path]:
    """`changing(what)`: four frames, of which the last two are coded otherwise, as unlike clips in one copied file."""

    def make(what: str) -> Path:
        plain = "out_color_matrix=bt709,format=yuv420p"
        for name, said in (("one", {}), ("two", CHANGED[what])):
            filters, size = said.get("filters", plain), said.get("size", "160:90")
            clip = filmed(filters, *TAGS_709, name=f"{name}.mp4", size=size)
            ffmpeg("-i", clip, "-c", "copy", "-bsf:v", "h264_mp4toannexb", tmp_path / f"{name}.h264")
        (tmp_path / "both.txt").write_text("ffconcat version 1.0\nfile one.h264\nfile two.h264\n", "utf-8")
        even = "setts=pts=N/(24*TB):dts=N/(24*TB):duration=1/(24*TB)"
        ffmpeg("-f", "concat", "-i", tmp_path / "both.txt", "-c", "copy", "-bsf:v", even, tmp_path / "changes.mp4")
        return tmp_path / "changes.mp4"

    return make


@pytest.mark.parametrize("what", CHANGED)
async def test_a_clip_that_changes_on_its_way_is_seen_whole_to_its_end(
    changing: Callable[[str], Path], what: str
) -> None:
    (clip,) = await probe([changing(what)])
    assert (clip.video.parameters_inside, clip.video.frames) == (True, 4)
    for fit, box in (("pad", (0, 14, 160, 104)), ("crop", (0, 0, 160, 120))):
        frames = shown(clip, (160, 120), fit=fit)
        assert [corners_of(frame, box) for frame in frames] == [list(CORNERS)] * 4
        assert [bars_of(frame) for frame in frames] == [box] * 4


# --- Shape ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [(), ("-display_rotation", "90"), ("-display_rotation", "-90")])
@pytest.mark.parametrize("mirrored", [(), ("-display_hflip",)])
async def test_a_clip_stands_the_way_that_players_show_it(
    filmed: Callable[..., Path], ffmpeg: Ffmpeg, tmp_path: Path, turned: tuple[str, ...], mirrored: tuple[str, ...]
) -> None:
    plain = filmed("out_color_matrix=bt709,format=yuv420p", *TAGS_709)
    ffmpeg(*turned, *mirrored, "-i", plain, "-c", "copy", tmp_path / "turned.mp4")
    (clip,) = await probe([tmp_path / "turned.mp4"])
    table = np.array(list(CORNERS)).reshape(2, 2)
    if clip.video.mirrored:
        table = np.fliplr(table)
    table = np.rot90(table, -clip.video.rotation // 90)
    size = (90, 160) if clip.video.rotation in (90, 270) else (160, 90)
    assert (clip.video.mirrored, clip.video.shown_size) == (bool(mirrored), size)
    assert corners_of(shown(clip, size)[0]) == table.ravel().tolist()


def bars_of(frame: Pixels) -> tuple[int, int, int, int]:
    """Where a picture lies between its black bars: left, top, right, bottom."""
    bright = frame[:, :, 0] > 24
    across, down = np.flatnonzero(bright.any(axis=0)), np.flatnonzero(bright.any(axis=1))
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((160, 90), (0, 0, 160, 90)),
        ((320, 180), (0, 0, 320, 180)),
        ((160, 160), (0, 34, 160, 124)),
        ((240, 90), (40, 0, 200, 90)),
        ((90, 160), (0, 54, 90, 104)),
        ((64, 64), (0, 14, 64, 50)),
    ],
)
async def test_a_clip_of_another_shape_gets_bars(
    filmed: Callable[..., Path], size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    (clip,) = await probe([filmed("out_color_matrix=bt709,format=yuv420p", *TAGS_709)])
    frame = shown(clip, size)[0]
    assert bars_of(frame) == box
    assert corners_of(frame, box) == list(CORNERS)
    assert frame[:, :, 0].min() >= 16


@pytest.mark.parametrize("size", [(90, 160), (160, 160), (240, 90)])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
async def test_a_clip_of_another_shape_fills_the_film_about_its_middle(
    filmed: Callable[..., Path], size: tuple[int, int], fit: Any
) -> None:
    (clip,) = await probe([filmed("out_color_matrix=bt709,format=yuv420p", *TAGS_709)])
    frame = shown(clip, size, fit=fit)[0]
    assert bars_of(frame) == (0, 0, *size)
    assert corners_of(frame) == list(CORNERS)


async def test_cropping_keeps_shapes_and_stretching_all_of_the_picture(
    make_clip: Callable[..., Path],
) -> None:
    """The barcode's sixteen blocks, 20 wide, are 20 lines lower; the middle ones are light."""
    (clip,) = await probe([make_clip(frames=1, shot=0b00000011)])
    lights = {}
    for fit in ("crop", "stretch"):
        row = shown(clip, (160, 180), fit=fit)[0][67, :, 0] > 128
        lights[fit] = (int(np.flatnonzero(row)[0]), int(np.flatnonzero(row)[-1]) + 1)
    # Blocks 6 and 7: of their own width from the middle on to the left, or half as wide as they were.
    assert lights["crop"] == pytest.approx((40, 80), abs=1)
    assert lights["stretch"] == pytest.approx((60, 80), abs=1)


async def test_wide_pixels_are_made_square(filmed: Callable[..., Path]) -> None:
    (clip,) = await probe([filmed("out_color_matrix=bt709,format=yuv420p,setsar=3/2", *TAGS_709)])
    assert clip.video.shown_size == (240, 90)
    assert corners_of(shown(clip, (240, 90))[0]) == list(CORNERS)
    assert bars_of(shown(clip, (240, 120))[0]) == (0, 14, 240, 104)


# --- Frames --------------------------------------------------------------------------------------------------------


def marks_of(frames: list[Pixels]) -> list[int]:
    """The number of each frame by its barcode."""
    height, width = frames[0].shape[:2]
    rows = [frame[height * 3 // 8, :, 0] > 128 for frame in frames]
    return [int("".join(str(int(row[(2 * bit + 1) * width // 32])) for bit in range(8, 16)), 2) for row in rows]


@pytest.mark.parametrize(
    ("first", "frames"), [(0, 12), (0, 1), (11, 1), (4, 5)], ids=["all", "the first", "the last", "from within"]
)
async def test_exactly_the_frames_that_are_asked_for_come_out(shots: list[Path], first: int, frames: int) -> None:
    (clip,) = await probe([shots[0]])
    target = target_of([clip], Cut())
    timeline = lay_out([CutClip(clip.path, "")], [clip], Cut(), target.frame_rate)
    picture = scene_picture(timeline.scenes[0], 0, first, frames, target, Images())
    assert marks_of(drawn(picture, (320, 180))) == list(range(first, first + frames))


async def test_a_trim_counts_from_what_a_player_shows(without_start: Path) -> None:
    (clip,) = await probe([without_start])
    target = target_of([clip], Cut())
    trimmed = CutClip(clip.path, "", trim=(Fraction(2, 24), Fraction(6, 24)))
    timeline = lay_out([trimmed], [clip], Cut(), target.frame_rate)
    picture = scene_picture(timeline.scenes[0], 0, 1, 3, target, Images())
    assert marks_of(drawn(picture, (320, 180))) == [4 + 2 + 1, 4 + 2 + 2, 4 + 2 + 3]


async def test_more_frames_than_a_clip_turns_out_to_have_repeat_its_last_one(shots: list[Path]) -> None:
    """Rounding at another rate may want one more."""
    (clip,) = await probe([shots[0]])
    longer = replace(clip, video=replace(clip.video, frames=14))
    assert marks_of(shown(longer, (320, 180))) == [*range(12), 11, 11]


@pytest.mark.parametrize("rate", [Fraction(12), Fraction(30), Fraction(24000, 1001), Fraction(23)])
async def test_at_another_rate_the_right_frame_is_seen_at_each_moment(shots: list[Path], rate: Fraction) -> None:
    (clip,) = await probe([shots[0]])
    timeline = lay_out([CutClip(clip.path, "")], [clip], Cut(), rate)
    picture = scene_picture(timeline.scenes[0], 0, 0, timeline.frames, Target(320, 180, rate), Images())
    marks = marks_of(drawn(picture, (320, 180)))
    assert len(marks) == round(Fraction(1, 2) * rate)
    # The nearest frame, so at most half of one of the film's frames early or late.
    assert all(abs(mark / 24 - n / rate) <= max(Fraction(1, 24), 1 / rate) for n, mark in enumerate(marks))


# --- Cards, words and fades ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
def test_a_card_is_its_image_in_every_frame(
    as_probed: Callable[..., MediaFacts], quarters: Path, pixel_format: str
) -> None:
    clip = as_probed("/a.mp4")
    cut = Cut(title="A", card_seconds=Fraction(3, 24))
    (card, _) = lay_out([CutClip(clip.path, "")], [clip], cut, Fraction(24)).scenes
    target = Target(160, 90, Fraction(24))
    picture = scene_picture(card, 0, 0, 3, target, Images(cards={0: quarters}), pixel_format=pixel_format)
    frames = drawn(picture, (160, 90), pixel_format=pixel_format)
    assert [corners_of(frame) for frame in frames] == [list(CORNERS)] * 3


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
async def test_words_are_laid_over_all_frames_and_nothing_else_is_touched(
    shots: list[Path], tmp_path: Path, pixel_format: str
) -> None:
    words = Image.new("RGBA", (320, 180))
    words.paste((255, 255, 255, 255), (20, 150, 300, 160))
    words.paste((0, 0, 0, 128), (20, 160, 300, 170))
    words.save(tmp_path / "words.png")
    (clip,) = await probe([shots[0]])
    target = target_of([clip], Cut())
    timeline = lay_out([CutClip(clip.path, "")], [clip], Cut(), target.frame_rate)
    plain, written = (
        drawn(
            scene_picture(timeline.scenes[0], 0, 2, 5, target, Images(captions=words), pixel_format=pixel_format),
            (320, 180),
            pixel_format=pixel_format,
        )
        for words in ({}, {0: tmp_path / "words.png"})
    )
    assert len(plain) == len(written) == 5
    for before, after in zip(plain, written, strict=True):
        assert np.array_equal(after[:148], before[:148])
        assert after[152:158, 24:296].tolist() == pytest.approx(np.full((6, 272, 3), (235, 128, 128)), abs=2)
        halved = 16 + (before[162:168, 24:296, 0] - 16) / 2
        assert np.abs(after[162:168, 24:296, 0] - halved).max() <= 3


async def test_the_film_begins_and_ends_in_black(shots: list[Path]) -> None:
    (clip,) = await probe([shots[0]])
    cut = Cut(fade_in=Fraction(4, 24), fade_out=Fraction(3, 24))
    timeline = lay_out([CutClip(clip.path, "")], [clip], cut, Fraction(24))
    target = target_of([clip], cut)
    picture = scene_picture(timeline.scenes[0], 0, 0, 12, target, Images())
    plain, graded = drawn(picture, (320, 180)), drawn(faded(picture, timeline, 0, 12), (320, 180))
    light = [round(share(a, b), 2) for a, b in zip(plain, graded, strict=True)]
    assert light[0] == light[-1] == 0
    assert light[4:9] == [1] * 5
    assert 0 < light[1] < light[2] < light[3] < 1
    assert 1 >= light[9] > light[10] > 0


def share(plain: Pixels, graded: Pixels) -> float:
    """How much of a picture's light is left."""
    return float((graded[:, :, 0] - 16).mean() / (plain[:, :, 0] - 16).mean())
