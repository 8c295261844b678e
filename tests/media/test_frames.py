"""The last frame is the last one, as a player shows it."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.gateway.limits import image_facts, image_refusal
from prefect_kling.media.frames import LastFrame, extract_last_frame, take_last_frame

MakeClip = Callable[..., Path]


def mark(image: Image.Image) -> tuple[int, int]:
    """Shot and frame from the barcode of conftest.py."""
    grey = np.asarray(image.convert("L"))
    height, width = grey.shape
    bits = 0
    for bit in range(16):
        bits = bits << 1 | int(grey[height * 3 // 8, (2 * bit + 1) * width // 32] > 128)
    return bits >> 8, bits & 255


@pytest.mark.parametrize(
    "what",
    [
        {"options": {"bf": "3"}},
        {"options": {"bf": "0"}},
        {"options": {"bf": "3", "b_strategy": "0", "g": "5"}},
        {"options": {"x264-params": "open-gop=1:keyint=6:bframes=3"}},
        {"times": [0, 1, 2, 3, 5, 6, 7, 8, 11, 12, 13, 30]},
        {"codec": "libx265", "options": {"x265-params": "log-level=none:bframes=4"}},
        {"sound": 1.5},
        {"frames": 1},
    ],
    ids=str,
)
async def test_it_is_the_last_frame_that_is_shown(make_clip: MakeClip, tmp_path: Path, what: dict[str, Any]) -> None:
    clip = make_clip(shot=9, **what)
    out = tmp_path / "last.png"
    assert await extract_last_frame(clip, out) == out
    with Image.open(out) as image:
        assert (image.format, image.size, mark(image)) == ("PNG", (320, 180), (9, what.get("frames", 12) - 1))


async def test_frames_hidden_at_the_end_are_not_taken(
    shots: list[Path], tmp_path: Path, ffmpeg: Callable[..., None]
) -> None:
    """Cut by an edit list after its seventh frame; what lies behind is still in the file."""
    data = bytearray(shots[0].read_bytes())
    at = data.index(b"elst")  # the picture's, as its track comes first
    # version/flags, one entry, then its length in ticks of the movie, which newer muxers choose themselves.
    assert data[at + 8 : at + 12] == b"\x00\x00\x00\x01"
    header = data.index(b"mvhd")
    ticks = int.from_bytes(data[header + 16 : header + 20], "big")
    data[at + 12 : at + 16] = (7 * ticks // 24).to_bytes(4, "big")
    clip = tmp_path / "short.mp4"
    clip.write_bytes(data)
    with Image.open(await extract_last_frame(clip, tmp_path / "last.png")) as image:
        assert mark(image) == (1, 6)


@pytest.mark.parametrize(
    ("option", "transpose"),
    [
        (("-display_rotation", "90"), Image.Transpose.ROTATE_90),
        (("-display_rotation", "-90"), Image.Transpose.ROTATE_270),
        (("-display_rotation", "180"), Image.Transpose.ROTATE_180),
        (("-display_hflip",), Image.Transpose.FLIP_LEFT_RIGHT),
        (("-display_vflip",), Image.Transpose.FLIP_TOP_BOTTOM),
    ],
    ids=str,
)
async def test_it_is_turned_as_a_player_turns_it(
    shots: list[Path],
    tmp_path: Path,
    ffmpeg: Callable[..., None],
    option: tuple[str, ...],
    transpose: Image.Transpose,
) -> None:
    ffmpeg(*option, "-i", shots[1], "-c", "copy", tmp_path / "turned.mp4")
    straight = await extract_last_frame(shots[1], tmp_path / "straight.png")
    turned = await extract_last_frame(tmp_path / "turned.mp4", tmp_path / "turned.png")
    with Image.open(straight) as expected, Image.open(turned) as image:
        assert np.array_equal(np.asarray(image), np.asarray(expected.transpose(transpose)))


async def test_ffmpeg_turns_it_the_same_way(shots: list[Path], tmp_path: Path, ffmpeg: Callable[..., None]) -> None:
    """A second opinion on what both flags at once mean."""
    ffmpeg("-display_rotation", "90", "-display_hflip", "-i", shots[1], "-c", "copy", tmp_path / "turned.mp4")
    ffmpeg("-i", tmp_path / "turned.mp4", "-update", "1", tmp_path / "theirs.png")
    ours = await extract_last_frame(tmp_path / "turned.mp4", tmp_path / "ours.png")
    with Image.open(ours) as image, Image.open(tmp_path / "theirs.png") as expected:
        assert image.size == expected.size
        difference = np.asarray(image).astype(int) - np.asarray(expected.convert("RGB")).astype(int)
        assert np.abs(difference).mean() < 2


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(4, 3), (427, 180)), (Fraction(3, 4), (320, 240))])
async def test_its_pixels_are_square(
    make_clip: MakeClip, tmp_path: Path, aspect: Fraction, size: tuple[int, int]
) -> None:
    out = await extract_last_frame(make_clip(shot=3, aspect=aspect), tmp_path / "last.png")
    with Image.open(out) as image:
        assert (image.size, mark(image)) == (size, (3, 11))


async def test_what_is_too_large_as_png_becomes_a_jpeg_that_the_gateway_takes(
    make_clip: MakeClip, tmp_path: Path
) -> None:
    clip = make_clip(frames=1, size=(3000, 1900), noise=True, options={"preset": "ultrafast", "qp": "1"})
    out = await extract_last_frame(clip, tmp_path / "last.png")
    assert out == tmp_path / "last.jpg"
    assert image_refusal(image_facts(out.read_bytes())) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "last.jpg"]


async def test_colours_are_those_of_the_film(tmp_path: Path, ffmpeg: Callable[..., None]) -> None:
    """BT.709 by its tag, and untagged by its height."""
    for name, tags in (("tagged", ["-colorspace", "bt709"]), ("untagged", [])):
        source = "color=c=0xC83214:s=1280x720:r=24:d=0.1,scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
        if not tags:
            source += ",setparams=colorspace=unknown"
        ffmpeg("-f", "lavfi", "-i", source, "-qp", "1", *tags, tmp_path / f"{name}.mp4")
        with Image.open(await extract_last_frame(tmp_path / f"{name}.mp4", tmp_path / f"{name}.png")) as image:
            assert np.abs(np.asarray(image)[360, 640].astype(int) - (0xC8, 0x32, 0x14)).max() <= 3


# --- Ends that go black ------------------------------------------------------------------------------------------


def drawn(path: Path, levels: list[float], *, options: dict[str, str] | None = None) -> Path:
    """A clip of 24 frames a second; frame n is a ramp of mid grey times its level, with a white block at column n."""
    with av.open(str(path), "w", format="mp4") as clip:
        stream = clip.add_stream("libx264", rate=24, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
        for number, level in enumerate(levels):
            plane = np.full((270, 320), 128, np.uint8)
            grey = np.full((180, 320), 90.0)
            grey[:, number * 4 : number * 4 + 4] = 219
            plane[:180] = np.rint(16 + grey * level)
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(plane, format="yuv420p")))
        clip.mux(stream.encode(None))
    return path


def column(image: Path) -> int:
    """Which frame of such a clip it is."""
    with Image.open(image) as opened:
        return int(np.argmax(np.asarray(opened.convert("L"), float).mean(axis=0)[1::4]))


FADE = [1 - n / 12 for n in range(1, 13)]


ONE, MANY = {"bf": "3"}, {"bf": "2", "g": "10"}


@pytest.mark.parametrize(
    ("levels", "number", "skipped", "keyframes"),
    [
        pytest.param([1.0] * 60, 60, 0, ONE, id="none"),
        pytest.param([1.0] * 48 + [0.0] * 6, 48, 6, ONE, id="a cut"),
        pytest.param([1.0] * 48 + FADE, 48, 12, ONE, id="a fade"),
        pytest.param([1.0] * 40 + FADE + [0.0] * 10, 40, 22, MANY, id="a fade and black"),
        pytest.param([1.0] * 12 + [0.0] * 60, 12, 60, MANY, id="black for longer than a fade"),
        pytest.param([1.0] * 40 + [0.1] * 20, 60, 0, ONE, id="a cut to a night"),
    ],
)
async def test_a_black_end_is_skipped(
    tmp_path: Path, levels: list[float], number: int, skipped: int, keyframes: dict[str, str]
) -> None:
    out = tmp_path / "last.png"
    found = await take_last_frame(drawn(tmp_path / "clip.mp4", levels, options=keyframes), out)
    assert found == LastFrame(out, number, skipped)
    assert column(out) == number - 1


async def test_a_black_clip_gives_its_last_frame(tmp_path: Path) -> None:
    clip = drawn(tmp_path / "clip.mp4", [0.0] * 30)
    assert await take_last_frame(clip, tmp_path / "last.png") == LastFrame(tmp_path / "last.png", 30)
    with Image.open(tmp_path / "last.png") as image:
        assert np.asarray(image).max() <= 2


async def test_frames_are_counted_as_they_are_shown(tmp_path: Path, ffmpeg: Callable[..., None]) -> None:
    """What an edit list hides at the start is neither counted nor in the way."""
    whole = drawn(tmp_path / "whole.mp4", [1.0] * 40 + FADE)
    ffmpeg("-ss", f"{10 / 24:.4f}", "-i", whole, "-c", "copy", tmp_path / "clip.mp4")
    found = await take_last_frame(tmp_path / "clip.mp4", tmp_path / "last.png")
    assert (found.number, found.skipped, column(found.image)) == (30, 12, 39)


async def test_a_broken_clip_leaves_no_image(shots: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(shots[0].read_bytes()[:900])
    with pytest.raises(InvalidMedia, match=r"clip\.mp4"):
        await extract_last_frame(clip, folder / "last.png")
    assert list(folder.iterdir()) == []


async def test_a_full_disk_is_the_disks_fault_and_not_the_clips(shots: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at below
            await extract_last_frame(shots[0], folder / "last.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert list(folder.iterdir()) == []
