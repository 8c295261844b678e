"""From a document's cut to the cutting room's: what is wanted of the film, and of each clip but its file. Pure.

A shot's part is made without knowing which others the film shows; `FilmCut.shown` puts the shown ones in a row, as
what a shot does depends on the one before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from prefect_kling.media.cut import Cut, CutClip, Music
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.transitions import HARD, Transition
from prefect_kling.storyboard.cut import AS_IS, BY_ITSELF, width_and_height
from prefect_kling.storyboard.document import Shot, Storyboard
from prefect_kling.storyboard.inputs import references
from prefect_kling.storyboard.places import Path as DataPath

__all__ = [
    "Files",
    "FilmCut",
    "ShotCut",
    "Stretch",
    "cut_of",
    "film_cut",
    "film_seconds",
    "recipe",
    "shot_cuts",
    "stretches",
]

Files = Callable[[DataPath, str], Path | None]
"""Where the file is that a document names at a path in its data; None where it is unusable."""


@dataclass(frozen=True)
class ShotCut:
    """What the film wants of one shot's clip: a `CutClip` but for its file.

    Attributes:
        title: of its chapter: the shot's id.
        trim, transition, repeats, caption, narration: as in `CutClip`.
        starts_on: id of the shot whose last frame its clip starts on; empty for none.
        seconds: how much of its clip is shown, as planned; None where nobody knows.
    """

    title: str
    trim: tuple[Fraction, Fraction | None] | None = None
    transition: Transition = HARD
    repeats: bool = False
    caption: str = ""
    narration: Path | None = None
    starts_on: str = ""
    seconds: Fraction | None = None

    def at(self, path: Path, facts: MediaFacts | None = None) -> CutClip:
        """The clip of the film, once there is a file.

        Args:
            path: of the shot's clip.
            facts: what a probe found, where there was one.
        """
        return CutClip(
            path=path,
            title=self.title,
            facts=facts,
            trim=self.trim,
            transition=self.transition,
            repeats=self.repeats,
            caption=self.caption,
            narration=self.narration,
        )


@dataclass(frozen=True)
class FilmCut:
    """How a document's shots become a film.

    Attributes:
        cut: of the film.
        shots: each by itself, in the document's order, those that the film does not show included.
        drop_repeat: whether a shot that starts on the last frame of the one before it leaves that frame out.
        poster_at: the film's second that its poster shows; None for one that is chosen by itself.
        otio: whether an OpenTimelineIO file is wanted.
    """

    cut: Cut = field(default_factory=Cut)
    shots: tuple[ShotCut, ...] = ()
    drop_repeat: bool = False
    poster_at: Fraction | None = None
    otio: bool = False

    def shown(self, ids: Collection[str]) -> tuple[ShotCut, ...]:
        """The shots that a film of these ids shows, in its order, each as the one before it leaves it.

        The film's first shot has a transition only where a title card is before it.
        """
        found: list[ShotCut] = []
        for shot in self.shots:
            if shot.title in ids:
                found.append(self._behind(found[-1], shot) if found else self._first(shot))
        return tuple(found)

    def _first(self, shot: ShotCut) -> ShotCut:
        if not self.cut.title:
            return replace(shot, transition=HARD)
        if shot.transition == HARD and self.cut.transition != HARD:
            # A clip without a transition would be faded in from the card as the cut says, and this one says otherwise.
            return replace(shot, transition=Transition(HARD.kind, self.cut.transition.seconds))
        return shot

    def _behind(self, before: ShotCut, shot: ShotCut) -> ShotCut:
        starts_on_it = shot.starts_on == before.title
        adjacent = (before.trim is None or before.trim[1] is None) and (shot.trim is None or not shot.trim[0])
        return replace(shot, repeats=self.drop_repeat and starts_on_it and adjacent)


@dataclass(frozen=True)
class Stretch:
    """A shot's, or a card's, part in the film as planned.

    Attributes:
        shot: its id, empty for a card.
        seconds: how long; None where nobody knows.
        before, after: seconds that it shares with what is before and behind it.
    """

    shot: str
    seconds: Fraction | None
    before: Fraction
    after: Fraction


def cut_of(board: Storyboard, files: Files) -> Cut:
    """The film's cut.

    Args:
        board: whose.
        files: finds the files that it names.
    """
    said = board.cut
    music = files(("cut", "music", "file"), said.music.file) if said.music.file else None
    bed = said.music
    return Cut(
        transition=_transition(said.transition, said.transition_length),
        fade_in=_exact(said.fade_in),
        fade_out=_exact(said.fade_out),
        size=width_and_height(said.size) if said.size else None,
        fit=said.fit,
        codec=said.codec,
        loudness=None if said.loudness == AS_IS else float(said.loudness),
        sound=said.sound == "clips",
        music=Music(music, float(bed.gain), bed.loop, _exact(bed.fade), bed.ducking) if music is not None else None,
        captions=said.captions,
        title=said.title.strip(),
        end_card=said.end_card.strip(),
        font=files(("cut", "font"), said.font) if said.font else None,
    )


def shot_cuts(board: Storyboard, files: Files, seconds: Mapping[str, float | None]) -> tuple[ShotCut, ...]:
    """Each shot's part in a film, by itself.

    Args:
        board: whose shots.
        files: finds the files that they name.
        seconds: how long each clip will be, by shot; None where nobody knows.
    """
    ids = {shot.id for shot in board.shots}
    return tuple(
        ShotCut(
            title=shot.id,
            trim=_trim(shot),
            transition=_transition(
                shot.transition or board.cut.transition, shot.transition_length or board.cut.transition_length
            ),
            caption=shot.caption.strip(),
            narration=files(("shots", n, "narration"), shot.narration) if shot.narration else None,
            starts_on=next((r.value for r in references(shot) if r.is_first_frame and r.value in ids), ""),
            seconds=_shown_seconds(_trim(shot), seconds.get(shot.id)),
        )
        for n, shot in enumerate(board.shots)
    )


def film_cut(board: Storyboard, files: Files, seconds: Mapping[str, float | None]) -> FilmCut:
    """How a document's shots become a film; takes what `shot_cuts` takes."""
    said = board.cut
    return FilmCut(
        cut=cut_of(board, files),
        shots=shot_cuts(board, files, seconds),
        drop_repeat=said.drop_repeat,
        poster_at=None if said.poster_at == BY_ITSELF else _exact(said.poster_at),
        otio=said.otio,
    )


