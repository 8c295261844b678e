"""Clips in, one film out: probed, planned, spliced or encoded, checked, and only then given its name."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cancelling import Checkpoint, in_thread
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.plan import plan_join
from prefect_kling.media.probe import probe
from prefect_kling.media.reencode import film_frames, reencode, target_of
from prefect_kling.media.scratch import publish, scratch
from prefect_kling.media.splice import Chapter, Scene, splice
from prefect_kling.media.verify import Expected, verify

__all__ = ["CutClip", "Film", "join"]


# One ffmpeg holds a decoder for each of its clips, 15 MB at 720p (measured: 285 MB for 4 clips, 806 MB for 40). With
# equal options x264 writes equal parameter sets, so parts are spliced without loss.
CLIPS_AT_ONCE = 8


@dataclass(frozen=True)
class CutClip:
    """One clip of the film.

    Attributes:
        path: an MP4.
        title: of its chapter.
        facts: what a probe found, where there was one already.
    """

    path: Path
    title: str
    facts: MediaFacts | None = None


@dataclass(frozen=True)
class Film:
    """A finished film.

    Attributes:
        path: where it is.
        frames: how many it shows; `seconds` is that over `frame_rate`.
        seconds: how long it lasts.
        width, height: of the picture as coded, in pixels.
        frame_rate: frames a second.
        bytes, sha256: of the file.
        method: `copy` if the picture is the clips' own, bit by bit; `encode` if it was encoded anew.
        reason: why that method, in words.
        chapters: titles, with first frame and the one after the last.
    """

    path: Path
    frames: int
    seconds: Fraction
    width: int
    height: int
    frame_rate: Fraction
    bytes: int
    sha256: str
    method: Literal["copy", "encode"]
    reason: str
    chapters: tuple[Chapter, ...]


async def join(clips: Sequence[CutClip], out: Path, *, on_progress: Callable[[int, int], None] | None = None) -> Film:
    """Joins clips by hard cuts into an MP4 with one continuous sound track and a chapter per clip.

    Alike clips keep their picture bit by bit; otherwise all are encoded anew, at the size and rate that most have.
    Either way the film has exactly as many frames as its clips, and each clip's sound starts with its picture. It has
    no sound track if no clip has one.

    Args:
        clips: in the film's order; one may come twice. They are not trusted.
        out: the film's name; what has it already is replaced at the very end, or not at all.
        on_progress: called in the caller's event loop with frames done and frames in all, rising.

    Raises:
        InvalidMedia: a clip is unusable (the text names it), or the film failed its check.
        OSError: the film cannot be written. As with every other end but success, cancelling included, no file and no
            process is left behind.
    """
    _spare_the_clips(clips, out)
    with ExitStack() as stack:
        # First of all: whether the film can be written there should not be learnt after minutes of work.
        work = stack.enter_context(scratch(out))
        facts = await _all_facts(clips)
        plan = plan_join(facts)
        if plan.method == "copy":
            rate, pictures = facts[0].video.frame_rate, facts
            progress = _Progress(sum(clip.video.frames for clip in facts), on_progress)
        else:
            target = target_of(facts)
            rate = target.frame_rate
            progress = _Progress(sum(film_frames(clip, rate) for clip in facts), on_progress)
            parts = []
            for first in range(0, len(facts), CLIPS_AT_ONCE):
                parts.append(stack.enter_context(scratch(out)))
                done = sum(film_frames(clip, rate) for clip in facts[:first])
                await reencode(facts[first : first + CLIPS_AT_ONCE], target, parts[-1], progress.beyond(done))
            pictures = await probe(parts)
            # A part of very few frames reorders none of them; splicing evens that out.
            spliceable = plan_join([replace(part, video=replace(part.video, delay=0)) for part in pictures])
            if spliceable.method != "copy":
                raise InvalidMedia(f"The encoded parts do not fit together, so there is no film. {spliceable.reason}")
        scenes = [Scene(clip, cut.title, film_frames(clip, rate)) for clip, cut in zip(facts, clips, strict=True)]
        frames = sum(scene.frames for scene in scenes)
        video = pictures[0].video

        def finish(checkpoint: Checkpoint) -> tuple[tuple[Chapter, ...], str, int]:
            chapters = splice(pictures, scenes, work, checkpoint, progress.from_thread)
            sound = any(clip.audio for clip in facts)
            verify(work, Expected(frames, rate, video.width, video.height, sound, chapters), checkpoint)
            digest = _sha256(work, checkpoint)
            checkpoint()
            publish(work, out)
            return chapters, digest, out.stat().st_size

        chapters, digest, size = await in_thread(finish)
    return Film(
        path=out,
        frames=frames,
        seconds=frames / rate,
        width=video.width,
        height=video.height,
        frame_rate=rate,
        bytes=size,
        sha256=digest,
        method=plan.method,
        reason=plan.reason,
        chapters=chapters,
    )


def _spare_the_clips(clips: Sequence[CutClip], out: Path) -> None:
    for clip in clips:
        if out.exists() and clip.path.exists() and out.samefile(clip.path):
            raise InvalidMedia(f"{out} is a clip of this film, so the film cannot take its place; give another name.")


async def _all_facts(clips: Sequence[CutClip]) -> list[MediaFacts]:
    """The facts that came along where they still fit the file, and one probe for all the others."""
    known = {
        clip.path: replace(clip.facts, path=clip.path)
        for clip in clips
        if clip.facts is not None and clip.path.is_file() and clip.path.stat().st_size == clip.facts.bytes
    }
    unknown = [clip.path for clip in clips if clip.path not in known]
    known.update(zip(unknown, await probe(unknown), strict=True))
    return [known[clip.path] for clip in clips]


class _Progress:
    """Frames done, as told to the caller: rising, at most a few hundred times, always in the caller's event loop."""

    def __init__(self, total: int, tell: Callable[[int, int], None] | None) -> None:
        self._total, self._tell = total, tell
        self._step = max(total // 200, 1)
        self._done = self._due = 0
        self._loop = asyncio.get_running_loop()

    def up_to(self, done: int) -> None:
        done = min(done, self._total)
        if self._tell is not None and done > self._done:
            self._done = done
            self._tell(done, self._total)

    def beyond(self, before: int) -> Callable[[int], None]:
        return lambda done: self.up_to(before + done)

    def from_thread(self, done: int) -> None:
        if done >= self._due or done == self._total:
            self._due = done + self._step
            self._loop.call_soon_threadsafe(self.up_to, done)


def _sha256(path: Path, checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checkpoint()
            digest.update(chunk)
    return digest.hexdigest()
