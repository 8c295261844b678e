"""What a film is made of and how it was made, as a JSON document that lies beside it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_kling.media.addresses import relative_path
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.timeline import Card, Scene, Timeline

if TYPE_CHECKING:  # joining brings av and numpy
    from prefect_kling.media.join import Film
    from prefect_kling.media.soundtrack import Soundtrack

__all__ = ["VERSION", "ShotRecord", "manifest"]

VERSION = 1
"""Of the document; raised when a field goes or changes its meaning. New fields do not raise it."""


@dataclass(frozen=True)
class ShotRecord:
    """What is known of a shot beyond its place in the film.

    Attributes:
        id: of the shot.
        clip: where its clip is kept, a path or a URL.
        sha256: of the clip.
        source: where the clip comes from, JSON-native, whatever its maker knows of it. The flows say `prompt`, `model`,
            `mode`, `seconds`, `usd`, `take` and `task_id`.
    """

    id: str
    clip: str | Path
    sha256: str
    source: Mapping[str, Any] = field(default_factory=dict)


def manifest(film: Film, shots: Sequence[ShotRecord], *, title: str, folder: Path | None = None) -> dict[str, Any]:
    """The document, JSON-native.

    Times are the film's: frames are counted from 0, `end_frame` is the one behind the last, and what lies between the
    two is what a viewer calls this shot (a transition counts half to each side); seconds are those over the frame rate.

    - `version`: see `VERSION`.
    - `title`: of the film.
    - `film`: `file` (its name), `frames`, `seconds`, `frame_rate` (a fraction as text), `width`, `height`, `bytes`,
      `sha256`, `method` and `reason` (see `Film`), `fade_in_frames`, `fade_out_frames`, and `sound`, null where it has
      none: `measured_lufs` and `measured_dbtp` before the gain (null for silence), `gain_db`, `lufs` after it,
      `remark`.
    - `shots`, in the film's order, each with `id`, `start_frame`, `end_frame`, `start_seconds`, `end_seconds`; `clip`:
      `file` (relative to the document where both are local, else where it is kept), `sha256`, `frames` in all,
      `first_frame` and `shown_frames` (which of them the film shows, transitions included, at the film's rate);
      `transition` into it, null for a hard cut: `kind`, `frames`; `caption`; `narration`: its file's name, or null;
      `source` as it was given.
    - `cards`: `text`, `start_frame`, `end_frame`, `start_seconds`, `end_seconds`, `transition`.

    Args:
        film: as it was joined.
        shots: one for each clip, in the film's order.
        title: of the film.
        folder: where the document will lie; None where that is no local folder.
    """
    timeline = film.timeline
    clips = [(scene, clip) for scene in timeline.scenes if isinstance(clip := scene.source, MediaFacts)]
    cards = [(scene, card) for scene in timeline.scenes if isinstance(card := scene.source, Card)]
    return {
        "version": VERSION,
        "title": title,
        "film": {
            "file": film.path.name,
            "frames": film.frames,
            "seconds": _seconds(film.seconds),
            "frame_rate": str(film.frame_rate),
            "width": film.width,
            "height": film.height,
            "bytes": film.bytes,
            "sha256": film.sha256,
            "method": film.method,
            "reason": film.reason,
            "fade_in_frames": timeline.fade_in,
            "fade_out_frames": timeline.fade_out,
            "sound": None if film.sound is None else _sound(film.sound),
        },
        "shots": [
            _shot(scene, clip, record, timeline, folder) for (scene, clip), record in zip(clips, shots, strict=True)
        ],
        "cards": [{"text": card.text, **_place(scene, timeline)} for scene, card in cards],
    }


def _shot(
    scene: Scene, clip: MediaFacts, record: ShotRecord, timeline: Timeline, folder: Path | None
) -> dict[str, Any]:
    return {
        "id": record.id,
        **_place(scene, timeline),
        "clip": {
            "file": relative_path(record.clip, folder),
            "sha256": record.sha256,
            "frames": clip.video.frames,
            "first_frame": scene.first,
            "shown_frames": scene.frames,
        },
        "caption": scene.caption,
        "narration": None if scene.narration is None else scene.narration.name,
        "source": dict(record.source),
    }


def _place(scene: Scene, timeline: Timeline) -> dict[str, Any]:
    start, end = scene.seen
    return {
        "start_frame": start,
        "end_frame": end,
        "start_seconds": _seconds(start / timeline.rate),
        "end_seconds": _seconds(end / timeline.rate),
        "transition": {"kind": scene.transition.kind, "frames": scene.before} if scene.before else None,
    }


def _sound(sound: Soundtrack) -> dict[str, Any]:
    measured, gain = sound.loudness, sound.gain
    # What is wholly silent has no level, and JSON has no minus infinity.
    silent = not math.isfinite(measured.true_peak)
    return {
        "measured_lufs": None if silent else _level(measured.integrated),
        "measured_dbtp": None if silent else _level(measured.true_peak),
        "gain_db": _level(gain.db),
        "lufs": None if silent else _level(measured.integrated + gain.db),
        "remark": gain.remark,
    }


def _seconds(exact: Fraction) -> float:
    return round(float(exact), 6)


def _level(decibels: float) -> float:
    return round(decibels, 2)
