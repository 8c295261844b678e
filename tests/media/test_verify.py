"""A film that is not what was meant does not get its name; the text says what is off."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media import join as joining
from prefect_kling.media.cut import CutClip
from prefect_kling.media.join import join
from prefect_kling.media.timeline import Chapter
from prefect_kling.media.verify import Expected, Measured, faults, measure, verify

EXPECTED = Expected(3, Fraction(24), 320, 180, True, (Chapter("a", 0, 1), Chapter("b", 1, 3)))
RIGHT = Measured(
    pictures=1,
    size=(320, 180),
    presentation=(Fraction(0), Fraction(2, 24), Fraction(1, 24)),
    decoding=(Fraction(-1, 24), Fraction(0), Fraction(1, 24)),
    sound=Fraction(3, 24) + Fraction(2, 100),
    chapters=(("a", Fraction(0), Fraction(42, 1000)), ("b", Fraction(42, 1000), Fraction(125, 1000))),
    faststart=True,
    gaps=0,
    captions=0,
)


def test_a_right_film_has_no_faults() -> None:
    assert faults(RIGHT, EXPECTED) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"pictures": 2}, "2 video tracks"),
        ({"size": (640, 360)}, "640x360 instead of 320x180"),
        ({"presentation": RIGHT.presentation[:2]}, "2 frames instead of 3"),
        ({"presentation": tuple(t + Fraction(1, 48) for t in RIGHT.presentation)}, "first is shown at 0.021"),
        ({"presentation": (Fraction(0), Fraction(1, 24), Fraction(3, 24))}, "not evenly spaced"),
        ({"decoding": (Fraction(0), Fraction(0), Fraction(1, 24))}, "decoding times"),
        ({"sound": None}, "no sound"),
        ({"sound": Fraction(3, 24) + Fraction(51, 1000)}, "its sound ends at 0.176 s"),
        ({"sound": Fraction(3, 24) - Fraction(51, 1000)}, "its sound ends at 0.074 s"),
        ({"chapters": RIGHT.chapters[:1]}, "1 chapters instead of 2"),
        ({"chapters": (RIGHT.chapters[1], RIGHT.chapters[0])}, "should be 'a'"),
        ({"gaps": 2}, "breaks off 2 times"),
        ({"captions": 1}, "1 captions instead of 0"),
        ({"faststart": False}, "index comes after"),
    ],
)
def test_each_fault_is_named(wrong: dict[str, Any], words: str) -> None:
    [fault] = faults(replace(RIGHT, **wrong), EXPECTED)
    assert words in fault


def test_sound_where_none_was_meant_is_a_fault() -> None:
    assert faults(RIGHT, replace(EXPECTED, sound=False)) == ["it has sound although there is none to be heard"]


async def test_a_real_film_is_measured_as_it_is(shots: list[Path], tmp_path: Path) -> None:
    film = await join([CutClip(shot, shot.stem) for shot in shots], tmp_path / "film.mp4")
    measured = measure(film.path, lambda: None)
    assert (measured.pictures, len(measured.presentation), measured.faststart) == (1, 36, True)
    assert measured.sound == pytest.approx(1.5, abs=0.001)
    expected = Expected(35, Fraction(24), 320, 180, True, film.timeline.chapters)
    with pytest.raises(InvalidMedia, match="thrown away: it shows 36 frames instead of 35"):
        verify(film.path, expected, lambda: None)


def test_nothing_is_read_of_a_film_that_is_closed(shots: list[Path], tmp_path: Path) -> None:
    film = asyncio.run(join([CutClip(shots[0], "a")], tmp_path / "film.mp4"))
    measured = (
        "import sys; from pathlib import Path; from prefect_kling.media.verify import measure; "
        "print(float(measure(Path(sys.argv[1]), lambda: None).sound))"
    )
    # glibc fills what is freed, so that what was read too late is seen to be wrong.
    perturbed = {**os.environ, "MALLOC_PERTURB_": "165"}
    command = [sys.executable, "-c", measured, str(film.path)]
    said = subprocess.run(command, env=perturbed, capture_output=True, text=True, check=True).stdout
    assert float(said) == pytest.approx(0.5, abs=0.001)


async def test_an_unreadable_film_is_not_right(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(InvalidMedia, match="cannot be read back"):
        verify(tmp_path / "film.mp4", EXPECTED, lambda: None)


async def test_a_film_that_fails_its_check_is_thrown_away(
    shots: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InvalidMedia("The film that was written is not right.")

    monkeypatch.setattr(joining, "verify", refuse)
    with pytest.raises(InvalidMedia, match="not right"):
        await join([CutClip(shots[0], "a")], tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []
