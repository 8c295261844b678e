"""`prefect-kling join`: the cutting room for any clips, without a storyboard and without Prefect."""

from __future__ import annotations

import asyncio
import json as jsonlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.media.scratch import writable
from prefect_kling.terminal import announce, progress_by_frames

if TYPE_CHECKING:
    from prefect_kling.media.cut import CutClip
    from prefect_kling.media.facts import MediaFacts
    from prefect_kling.media.join import Film
    from prefect_kling.storyboard.cutting import FilmCut

__all__ = ["join"]

PerClip = Annotated[tuple[str, ...], Parameter(negative="")]
Flag = Annotated[bool, Parameter(negative="")]


def join(
    *clips: Path,
    out: Path,
    transition: str | None = None,
    transition_length: float | None = None,
    fade_in: float | None = None,
    fade_out: float | None = None,
    size: str | None = None,
    fit: str | None = None,
    codec: str | None = None,
    loudness: float | None = None,
    sound: str | None = None,
    music: Path | None = None,
    music_gain: float | None = None,
    music_loop: bool | None = None,
    music_fade: float | None = None,
    music_ducking: bool | None = None,
    captions: str | None = None,
    title: str | None = None,
    end_card: str | None = None,
    font: Path | None = None,
    trim: PerClip = (),
    into: PerClip = (),
    caption: PerClip = (),
    narration: PerClip = (),
    around: Flag = False,
    poster_at: float | None = None,
    otio: Flag = False,
    json: Flag = False,
) -> int:
    """Join clips, in order, into one MP4 with a chapter each. docs/cutting.md tells how, and what each option does.

    Options that begin with a clip's number may be repeated: `--trim 2=0.5,3 --caption "2=Later that day"`.

    Parameters
    ----------
    clips
        Video files, at least one.
    out
        The film to write.
    transition
        Between clips: cut, crossfade, black, white, wipe, or another kind of ffmpeg's xfade.
    transition_length
        Seconds of it, 0.5 where it is not said.
    fade_in
        Seconds from black at the start.
    fade_out
        Seconds to black at the end.
    size
        Of the film in pixels, such as 1080x1920; what most clips have where it is not said.
    fit
        What is done with clips of another shape: pad, crop or stretch.
    codec
        as-is, or h264 to encode HEVC anew.
    loudness
        LUFS to reach, -16 where it is not said; 0 leaves the level as it is.
    sound
        clips, or none to leave out the clips' own.
    music
        A sound file to lie under the film.
    music_gain
        dB that it is turned up by, -12 where it is not said.
    music_loop
        Whether it starts again where it is too short.
    music_fade
        Seconds in which it comes and goes, 2 where it is not said.
    music_ducking
        Whether it steps back while something else is heard.
    captions
        soft, burn or none.
    title
        Words on a card before the first clip.
    end_card
        Words on a card after the last clip.
    font
        A TrueType or OpenType file for words in the picture.
    trim
        NUMBER=IN,OUT: seconds of that clip to show; OUT 0 is its end.
    into
        NUMBER=KIND: the transition into that clip from the one before, in place of --transition.
    caption
        NUMBER=TEXT: words to be read with that clip.
    narration
        NUMBER=FILE: a sound file that begins with that clip.
    around
        Also write poster, contact sheet, preview, subtitles and manifest beside the film.
    poster_at
        Second of the film for the poster.
    otio
        Also write an OpenTimelineIO file beside the film, and what --around does.
    json
        Print one JSON document to stdout.
    """
    if not clips:
        raise StoryboardError("join needs at least one clip")
    music_fields = {"gain": music_gain, "loop": music_loop, "fade": music_fade, "ducking": music_ducking}
    if music is None and any(value is not None for value in music_fields.values()):
        raise StoryboardError("options of --music need --music FILE")
    asked = _Asked(
        clips=clips,
        cut=_said(
            {
                "transition": transition,
                "transition_length": transition_length,
                "fade_in": fade_in,
                "fade_out": fade_out,
                "size": size,
                "fit": fit,
                "codec": codec,
                "loudness": loudness,
                "sound": sound,
                "music": None if music is None else _said({"file": str(music), **music_fields}),
                "captions": captions,
                "title": title,
                "end_card": end_card,
                "font": None if font is None else str(font),
                "poster_at": poster_at,
                "otio": otio or None,
            }
        ),
        shots=[dict[str, Any]() for _ in clips],
    )
    asked.take("--trim", "trim", trim, lambda value: value.split(","))
    asked.take("--into", "transition", into)
    asked.take("--caption", "caption", caption)
    asked.take("--narration", "narration", narration)
    parts, film_cut = asked.read()
    if otio:
        from prefect_kling.media.exchange import check_installed

        check_installed()
    writable(out)
    out = out.absolute()
    film, beside = asyncio.run(_joined(parts, film_cut, out, around=around))
    if json:
        text = jsonlib.dumps(_document(film, beside), indent=2, ensure_ascii=False)
        print(text.encode("utf-8", "backslashreplace").decode())  # noqa: T201 - what --json is for
    announce(f"{film.frames} frames, {float(film.seconds):.2f} s, by {film.method}: {film.reason}")
    if film.sound is not None and film.sound.gain.remark:
        announce(film.sound.gain.remark)
    announce(f"Film: {film.path.resolve()}")
    for path in beside.values():
        announce(f"      {path.resolve()}")
    return 0


