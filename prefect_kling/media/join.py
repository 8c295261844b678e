"""Clips in, one film out: probed, laid out, planned, spliced or encoded, checked, and only then given its name."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.alike import unlike
from prefect_kling.media.cancelling import Checkpoint, in_thread, until_ended
from prefect_kling.media.captions import cues_of
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.normalise import normalise
from prefect_kling.media.picture import Images
from prefect_kling.media.plan import JoinPlan, plan_join, usual_of
from prefect_kling.media.probe import probe
from prefect_kling.media.reencode import parts_of, reencode
from prefect_kling.media.room import CuttingRoom
from prefect_kling.media.scratch import publish, workshop
from prefect_kling.media.soundtrack import Soundtrack, soundtrack
from prefect_kling.media.splice import splice
from prefect_kling.media.target import Target, target_of
from prefect_kling.media.texttrack import write_text_track
from prefect_kling.media.timeline import Timeline, lay_out
from prefect_kling.media.verify import Expected, verify
from prefect_kling.media.words import images_of

__all__ = ["Film", "join"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ENCODING = 20
"""What a frame that is encoded counts in the progress, where one that is copied counts 1."""


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
        method: `copy` if the picture is the clips' own, bit by bit; `normalise` if that holds but for odd clips, which
            were encoded like the others; `encode` if all of it was encoded anew.
        reason: why that method, in words.
        sound: its sound track before the gain; None where it has none.
        timeline: where everything lies in it.
    """

    path: Path
    frames: int
    seconds: Fraction
    width: int
    height: int
    frame_rate: Fraction
    bytes: int
    sha256: str
    method: Literal["copy", "normalise", "encode"]
    reason: str
    sound: Soundtrack | None
    timeline: Timeline


