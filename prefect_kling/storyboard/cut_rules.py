"""What cannot be cut as a document says, told before anything is bought. Nothing but where files are is looked up.

Lengths are those that are planned: a clip's own may be a frame or so longer, and the cutting room counts its frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Final

from prefect_kling.storyboard.cutting import FilmCut, ShotCut, Stretch, film_cut, film_seconds, stretches
from prefect_kling.storyboard.document import Music, Shot, Storyboard
from prefect_kling.storyboard.inputs import Unusable, local_file
from prefect_kling.storyboard.places import Path as DataPath
from prefect_kling.storyboard.places import Problems, label
from prefect_kling.storyboard.reader import Document

__all__ = ["FONTS", "check_film", "idle_fields", "planned_film"]

Mistakes = list[tuple[DataPath, str]]
"""What is wrong: the path of a value in the document's data, and a sentence."""

FONTS: Final = (".ttf", ".otf", ".ttc", ".otc")
_SAID_IN_VAIN: Final = ("trim", "transition", "narration", "caption")


def planned_film(document: Document, lengths: Mapping[str, float | None], problems: Problems) -> FilmCut:
    """How a document's shots become a film.

    Args:
        document: as read.
        lengths: seconds of each shot's clip, as planned; None where nobody knows.
        problems: takes what cannot be; what is returned is of use where there was nothing.
    """
    board = document.storyboard
    mistakes: Mistakes = []

    def file(path: DataPath, value: str) -> Path | None:
        wrong = _font_mistake(value) if path[-1] == "font" else None
        try:
            if wrong is None:
                return local_file(value, document.root, allow_outside=document.allow_outside)
        except Unusable as error:
            wrong = str(error)
        mistakes.append((path, wrong))
        return None

    film = film_cut(board, file, lengths)
    mistakes += _cut_mistakes(board)
    for n, shot in enumerate(board.shots):
        mistakes += [(("shots", n, *path), said) for path, said in _shot_mistakes(shot, lengths.get(shot.id))]
    if not mistakes:
        mistakes += _film_mistakes(board, film, film.shown({shot.id for shot in board.shots if shot.in_cut}))
    _note(mistakes, document, problems)
    return film


def check_film(document: Document, film: FilmCut, shots: Sequence[ShotCut]) -> None:
    """Checks a film of some shots alone: their neighbours are others than in the whole one.

    Args:
        document: as read.
        film: of the whole document.
        shots: that are shown, as `FilmCut.shown` gives them.

    Raises:
        StoryboardError: it cannot be cut as the document says, a line for each reason: `FILE:LINE:COLUMN: message`.
    """
    problems = Problems(document.source)
    found = _film_mistakes(document.storyboard, film, shots)
    _note([(path, f"in a film of these shots alone, {said}") for path, said in found], document, problems)
    problems.raise_any()


def _note(mistakes: Iterable[tuple[DataPath, str]], document: Document, problems: Problems) -> None:
    names = {n: shot.id for n, shot in enumerate(document.storyboard.shots)}
    for path, message in mistakes:
        problems.add(document.positions.of(*path), f"{label(path, names)}: {message}")


def _font_mistake(name: str) -> str | None:
    """Why a file cannot be a font, by its name; None where it can."""
    if PurePath(name).suffix.lower() in FONTS:
        return None
    return f"a font is a TrueType or OpenType file, with a name that ends in {', '.join(FONTS)}"


def _cut_mistakes(board: Storyboard) -> Iterator[tuple[DataPath, str]]:
    """What of a cut makes no sense whatever the clips are: the path of a value in the document, and a sentence."""
    music = board.cut.music
    if not music.file and music != Music():
        yield ("cut", "music"), "no file is named; say file: bed.mp3"
    if board.cut.title.strip():
        return
    first = next((n for n, shot in enumerate(board.shots) if shot.in_cut), None)
    if first is not None and board.shots[first].transition not in ("", "cut"):
        yield (
            ("shots", first, "transition"),
            "this is the film's first shot, and nothing goes over into it; fade_in of the cut begins a film softly",
        )


def _shot_mistakes(shot: Shot, seconds: float | None) -> Iterator[tuple[DataPath, str]]:
    """What is wrong with a shot's own part in the film: the path of a value within it, and a sentence.

    Args:
        shot: as written.
        seconds: how long its clip will be; None where nobody knows.
    """
    if any(shot.trim):
        begin, end = shot.trim
        if end and begin >= end:
            yield ("trim",), f"in ({begin:g} s) has to be before out ({end:g} s)"
        elif seconds is not None and max(begin, end) > seconds:
            yield ("trim",), f"its clip lasts {seconds:g} s, and this goes to {max(begin, end):g} s"
        elif seconds is not None and begin >= seconds:
            yield ("trim",), f"its clip lasts {seconds:g} s, so nothing is left of it from {begin:g} s on"


def idle_fields(shot: Shot, board: Storyboard) -> Iterator[str]:
    """What a shot says of the film and that changes nothing, a sentence each."""
    if not shot.in_cut:
        yield from (
            f"{name}: it has no effect, as the film does not show this shot"
            for name in _SAID_IN_VAIN
            if getattr(shot, name)
        )
    elif shot.transition_length and (shot.transition or board.cut.transition) == "cut":
        yield "transition_length: it has no effect on a hard cut; say a transition as well"


def _film_mistakes(board: Storyboard, film: FilmCut, shots: Sequence[ShotCut]) -> Iterator[tuple[DataPath, str]]:
    """What of a film does not fit together: the path of a value in the document, and a sentence.

    Args:
        board: as written.
        film: made of it.
        shots: that the film shows, as `FilmCut.shown` gives them.
    """
    parts = stretches(film.cut, shots)
    numbers = {shot.id: n for n, shot in enumerate(board.shots)}
    for number, part in enumerate(parts):
        if part.seconds is not None and part.before + part.after >= part.seconds:
            following = parts[number + 1].shot if number + 1 < len(parts) else ""
            yield _said_at(board, numbers, part, following), _crowded(part)
    if any(part.seconds is None for part in parts):
        return  # what follows depends on the whole film's length
    lasts = film_seconds(film.cut, shots, {})
    if film.cut.fade_in + film.cut.fade_out > lasts:
        path = ("cut", "fade_in" if film.cut.fade_in > film.cut.fade_out else "fade_out")
        yield path, f"the film lasts {_said(lasts)} s, less than fade_in and fade_out together take"
    if film.poster_at is not None and film.poster_at >= lasts:
        yield ("cut", "poster_at"), f"the film lasts {_said(lasts)} s, so there is no picture at this second"


def _crowded(part: Stretch) -> str:
    named = f"shot '{part.shot}'" if part.shot else "a card"
    return (
        f"{named} is seen for {_said(part.seconds or Fraction(0))} s, and the transitions around it take "
        f"{_said(part.before + part.after)} s, so that nothing of it is seen alone; make them shorter, or cut hard"
    )


def _said_at(board: Storyboard, numbers: Mapping[str, int], part: Stretch, following: str) -> DataPath:
    """Where the length of a transition around a stretch is said: by the shot, the next one, or the cut."""
    for name, shared in ((part.shot, part.before), (following, part.after)):
        for field in ("transition_length", "transition"):
            if name and shared and getattr(board.shots[numbers[name]], field):
                return ("shots", numbers[name], field)
    return ("cut", "transition_length")


def _said(seconds: Fraction) -> str:
    return f"{float(seconds):.3f}".rstrip("0").rstrip(".")