@dataclass(frozen=True)
class _Asked:
    """What the command was asked for, in the words of a storyboard's `cut` and `shots`: the same rules hold."""

    clips: Sequence[Path]
    cut: Mapping[str, Any]
    shots: Sequence[dict[str, Any]]

    def take(
        self, option: str, field: str, given: Sequence[str], read: Callable[[str], Any] = lambda value: value
    ) -> None:
        """Takes `NUMBER=VALUE` for a field of that clip."""
        for text in given:
            number, equals, value = text.partition("=")
            if not equals or not number.strip().isdecimal() or not 1 <= int(number) <= len(self.clips):
                raise StoryboardError(f"{option} takes NUMBER=VALUE with a clip's number, 1 to {len(self.clips)}")
            self.shots[int(number) - 1][field] = read(value)

    def read(self) -> tuple[list[CutClip], FilmCut]:
        """The clips as they are wanted, and the cut.

        Raises:
            StoryboardError: an option's value is not what it takes, or names a file that is not there.
        """
        from pydantic import ValidationError

        from prefect_kling.storyboard.cutting import film_cut
        from prefect_kling.storyboard.document import Storyboard

        ids = [f"clip{number}" for number in range(1, len(self.clips) + 1)]
        shots = [{"id": name, "prompt": name, **shot} for name, shot in zip(ids, self.shots, strict=True)]
        try:
            board = Storyboard.model_validate({"title": "film", "shots": shots, "cut": self.cut})
        except ValidationError as error:
            raise StoryboardError("; ".join(_told(found) for found in error.errors(include_url=False))) from None
        found = film_cut(board, _there, {})
        shown = zip(found.shown(ids), self.clips, strict=True)
        return [replace(shot.at(clip.absolute()), title=_words(clip)) for shot, clip in shown], found


async def _joined(
    parts: Sequence[CutClip], wanted: FilmCut, out: Path, *, around: bool
) -> tuple[Film, dict[str, Path]]:
    from prefect_kling.media.probe import probe

    # While children look at the clips, this process imports what joins them; both take a third of a second.
    looking = asyncio.create_task(probe([part.path for part in parts]))
    try:
        join_files = await asyncio.to_thread(_cutting_room)
        found = await looking
        parts = [replace(part, facts=facts) for part, facts in zip(parts, found, strict=True)]
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    if wanted.poster_at is not None:
        _check_poster(parts, found, wanted)
    with progress_by_frames() as on_progress:
        film = await join_files(parts, out, wanted.cut, on_progress=on_progress)
    return film, await _beside(film, parts, wanted, out) if around or wanted.otio else {}


def _check_poster(parts: Sequence[CutClip], facts: Sequence[MediaFacts], wanted: FilmCut) -> None:
    """Tells that there is no such second before minutes are spent on the film."""
    from prefect_kling.media.stills import wanted_frames
    from prefect_kling.media.target import target_of
    from prefect_kling.media.timeline import lay_out

    rate = target_of(facts, wanted.cut).frame_rate
    wanted_frames(lay_out(parts, facts, wanted.cut, rate), wanted.poster_at)


def _cutting_room() -> Callable[..., Awaitable[Film]]:
    from prefect_kling.media.join import join as join_files

    return join_files


async def _beside(film: Film, parts: Sequence[CutClip], wanted: FilmCut, out: Path) -> dict[str, Path]:
    from prefect_kling.clips import sha256_of
    from prefect_kling.media.around import around
    from prefect_kling.media.manifest import ShotRecord
    from prefect_kling.media.scratch import publish, workshop

    records = [ShotRecord(part.title, part.path, await asyncio.to_thread(sha256_of, part.path)) for part in parts]
    with workshop(out) as folder:
        made = await around(
            film,
            wanted.cut,
            records,
            folder,
            title=_words(out),
            home=out.parent,
            poster_at=wanted.poster_at,
            otio=wanted.otio,
        )
        beside = {ending: out.with_name(f"{out.stem}.{ending}") for ending in made}
        for ending, path in beside.items():
            publish(made[ending], path)
    return beside


def _there(_: object, value: str) -> Path:
    path = Path(value)
    if not path.is_file():
        raise StoryboardError(f"there is no file {path}")
    return path.absolute()


def _words(path: Path) -> str:
    """A file's name without its ending, as text, which the bytes of a name need not be."""
    return os.fsencode(path.stem).decode("utf-8", "replace")


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _told(found: Mapping[str, Any]) -> str:
    """What is wrong with an option, by the name it has here."""
    match found["loc"]:
        case ("cut", "music", field, *_):
            option = f"--music-{field}"
        case ("cut", field, *_):
            option = f"--{str(field).replace('_', '-')}"
        case ("shots", int(number), field, *_):
            option = f"--{'into' if field == 'transition' else field} {number + 1}=…"
        case place:
            option = ".".join(map(str, place))
    return f"{option}: {found['msg']}"


def _document(film: Film, beside: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "film": str(film.path),
        "frames": film.frames,
        "seconds": float(film.seconds),
        "sha256": film.sha256,
        "method": film.method,
        "reason": film.reason,
        "sound": None if film.sound is None else film.sound.gain.remark,
        "beside": {ending: str(path) for ending, path in beside.items()},
    }
