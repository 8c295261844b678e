"""Words as pixels: where they lie, that all of them are there, and what is said where a font cannot do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFont, features

from prefect_kling.media.lettering import Kind, Lettering, draw, font_of

SIZES = [(1280, 720), (720, 1280), (720, 720), (1920, 1080), (320, 180), (90, 160)]
SENTENCE = "He climbs the stairs while the storm outside grows louder and louder"


@pytest.fixture(scope="module")
def lettering() -> Lettering:
    return font_of(None)


def brought() -> bytes:
    """The bytes of the font that Pillow brings: a real TrueType file with few letters."""
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return bytes(font.font_bytes)


def ink(image: Image.Image) -> NDArray[np.bool_]:
    """Where the letters are."""
    return np.asarray(image.convert("RGB"))[:, :, 0] > 128


def box(where: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is there."""
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def lines_in(where: NDArray[np.bool_]) -> int:
    """How many lines of letters, told by the empty rows between them; letters with dots above make no line."""
    rows = where.any(axis=1).astype(int)
    return int((np.diff(np.concatenate([[0], rows])) == 1).sum())


@pytest.mark.parametrize("size", SIZES)
def test_a_card_has_its_words_in_the_middle(lettering: Lettering, size: tuple[int, int]) -> None:
    image = lettering.image("card", "HHHHHH\nHHHHHH", size)
    assert (image.size, image.mode) == (size, "RGB")
    left, top, right, bottom = box(ink(image))
    assert abs(left - (size[0] - right)) <= 3
    assert abs(top - (size[1] - bottom)) <= max(size[1] // 40, 3)
    assert left >= size[0] * 0.09
    assert lines_in(ink(image)) == 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", ["HE", SENTENCE.upper()])
def test_a_caption_lies_at_the_bottom_within_what_every_screen_shows(
    lettering: Lettering, size: tuple[int, int], text: str
) -> None:
    image = lettering.image("caption", text, size)
    assert (image.size, image.mode) == (size, "RGBA")
    left, top, right, bottom = box(np.asarray(image)[:, :, 3] > 250)
    width, height = size
    upright = height > width
    assert left >= width * 0.05
    assert right <= width * 0.95
    assert abs((left + right) - width) <= 4
    assert top > height / 3
    assert height * (0.78 if upright else 0.88) < bottom <= height * (0.85 if upright else 0.94)
    assert np.asarray(image)[: height // 4, :, 3].max() == 0


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_a_caption_can_be_read_on_anything(lettering: Lettering, ground: int) -> None:
    """Beside every white letter there is black, whatever is behind."""
    image = lettering.image("caption", "HE IS", (640, 360))
    picture = Image.new("RGBA", image.size, (ground, ground, ground, 255))
    picture.alpha_composite(image)
    seen = np.asarray(picture.convert("L")).astype(int)
    left, top, right, bottom = box(ink(image))
    row = seen[(top + bottom) // 2, left - 2 : right + 2]
    assert row.max() == 255
    assert row.min() < 40
    assert row[: len(row) // 8].min() < 40


def test_long_words_and_many_words_fit(lettering: Lettering) -> None:
    for kind, text in [
        ("card", "Donaudampfschifffahrtsgesellschaftskapitaen"),
        ("card", "The lighthouse keeper's daughter and the storm " * 4),
        ("caption", "w" * 200),
        ("caption", SENTENCE * 7),
    ]:
        kinds: Kind = "card" if kind == "card" else "caption"
        where = ink(lettering.image(kinds, text, (1280, 720)))
        left, top, right, bottom = box(where)
        assert left > 0 < top, (kind, text)
        assert right < 1280, (kind, text)
        assert bottom < 720, (kind, text)


def test_lines_of_a_card_stay_as_they_were_written(lettering: Lettering) -> None:
    """Smaller letters rather than a line that is broken; a line that is too long for that is broken all the same."""
    assert lines_in(ink(lettering.image("card", "THE LIGHTHOUSE\nA FILM IN FIVE SHOTS", (720, 720)))) == 2
    assert lines_in(ink(lettering.image("card", "THE LIGHTHOUSE " * 6, (720, 720)))) > 2


def test_a_card_without_words_is_black(lettering: Lettering) -> None:
    assert not ink(lettering.image("card", "", (320, 180))).any()


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("Plain “words”, 100 % {of} ASCII…", ""),
        ("No – break\u00a0here — and\u202fthere", ""),  # noqa: RUF001 - drawn as what looks like them
        ("soft\u00adhyphen", ""),
        ("Café 灯台 café", "é台灯"),
        ("cafe\u0301", "é"),
        ("Привет", "Пвеирт"),
    ],
)
def test_letters_that_a_font_lacks_are_named(text: str, missing: str) -> None:
    assert font_of(brought()).missing(text) == missing


def test_the_font_that_comes_along_has_the_letters_of_europe(lettering: Lettering) -> None:
    assert lettering.missing("Café, Größe, łódź, İstanbul, tiếng Việt – Привет, Їжак, Ωραία “5 €”") == ""  # noqa: RUF001 - these letters
    assert lettering.missing("灯台 مرحبا") == "".join(sorted("灯台مرحبا"))


def test_dashes_are_drawn_as_what_looks_like_them() -> None:
    lettering = font_of(brought())
    as_written = lettering.image("card", "A – B", (320, 180))  # noqa: RUF001 - that dash
    assert as_written.tobytes() == lettering.image("card", "A - B", (320, 180)).tobytes()


def wanted(folder: Path, *texts: str) -> list[dict[str, Any]]:
    return [{"kind": "caption", "text": text, "out": str(folder / f"{n}.png")} for n, text in enumerate(texts)]


def test_nothing_is_drawn_while_letters_are_missing(lettering: Lettering, tmp_path: Path) -> None:
    assert draw(lettering, wanted(tmp_path, "One", "灯", "台灯"), (320, 180)) == {"missing": "台灯"}
    assert list(tmp_path.iterdir()) == []
    assert draw(lettering, wanted(tmp_path, "One", "Two"), (320, 180)) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png"]


def test_words_for_which_there_is_no_room_are_told(lettering: Lettering, tmp_path: Path) -> None:
    text = SENTENCE * 7
    assert draw(lettering, wanted(tmp_path, "One", text), (90, 160)) == {"too_long": text}


def test_letters_that_depend_on_each_other_need_what_arranges_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Marks without a letter of their own are such a case; drawn one behind the other they would be wrong."""
    monkeypatch.setattr(features, "check", lambda name: False)
    lettering = font_of(brought())
    monkeypatch.setattr(Lettering, "missing", lambda self, text: "")
    assert draw(lettering, wanted(tmp_path, "x\u0301 ok"), (320, 180)) == {"unshaped": "\u0301"}
    assert draw(lettering, wanted(tmp_path, "مرحبا"), (320, 180)) == {"unshaped": "".join(sorted("مرحبا"))}
    assert draw(lettering, wanted(tmp_path, "fine"), (320, 180)) == {}


def test_a_label_is_cut_where_it_is_too_wide(lettering: Lettering) -> None:
    assert lettering.label("dawn", 14, 320).width < 60
    long = lettering.label("a name that is much too long for its place", 14, 100)
    assert 80 < long.width <= 100
    assert long.getbbox() is not None
    assert lettering.label("", 14, 100).size == (1, 18)


def test_what_is_no_font_is_told() -> None:
    with pytest.raises(OSError, match="file"):
        font_of(b"\x00\x01\x00\x00 and no more than that")
