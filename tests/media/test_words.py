"""The film's words as images: which there are, somebody's font, and what an operator is told where it will not do."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.picture import Images
from prefect_kling.media.target import Target
from prefect_kling.media.timeline import Timeline, lay_out
from prefect_kling.media.words import draw_words, images_of

SIZE = (320, 180)
TARGET = Target(*SIZE, Fraction(24))


def film(as_probed: Callable[..., MediaFacts], cut: Cut, *captions: str) -> Timeline:
    clips = [CutClip(Path(f"/{n}.mp4"), str(n), caption=caption) for n, caption in enumerate(captions)]
    return lay_out(clips, [as_probed(clip.path) for clip in clips], cut, Fraction(24))


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TrueType file: the one that Pillow brings, as somebody's own."""
    found = ImageFont.load_default(20)
    assert isinstance(found, ImageFont.FreeTypeFont)
    path = tmp_path_factory.mktemp("fonts") / "brand font.ttf"
    path.write_bytes(found.font_bytes)
    return path


async def test_cards_and_burnt_captions_are_images_as_large_as_the_film(
    as_probed: Callable[..., MediaFacts], tmp_path: Path
) -> None:
    cut = Cut(title="Lighthouse", end_card="The end", captions="burn")
    found = await images_of(film(as_probed, cut, "One", " \n ", "Two"), cut, TARGET, tmp_path)
    assert (list(found.cards), list(found.captions)) == ([0, 4], [1, 3])
    files = [*found.cards.values(), *found.captions.values()]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    for path in files:
        with Image.open(path) as image:
            assert (image.format, image.size) == ("PNG", SIZE)
            assert image.mode == ("RGB" if path in found.cards.values() else "RGBA")
            assert np.asarray(image).max() == 255


@pytest.mark.parametrize("captions", ["soft", "none"])
async def test_captions_that_are_not_burnt_in_need_no_letters(
    as_probed: Callable[..., MediaFacts], tmp_path: Path, captions: str
) -> None:
    cut = Cut(captions="soft" if captions == "soft" else "none")
    assert await images_of(film(as_probed, cut, "灯台"), cut, TARGET, tmp_path) == Images({}, {})
    assert list(tmp_path.iterdir()) == []


async def test_somebodys_font_draws_them_in_the_child(
    as_probed: Callable[..., MediaFacts], tmp_path: Path, font: Path
) -> None:
    plain, branded = Cut(title="Lighthouse"), Cut(title="Lighthouse", font=font)
    for cut, folder in ((plain, tmp_path / "plain"), (branded, tmp_path / "branded")):
        folder.mkdir()
        await images_of(film(as_probed, cut, ""), cut, TARGET, folder)
    with Image.open(tmp_path / "plain/card0.png") as ours, Image.open(tmp_path / "branded/card0.png") as theirs:
        assert np.asarray(theirs).max() == 255
        # The same letters; only how they are set may differ a little.
        assert np.asarray(theirs).mean() == pytest.approx(np.asarray(ours).mean(), rel=0.2)


async def test_letters_that_are_not_there_are_named_with_a_way_out(
    as_probed: Callable[..., MediaFacts], tmp_path: Path, font: Path
) -> None:
    cut = Cut(title="Café", captions="burn")
    with pytest.raises(InvalidMedia, match=r"does not have the letters 台 灯; name a TrueType or OpenType file"):
        await images_of(film(as_probed, cut, "灯台"), cut, TARGET, tmp_path)
    cut = Cut(title="Café", font=font)
    with pytest.raises(InvalidMedia, match=r"font .*brand font\.ttf does not have the letters é; name another file"):
        await images_of(film(as_probed, cut, ""), cut, TARGET, tmp_path)
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 50)))
    with pytest.raises(InvalidMedia, match="and 30 more; name"):
        await images_of(film(as_probed, Cut(title=many), ""), Cut(title=many), TARGET, tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_too_many_words_are_told(as_probed: Callable[..., MediaFacts], tmp_path: Path) -> None:
    cut = Cut(captions="burn")
    timeline = film(as_probed, cut, "many words " * 45)
    with pytest.raises(InvalidMedia, match=r"no room for these words in a picture of 90x160, so make them fewer: many"):
        await images_of(timeline, cut, Target(90, 160, Fraction(24)), tmp_path)


def truncated(font: Path) -> bytes:
    return font.read_bytes()[:3000]


def scrambled(font: Path) -> bytes:
    data = bytearray(font.read_bytes())
    data[200:] = bytes(byte ^ 0x5A for byte in data[200:])
    return bytes(data)


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda font: b"",
    "a web page": lambda font: b"<html>Not found</html>",
    "a bitmap font": lambda font: b"STARTFONT 2.1\nFONT x\nSIZE 8 75 75\nFONTBOUNDINGBOX 8 8 0 0\nCHARS 0\nENDFONT\n",
    "only its beginning": lambda font: b"\x00\x01\x00\x00" + b"\xff" * 60,
    "cut off": truncated,
    "scrambled": scrambled,
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_what_is_no_font_is_refused_by_name(tmp_path: Path, font: Path, kind: str) -> None:
    path, folder = tmp_path / "odd.ttf", tmp_path / "out"
    folder.mkdir()
    path.write_bytes(HOSTILE[kind](font))
    wanted = [{"kind": "card", "text": "Lighthouse", "out": str(folder / "card.png")}]
    with pytest.raises(InvalidMedia, match=r"odd\.ttf"):
        await draw_words(wanted, SIZE, path, folder)
    assert list(folder.iterdir()) == []


async def test_what_is_no_file_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    wanted = [{"kind": "card", "text": "Lighthouse", "out": str(tmp_path / "card.png")}]
    os.mkfifo(tmp_path / "pipe.ttf")
    for path in (tmp_path / "pipe.ttf", tmp_path, tmp_path / "missing.ttf"):
        with pytest.raises(InvalidMedia, match=path.name):
            await draw_words(wanted, SIZE, path, tmp_path)


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path, font: Path) -> None:
    folder = tmp_path / "nowhere"
    wanted = [{"kind": "card", "text": "Lighthouse", "out": str(folder / "card.png")}]
    for given in (None, font):
        with pytest.raises(FileNotFoundError):
            await draw_words(wanted, SIZE, given, folder)
