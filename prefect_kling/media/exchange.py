"""The film as an OpenTimelineIO file, so that an editor goes on where the cutting room stops (J and L cuts, colour).

How a film becomes OpenTimelineIO's model (opentimelineio.readthedocs.io, "Timeline structure"):

- Clips and cards lie one behind the other and do not overlap: each has the frames between the middles of the
  transitions at its ends. A transition reaches from there into both, into frames which the clips have beyond what
  they show, so that nothing is shortened twice and the tracks are as long as the film.
- Cards are generators of the kind `card`; their words are a parameter and a marker. Captions are markers.
- The clips' own sound, narration and music are tracks of their own. What the cutting room does to them (loudness,
  ducking, fades, the film's fades) is not baked in: it is told under `prefect-kling` in the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.media.addresses import relative_url
from prefect_kling.media.cut import Cut
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.scratch import publish, scratch
from prefect_kling.media.timeline import Card, Scene, Timeline, film_frames

__all__ = ["check_installed", "write_otio"]

OURS = "prefect-kling"
VERSION = 1
DISSOLVES = ("fade", "crossfade", "dissolve")


def check_installed() -> None:
    """Says so before anything is bought, if OpenTimelineIO is missing.

    Raises:
        StoryboardError: it is not installed.
    """
    _library()


def write_otio(
    timeline: Timeline,
    cut: Cut,
    out: Path,
    title: str,
    *,
    folder: Path | None,
    locations: Mapping[Path, str] | None = None,
    lengths: Mapping[Path, Fraction] | None = None,
) -> None:
    """Writes the film's timeline. Its times are the film's own, to the frame, and it names no machine.

    Args:
        timeline: the film.
        cut: how it was cut.
        out: the file's name, ending in `.otio`; it replaces what has it.
        title: of the film.
        folder: where the file will lie in the end; media are named relative to it. None where that is no local folder:
            then local files are only named.
        locations: where files are kept in the end, a path or a URL, by the path at which they are now; a file that is
            not in it stays where it is.
        lengths: seconds of the music and of each narration, by its path. What is not in it is taken to last until the
            next narration, or the film's end.

    Raises:
        StoryboardError: OpenTimelineIO is not installed.
        OSError: the file cannot be written.
    """
    otio = _library()
    writer = _Writer(otio, timeline, folder, locations or {}, lengths or {})
    document = otio.schema.Timeline(name=title, metadata={OURS: _about(timeline, cut)})
    document.tracks.extend(writer.tracks(cut))
    text = otio.adapters.write_to_string(document, "otio_json")
    with scratch(out) as work:
        work.write_text(text, "utf-8")
        publish(work, out)


def _library() -> ModuleType:
    try:
        import opentimelineio  # an extra, and slow to import
    except ModuleNotFoundError as error:
        raise StoryboardError(
            "An .otio file needs OpenTimelineIO, which is not installed: pip install 'prefect-kling[edit]'"
        ) from error
    library: ModuleType = opentimelineio
    return library


def _about(timeline: Timeline, cut: Cut) -> dict[str, Any]:
    return {
        "version": VERSION,
        "frame_rate": str(timeline.rate),
        "frames": timeline.frames,
        "fade_in_frames": timeline.fade_in,
        "fade_out_frames": timeline.fade_out,
        "fit": cut.fit,
        "loudness": cut.loudness,
    }


@dataclass(frozen=True)
class _Writer:
    """Makes OpenTimelineIO's objects for one film."""

    otio: ModuleType
    timeline: Timeline
    folder: Path | None
    locations: Mapping[Path, str]
    lengths: Mapping[Path, Fraction]

    def tracks(self, cut: Cut) -> list[Any]:
        """All of the film's tracks."""
        scenes = self.timeline.scenes
        tracks = [self.track("Picture", "Video", [self.picture(scene) for scene in scenes])]
        if cut.sound and any(_heard(scene) for scene in scenes):
            tracks.append(self.track("Sound", "Audio", [self.sound(scene) for scene in scenes]))
        tracks += self.narrations()
        if cut.music is not None:
            about = {"gain_db": cut.music.gain, "fade_seconds": float(cut.music.fade), "ducking": cut.music.ducking}
            track = self.otio.schema.Track(name="Music", kind="Audio", metadata={OURS: about})
            track.extend(self.music(cut.music.path, cut.music.loop))
            tracks.append(track)
        return tracks

    def track(self, name: str, kind: str, items: Sequence[Any]) -> Any:
        """A track of the scenes' items with the transitions between them."""
        track = self.otio.schema.Track(name=name, kind=kind)
        for scene, item in zip(self.timeline.scenes, items, strict=True):
            if scene.before:
                track.append(self.transition(scene))
            track.append(item)
        return track

    def transition(self, scene: Scene) -> Any:
        """The one into a scene: how far it reaches to both sides of the middle."""
        earlier = scene.before // 2
        kind = scene.transition.kind
        return self.otio.schema.Transition(
            name=kind,
            transition_type="SMPTE_Dissolve" if kind in DISSOLVES else "Custom_Transition",
            in_offset=self.time(earlier),
            out_offset=self.time(scene.before - earlier),
            metadata={OURS: {"kind": kind, "frames": scene.before}},
        )

    def picture(self, scene: Scene) -> Any:
        """A clip's or a card's picture, with its words as a marker."""
        part, name, words, colour = self.part(scene), scene.title, scene.caption, "YELLOW"
        if isinstance(scene.source, Card):
            name, words, colour = "Card", scene.source.text, "WHITE"
            media = self.otio.schema.GeneratorReference(
                name=name,
                generator_kind="card",
                parameters={"text": words},
                available_range=self.range(0, scene.frames),
            )
        else:
            media = self.clip_file(scene.source)
        marker = self.otio.schema.Marker(name=words, marked_range=part, color=colour)
        return self.otio.schema.Clip(
            name=name, media_reference=media, source_range=part, markers=[marker] if words else []
        )

    def sound(self, scene: Scene) -> Any:
        """A clip's own sound, or a gap as long."""
        part = self.part(scene)
        if not isinstance(scene.source, MediaFacts) or scene.source.audio is None:
            return self.otio.schema.Gap(source_range=self.range(0, part.duration.value))
        return self.otio.schema.Clip(name=scene.title, media_reference=self.clip_file(scene.source), source_range=part)

    def part(self, scene: Scene) -> Any:
        """Which frames of its source lie between the middles of the transitions around it."""
        start, end = scene.seen
        return self.range(scene.first + start - scene.start, end - start)

    def clip_file(self, clip: MediaFacts) -> Any:
        """A whole clip."""
        return self.file(clip.path, self.range(0, film_frames(clip, self.timeline.rate)))

    def file(self, path: Path, whole: Any) -> Any:
        """A file, as it is found from where the document will lie."""
        url = relative_url(self.locations.get(path, path.absolute()), self.folder)
        return self.otio.schema.ExternalReference(target_url=url, available_range=whole)

    def narrations(self) -> list[Any]:
        """As many tracks as are needed for none to overlap another."""
        voices = [(scene.start, scene.narration) for scene in self.timeline.scenes if scene.narration is not None]
        tracks: list[Any] = []
        ends: list[int] = []
        for number, (start, path) in enumerate(voices):
            following = voices[number + 1][0] if number + 1 < len(voices) else self.timeline.frames
            frames = max(min(self.frames_of(path) or following - start, self.timeline.frames - start), 1)
            lane = next((n for n, end in enumerate(ends) if end <= start), len(ends))
            if lane == len(ends):
                tracks.append(self.otio.schema.Track(name="Narration", kind="Audio"))
                ends.append(0)
            if start > ends[lane]:
                tracks[lane].append(self.otio.schema.Gap(source_range=self.range(0, start - ends[lane])))
            tracks[lane].append(self.recording(path, frames))
            ends[lane] = start + frames
        return tracks

    def music(self, path: Path, loop: bool) -> list[Any]:
        """The bed from the film's start to its end, as often as it has to begin anew."""
        left, items = self.timeline.frames, []
        whole = self.frames_of(path) or left
        while left:
            items.append(self.recording(path, min(whole, left)))
            left = left - min(whole, left) if loop else 0
        return items

    def recording(self, path: Path, frames: int) -> Any:
        """A sound file from its start on."""
        media = self.file(path, self.range(0, max(self.frames_of(path) or 0, frames)))
        return self.otio.schema.Clip(name=path.stem, media_reference=media, source_range=self.range(0, frames))

    def frames_of(self, path: Path) -> int | None:
        """How many of the film's frames a sound lasts, where that is known."""
        seconds = self.lengths.get(path)
        return None if seconds is None else max(round(seconds * self.timeline.rate), 1)

    def time(self, frames: int) -> Any:
        """So many frames of the film."""
        return self.otio.opentime.RationalTime(frames, float(self.timeline.rate))

    def range(self, start: int, frames: int) -> Any:
        """So many frames from one on."""
        return self.otio.opentime.TimeRange(self.time(start), self.time(frames))


def _heard(scene: Scene) -> bool:
    return isinstance(scene.source, MediaFacts) and scene.source.audio is not None
