"""A film's pictures: which frames they show, told by those frames' barcodes, and how large they may become."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.stills import stills, wanted_frames
from prefect_kling.media.timeline import Timeline, lay_out
from prefect_kling.media.transitions import Transition

MakeClip = Callable[..., Path]
LaidOut = Callable[..., Timeline]
LINE = 22  # pixels of a cell's label and of the note
GAP = 8


@pytest.fixture
def laid_out(as_probed: Callable[..., MediaFacts]) -> LaidOut:
    """`laid_out([12, 12], titles=…, over=…, **cut)`: a film of clips with so many frames."""

    def lay(
        frames: Sequence[int], *, titles: Sequence[str] = (), over: Transition | None = None, **cut: Any
    ) -> Timeline:
        names = titles or [f"shot {number}" for number in range(len(frames))]
        clips = [
            CutClip(Path(f"/{n}.mp4"), name, transition=over if over and n else Transition())
            for n, name in enumerate(names)
        ]
        facts = [as_probed(clip.path, count) for clip, count in zip(clips, frames, strict=True)]
        return lay_out(clips, facts, Cut(**cut), Fraction(24))

    return lay


def frame_in(image: Image.Image) -> int:
    """Which frame a picture shows, by its barcode."""
    grey = np.asarray(image.convert("L"))
    height, width = grey.shape
    row = grey[height * 3 // 8 - 2 : height * 3 // 8 + 3].mean(axis=0)
    bits = [int(row[(2 * bit + 1) * width // 32] > 128) for bit in range(8, 16)]
    return int("".join(map(str, bits)), 2)


def cell(sheet: Image.Image, column: int, row: int, width: int = 320, height: int = 180) -> Image.Image:
    left, top = GAP + column * (width + GAP), GAP + row * (height + LINE + GAP)
    return sheet.crop((left, top, left + width, top + height))


def moving(preview: Path) -> list[int]:
    """The frames that a preview shows, once each time they change."""
    found = []
    with Image.open(preview) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(frame_in(image))
    return found


# --- Which frames ------------------------------------------------------------------------------------------------


def test_every_shot_has_a_cell_a_quarter_into_it(laid_out: LaidOut) -> None:
    """And in the preview it runs up to there, at the speed at which it was filmed."""
    wanted = wanted_frames(laid_out([120, 48, 1], title="Title", end_card="End", card_seconds=Fraction(1)), None)
    assert (wanted["frames"], wanted["poster"], wanted["note"], wanted["rate"]) == (217, None, "", 8)
    assert [(shot["label"], shot["number"], shot["seconds"], shot["cell"]) for shot in wanted["shots"]] == [
        ("shot 0", 1, 5.0, 53),
        ("shot 1", 2, 2.0, 155),
        ("shot 2", 3, 1 / 24, 192),
    ]
    assert [shot["preview"] for shot in wanted["shots"]] == [
        list(range(24, 96, 3)),
        list(range(144, 192, 3)),
        [192],
    ]


def test_neither_transitions_nor_fades_are_looked_at(laid_out: LaidOut) -> None:
    timeline = laid_out(
        [48, 72, 48], over=Transition("fade", Fraction(1)), fade_in=Fraction(1, 2), fade_out=Fraction(1, 2)
    )
    shots = wanted_frames(timeline, None)["shots"]
    alone = [(12, 24), (48, 72), (96, 108)]
    for shot, (first, last) in zip(shots, alone, strict=True):
        assert first <= min([shot["cell"], *shot["preview"]])
        assert max([shot["cell"], *shot["preview"]]) < last
    # Where a fade takes all of a shot, it is looked at all the same.
    dark = wanted_frames(laid_out([12, 48], fade_in=Fraction(1)), None)["shots"][0]
    assert 0 <= dark["cell"] < 12


def test_of_many_shots_some_are_evenly_chosen(laid_out: LaidOut) -> None:
    wanted = wanted_frames(laid_out([24] * 200), None)
    numbers = [shot["number"] for shot in wanted["shots"]]
    assert (len(numbers), numbers[0], numbers[-1]) == (60, 1, 200)
    assert {b - a for a, b in itertools.pairwise(numbers)} == {3, 4}
    assert wanted["note"] == "60 of 200 shots"
    seen = [shot for shot in wanted["shots"] if shot["preview"]]
    assert (len(seen), seen[0]["number"], seen[-1]["number"]) == (24, 1, 200)


@pytest.mark.parametrize("shots", [1, 2, 4, 5, 20, 24, 60, 100])
def test_a_preview_is_short(laid_out: LaidOut, shots: int) -> None:
    wanted = wanted_frames(laid_out([360] * shots), None)
    frames = sum(len(shot["preview"]) for shot in wanted["shots"])
    assert min(shots, 3) <= frames / wanted["rate"] <= 12


@pytest.mark.parametrize(("second", "frame"), [(Fraction(0), 0), (Fraction(1), 24), (Fraction(239, 240), 23)])
def test_a_poster_is_the_frame_that_is_shown_then(laid_out: LaidOut, second: Fraction, frame: int) -> None:
    assert wanted_frames(laid_out([48]), second)["poster"] == frame


@pytest.mark.parametrize("second", [Fraction(2), Fraction(-1)])
def test_no_poster_from_where_the_film_is_not(laid_out: LaidOut, second: Fraction) -> None:
    with pytest.raises(InvalidMedia, match=r"no poster at -?\d s of a film that lasts 2 s"):
        wanted_frames(laid_out([48]), second)


# --- What they show ----------------------------------------------------------------------------------------------


async def test_the_pictures_show_those_very_frames(make_clip: MakeClip, laid_out: LaidOut, tmp_path: Path) -> None:
    """Also where the way to them leads over frames that are left out: B-frames, and keyframes within a shot."""
    film = make_clip(frames=48, options={"bf": "3", "g": "20"})
    made = await stills(film, laid_out([12] * 4), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "poster.jpg", "preview.webp", "sheet.jpg"]
    with Image.open(made.poster) as poster:
        assert (poster.format, poster.size, frame_in(poster)) == ("JPEG", (320, 180), 2)
    with Image.open(made.sheet) as sheet:
        assert sheet.format == "JPEG"
        found = [frame_in(cell(sheet, n % 2, n // 2)) for n in range(4)]
        assert found == [2, 14, 26, 38]
    assert moving(made.preview) == [n for start in (0, 12, 24, 36) for n in range(start, start + 12, 3)]
    with Image.open(made.preview) as preview:
        assert (preview.format, preview.size, preview.info["loop"]) == ("WEBP", (320, 180), 0)


async def test_a_poster_from_where_it_is_wanted(make_clip: MakeClip, laid_out: LaidOut, tmp_path: Path) -> None:
    made = await stills(make_clip(frames=48), laid_out([12] * 4), tmp_path, poster_at=Fraction(31, 24))
    with Image.open(made.poster) as poster:
        assert frame_in(poster) == 31


async def test_a_dark_shot_gives_no_poster_unless_all_are(
    ffmpeg: Callable[..., None], laid_out: LaidOut, tmp_path: Path
) -> None:
    for name, greys in (("mixed", (0, 12, 160)), ("dark", (0, 12, 4))):
        colours = [f"color=0x{grey:02x}{grey:02x}{grey:02x}:s=320x180:r=24:d=0.5" for grey in greys]
        inputs = [part for colour in colours for part in ("-f", "lavfi", "-i", colour)]
        ffmpeg(*inputs, "-filter_complex", "concat=n=3", "-pix_fmt", "yuv420p", tmp_path / f"{name}.mp4")
        made = await stills(tmp_path / f"{name}.mp4", laid_out([12] * 3), tmp_path)
        with Image.open(made.poster) as poster:
            grey = np.asarray(poster.convert("L")).mean()
            assert grey == pytest.approx(160 if name == "mixed" else 12, abs=3)


async def test_they_are_turned_as_a_player_turns_the_film(
    make_clip: MakeClip, ffmpeg: Callable[..., None], laid_out: LaidOut, tmp_path: Path
) -> None:
    ffmpeg("-display_rotation", "90", "-i", make_clip(size=(480, 270)), "-c", "copy", tmp_path / "turned.mp4")
    made = await stills(tmp_path / "turned.mp4", laid_out([12]), tmp_path)
    with Image.open(made.poster) as poster, Image.open(made.preview) as preview:
        assert poster.size == (270, 480)
        assert preview.size == (180, 320)
        assert frame_in(poster.rotate(-90, expand=True)) == 2


async def test_whatever_the_film_they_stay_small(make_clip: MakeClip, laid_out: LaidOut, tmp_path: Path) -> None:
    film = make_clip(frames=96, noise=True, size=(640, 360), options={"preset": "ultrafast", "crf": "10"})
    made = await stills(film, laid_out([4] * 24), tmp_path)
    assert 100_000 < made.sheet.stat().st_size <= 1_000_000
    assert 100_000 < made.preview.stat().st_size <= 1_000_000
    with Image.open(made.preview) as preview:
        preview.seek(1)  # it still moves


async def test_the_sheet_of_a_long_film(make_clip: MakeClip, laid_out: LaidOut, tmp_path: Path) -> None:
    made = await stills(make_clip(frames=200, size=(160, 90)), laid_out([2] * 100), tmp_path)
    with Image.open(made.sheet) as sheet:
        columns = (sheet.width - GAP) // (160 + GAP)
        rows = (sheet.height - GAP - LINE) // (90 + LINE + GAP)
        assert columns * rows >= 60 > columns * (rows - 1)
        assert sheet.size == (columns * (160 + GAP) + GAP, rows * (90 + LINE + GAP) + GAP + LINE)
        last = 59
        assert frame_in(cell(sheet, last % columns, last // columns, 160, 90)) == 198
        note = np.asarray(sheet.crop((0, sheet.height - LINE, 200, sheet.height)).convert("L"))
        assert note.max() > 180


async def test_a_name_that_cannot_be_drawn_whole_is_the_shots_number(
    make_clip: MakeClip, laid_out: LaidOut, tmp_path: Path
) -> None:
    film, sheets = make_clip(), []
    for name in ("灯台", "Shot 1", "x"):
        made = await stills(film, laid_out([12], titles=[name]), tmp_path)
        with Image.open(made.sheet) as sheet:
            sheets.append(sheet.convert("RGB"))
    assert ImageChops.difference(sheets[0], sheets[1]).getbbox() is None
    assert ImageChops.difference(sheets[0], sheets[2]).getbbox() is not None


async def test_they_tell_nothing_of_where_they_were_made(
    make_clip: MakeClip, laid_out: LaidOut, tmp_path: Path
) -> None:
    made = await stills(make_clip(), laid_out([12]), tmp_path)
    for path in (made.poster, made.sheet, made.preview):
        with Image.open(path) as image:
            assert dict(image.getexif()) == {}
            assert not {"comment", "xmp", "exif", "icc_profile"} & set(image.info)
        assert str(tmp_path).encode() not in path.read_bytes()


async def test_another_film_than_the_timeline_says_is_refused(
    make_clip: MakeClip, laid_out: LaidOut, tmp_path: Path
) -> None:
    with pytest.raises(InvalidMedia, match=r"clip\.mp4 shows 12 frames instead of 13"):
        await stills(make_clip(), laid_out([13]), tmp_path)


async def test_a_folder_that_is_not_there_is_told(make_clip: MakeClip, laid_out: LaidOut, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await stills(make_clip(), laid_out([12]), tmp_path / "nowhere")