async def join(
    clips: Sequence[CutClip],
    out: Path,
    cut: Cut | None = None,
    *,
    room: CuttingRoom | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Film:
    """Joins clips into an MP4 with one continuous sound track and a chapter per clip.

    Alike clips keep their picture bit by bit, odd ones among them are encoded in the same way, and where that cannot be
    (transitions, no majority) all are encoded anew. Either way the film has exactly the frames that its clips and the
    cut give it, and each clip's sound starts with its picture. It has no sound track if there is nothing to be heard.

    Args:
        clips: in the film's order; one may come twice. They are not trusted.
        out: the film's name; what has it already is replaced at the very end, or not at all.
        cut: how the film is cut; hard cuts and a loudness of -16 LUFS where it is not said.
        room: in which clips were worked on as they arrived.
        on_progress: called in the caller's event loop with frames done and frames in all, rising.

    Raises:
        InvalidMedia: a clip is unusable (the text names it), the cut does not fit the clips, or the film failed its
            check.
        OSError: the film cannot be written. As with every other end but success, cancelling included, no file and no
            process is left behind.
    """
    cut = cut or Cut()
    if not clips:
        raise InvalidMedia("A film needs at least one clip.")
    _spare_the_clips(clips, cut, out)
    with ExitStack() as stack:
        # First of all: whether the film can be written there should not be learnt after minutes of work.
        folder = stack.enter_context(workshop(out))
        own_room = room or CuttingRoom(folder, cut)
        try:
            film = await _joined(clips, cut, folder / "film.mp4", own_room, on_progress)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise OSError(error.errno, f"The film cannot be written: {os.strerror(error.errno)}") from error
        finally:
            if room is None:
                await own_room.end()
        await asyncio.to_thread(publish, film.path, out)
    return replace(film, path=out)


async def _joined(
    clips: Sequence[CutClip], cut: Cut, work: Path, room: CuttingRoom, on_progress: Callable[[int, int], None] | None
) -> Film:
    facts = await room.facts(clips)
    target = target_of(facts, cut)
    timeline = lay_out(clips, facts, cut, target.frame_rate)
    progress = _Progress(timeline.frames, on_progress)
    hearing = asyncio.ensure_future(soundtrack(timeline, cut, room))
    seeing = asyncio.ensure_future(_pictures(timeline, cut, target, room, progress))
    try:
        # Whichever fails first is told at once.
        sound, (pictures, plan) = await asyncio.gather(hearing, seeing)
    finally:
        for left in (hearing, seeing):
            left.cancel()
        await until_ended(asyncio.gather(hearing, seeing, return_exceptions=True))
    video = pictures[0].video
    cues = cues_of(timeline) if cut.captions == "soft" else ()
    text = await write_text_track(cues, room.new_folder()) if cues else None
    expected = Expected(
        timeline.frames,
        timeline.rate,
        video.width,
        video.height,
        sound is not None,
        timeline.chapters,
        len(cues),
    )

    def finish(checkpoint: Checkpoint) -> tuple[str, int]:
        pcm, gain = (None, 0.0) if sound is None else (sound.pcm, sound.gain.db)
        splice(pictures, timeline, pcm, gain, text, work, checkpoint, progress.spliced)
        verify(work, expected, checkpoint)
        digest = _sha256(work, checkpoint)
        checkpoint()
        return digest, work.stat().st_size

    digest, size = await in_thread(finish)
    return Film(
        path=work,
        frames=timeline.frames,
        seconds=timeline.seconds,
        width=video.width,
        height=video.height,
        frame_rate=timeline.rate,
        bytes=size,
        sha256=digest,
        method=plan.method,
        reason=plan.reason,
        sound=sound,
        timeline=timeline,
    )


async def _pictures(
    timeline: Timeline, cut: Cut, target: Target, room: CuttingRoom, progress: _Progress
) -> tuple[list[MediaFacts], JoinPlan]:
    """Files whose coded pictures in a row are the film's, and how that came about."""
    plan = plan_join(timeline, cut, target)
    if plan.method == "copy":
        return [scene.source for scene in timeline.scenes if isinstance(scene.source, MediaFacts)], plan
    images = await images_of(timeline, cut, target, room.new_folder())
    if plan.method == "normalise":
        try:
            pictures = await _normalised(timeline, plan, cut, target, images, room, progress)
            different = unlike(pictures)
            if not different:
                return pictures, plan
        except InvalidMedia as error:
            # What is broken is told by the full encode as well; what only these settings do not suit is not broken.
            different = str(error).rstrip(".")
        reason = f"The picture has to be encoded anew, as odd clips did not come out like the others: {different}."
        plan = JoinPlan("encode", (), f"{reason} At first it was: {plan.reason}")
    progress.encodes(timeline.frames)
    parts = []
    for part in parts_of(timeline):
        out = room.new_file(".mp4")
        await reencode(timeline, part, target, images, out, progress.encoded(), fit=cut.fit)
        parts.append(out)
    pictures = await probe(parts)
    different = unlike(pictures)
    if different:
        raise InvalidMedia(f"The encoded parts do not fit together, so there is no film: {different}.")
    return pictures, plan


async def _normalised(
    timeline: Timeline,
    plan: JoinPlan,
    cut: Cut,
    target: Target,
    images: Images,
    room: CuttingRoom,
    progress: _Progress,
) -> list[MediaFacts]:
    """The scenes' pictures, the odd ones encoded like the others; whether that came out alike is not looked at here."""
    usual = usual_of([scene.source for scene in timeline.scenes if isinstance(scene.source, MediaFacts)])
    made: dict[int, MediaFacts] = {}
    for number in plan.odd:
        early = None if _touched(timeline, number, images) else await room.early(timeline.scenes[number], usual)
        if early is not None:
            made[number] = early
    left = [number for number in plan.odd if number not in made]
    progress.encodes(sum(timeline.scenes[number].frames for number in left))
    files = []
    for number in left:
        files.append(room.new_file(".mp4"))
        await normalise(timeline, number, target, usual, images, files[-1], progress.encoded(), fit=cut.fit)
    made.update(zip(left, await probe(files), strict=True))
    sources = enumerate(scene.source for scene in timeline.scenes)
    # A card is always odd.
    return [found for number, source in sources if isinstance(found := made.get(number, source), MediaFacts)]


def _touched(timeline: Timeline, number: int, images: Images) -> bool:
    """Whether a scene's picture is changed by its place in this film."""
    scene = timeline.scenes[number]
    fades = scene.start < timeline.fade_in or scene.end > timeline.frames - timeline.fade_out
    return fades or number in images.captions


def _spare_the_clips(clips: Sequence[CutClip], cut: Cut, out: Path) -> None:
    sources = [path for clip in clips for path in (clip.path, clip.narration) if path is not None]
    sources += [path for path in (cut.font, cut.music.path if cut.music else None) if path is not None]
    for source in sources:
        if out.exists() and source.exists() and out.samefile(source):
            raise InvalidMedia(
                f"{out} is itself a part of this film, so the film cannot take its place; give another name."
            )


class _Progress:
    """Frames done, as told to the caller: rising, at most a few hundred times, always in the caller's event loop.

    A frame that is encoded takes much longer than one that is copied; both count as their share of the film's frames.
    """

    def __init__(self, frames: int, tell: Callable[[int, int], None] | None) -> None:
        self._frames, self._tell = frames, tell
        self._work, self._past = frames, 0
        self._told = self._due = 0
        self._loop = asyncio.get_running_loop()

    def encodes(self, frames: int) -> None:
        """Says that so many frames are to be encoded from here on."""
        self._work = self._frames + self._past + ENCODING * frames

    def encoded(self) -> Callable[[int], None]:
        """What counts the frames of one more encode."""
        before = self._past

        def count(frames: int) -> None:
            self._past = before + ENCODING * frames
            self._up_to(self._past)

        return count

    def spliced(self, frames: int) -> None:
        """So many frames are in the film; called from its thread."""
        if frames >= self._due or frames == self._frames:
            self._due = frames + max(self._frames // 200, 1)
            done = self._work if frames == self._frames else self._past + frames
            self._loop.call_soon_threadsafe(self._up_to, done)

    def _up_to(self, work: int) -> None:
        done = min(self._frames * work // self._work, self._frames)
        if self._tell is not None and done > self._told:
            self._told = done
            self._tell(done, self._frames)


def _sha256(path: Path, checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checkpoint()
            digest.update(chunk)
    return digest.hexdigest()