def stretches(cut: Cut, shots: Sequence[ShotCut]) -> tuple[Stretch, ...]:
    """What a film shows one after the other, cards included; it lasts their seconds less each one's `before`.

    Args:
        cut: of the film.
        shots: as `FilmCut.shown` gives them.
    """
    parts: list[tuple[str, Fraction | None, Transition]] = [(s.title, s.seconds, s.transition) for s in shots]
    if cut.title:
        parts.insert(0, ("", cut.card_seconds, HARD))
    if cut.end_card:
        parts.append(("", cut.card_seconds, cut.transition))
    shared = [*(_shared(transition) for _, _, transition in parts), Fraction(0)]
    return tuple(Stretch(shot, seconds, shared[n], shared[n + 1]) for n, (shot, seconds, _) in enumerate(parts))


def film_seconds(cut: Cut, shots: Sequence[ShotCut], otherwise: Mapping[str, Fraction]) -> Fraction:
    """How long a film lasts, as planned.

    Args:
        cut: of the film.
        shots: as `FilmCut.shown` gives them.
        otherwise: how long a shot counts where nobody knows, by shot.
    """
    parts = stretches(cut, shots)
    lasts = ((otherwise[part.shot] if part.seconds is None else part.seconds) - part.before for part in parts)
    return sum(lasts, Fraction(0))


NOT_IN_RECIPE: Final = {
    "path": "the caller says which clip it is, by its sha256; where it lies changes nothing",
    "facts": "they follow from the clip's bytes",
}
"""Fields of `CutClip` without which the film is the same, each with the reason. Every other one is in the recipe."""


def recipe(cut: Cut, shots: Sequence[ShotCut], digests: Mapping[Path, str]) -> Any:
    """Everything but the clips' own bytes that decides what a film is, as JSON-native values.

    Args:
        cut: of the film.
        shots: in its order.
        digests: sha256 of each file that these name: music, narrations, font.

    Raises:
        KeyError: a file has no digest.
    """
    clips: list[dict[str, Any]] = [_plain(shot.at(Path()), digests, leave=NOT_IN_RECIPE) for shot in shots]
    return {"cut": _plain(cut, digests), "clips": clips}


def _plain(value: Any, digests: Mapping[Path, str], leave: Collection[str] = ()) -> Any:
    if dataclasses.is_dataclass(value):
        named = {item.name: getattr(value, item.name) for item in dataclasses.fields(value) if item.name not in leave}
        return {name: _plain(said, digests) for name, said in named.items()}
    if isinstance(value, Path):
        return digests[value]
    if isinstance(value, Fraction):
        return str(value)
    return [_plain(item, digests) for item in value] if isinstance(value, tuple) else value


def _exact(written: float) -> Fraction:
    """The number as it was written: 0.1 is a tenth, which no float is."""
    return Fraction(repr(written))


def _transition(kind: str, seconds: float) -> Transition:
    return HARD if kind == HARD.kind else Transition(kind, _exact(seconds))


def _shared(transition: Transition) -> Fraction:
    return transition.seconds if transition.xfade else Fraction(0)


def _trim(shot: Shot) -> tuple[Fraction, Fraction | None] | None:
    if not any(shot.trim):
        return None
    begin, end = shot.trim
    return _exact(begin), _exact(end) if end else None


def _shown_seconds(trim: tuple[Fraction, Fraction | None] | None, seconds: float | None) -> Fraction | None:
    begin, end = trim or (Fraction(0), None)
    if end is None:
        end = None if seconds is None else _exact(seconds)
    return None if end is None else end - begin
