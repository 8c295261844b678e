"""What can be done to a clip before the others are there is done at once: it is probed, its sound decoded, and, where
it is an odd one among clips that are alike, its picture encoded like theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.alike import unlike
from prefect_kling.media.cancelling import until_ended
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.normalise import normalise
from prefect_kling.media.pcm import Track, decode_sound
from prefect_kling.media.picture import Images
from prefect_kling.media.plan import plan_join, usual_of
from prefect_kling.media.probe import probe, probe_one
from prefect_kling.media.target import target_of
from prefect_kling.media.timeline import Scene, lay_out

__all__ = ["CuttingRoom", "Version", "version_of"]

AT_ONCE = 2
"""Clips that are worked on at the same time while others are still awaited."""


@dataclass(frozen=True)
class Version:
    """Which bytes a path stood for, by its length and time: a clip that is written over is looked at again."""

    path: Path
    bytes: int
    modified: int


@dataclass(frozen=True)
class _Seen:
    facts: MediaFacts
    track: Track | None


class CuttingRoom:
    """The work on one film, from its first clip on.

    Args:
        folder: for work files, to be removed by the caller after `end`.
        cut: how the film will be cut.
        expected: how many clips it will have; from when on most of them are alike, odd ones are encoded early. 0: not.
    """

    def __init__(self, folder: Path, cut: Cut | None = None, expected: int = 0) -> None:
        self.folder = folder
        self._cut, self._expected = cut or Cut(), expected
        self._seen: dict[Version, asyncio.Task[_Seen]] = {}
        self._made: dict[tuple[MediaFacts, int, int], asyncio.Task[MediaFacts | None]] = {}
        self._clips: list[tuple[CutClip, Version]] = []
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._files = 0

    def arrived(self, clip: CutClip) -> None:
        """Begins what can be done to a clip now. What fails is done again, and told, by the join."""
        version = version_of(clip.path)
        if version is None:
            return
        self._clips.append((clip, version))
        if version not in self._seen:
            self._seen[version] = asyncio.create_task(self._look(clip))
            self._seen[version].add_done_callback(lambda _: self._begin_early())

    async def facts(self, clips: Sequence[CutClip]) -> list[MediaFacts]:
        """What each clip is: known ones where the file is still the same, one probe for all the others.

        Raises:
            InvalidMedia: one or more are no usable clips.
        """
        known = {clip.path: await self._known_facts(clip) for clip in clips}
        unknown = [path for path, facts in known.items() if facts is None]
        known.update(zip(unknown, await probe(unknown), strict=True))
        return [facts for clip in clips if (facts := known[clip.path]) is not None]

    async def tracks(self, clips: Sequence[MediaFacts]) -> list[Track | None]:
        """Each clip's sound, or None; those that are not decoded yet are decoded together.

        Raises:
            InvalidMedia: a sound is broken.
        """
        different = list({clip.path: clip for clip in clips}.values())
        seen = {clip.path: await self._outcome(clip.path) for clip in different}
        missing = [clip for clip in different if clip.audio is not None and seen[clip.path] is None]
        decoded = dict(zip((c.path for c in missing), await decode_sound(missing, self.new_folder()), strict=True))
        tracks = {path: found.track for path, found in seen.items() if found is not None} | decoded
        return [tracks.get(clip.path) for clip in clips]

    async def early(self, scene: Scene, usual: MediaFacts) -> MediaFacts | None:
        """The picture of a scene as it was encoded early, in the way of the film's usual clips; else None."""
        if not isinstance(scene.source, MediaFacts):
            return None
        made = self._made.get((scene.source, scene.first, scene.frames))
        if made is None:
            return None
        picture = await made
        return None if picture is None or unlike([usual, picture]) else picture

    def new_file(self, suffix: str) -> Path:
        """A name for a work file."""
        self._files += 1
        return self.folder / f"work{self._files}{suffix}"

    def new_folder(self) -> Path:
        """A new folder for work files."""
        folder = self.new_file("")
        folder.mkdir()
        return folder

    async def end(self) -> None:
        """Stops what still runs."""
        self._expected = 0  # who comes to an end just now begins nothing more
        tasks = [*self._seen.values(), *self._made.values()]
        for task in tasks:
            task.cancel()
        await until_ended(asyncio.gather(*tasks, return_exceptions=True))

    async def _look(self, clip: CutClip) -> _Seen:
        async with self._turns:
            facts = clip.facts if _fits(clip) and clip.facts is not None else await probe_one(clip.path)
            [track] = await decode_sound([facts], self.new_folder()) if self._cut.sound else [None]
            return _Seen(replace(facts, path=clip.path), track)

    async def _known_facts(self, clip: CutClip) -> MediaFacts | None:
        found = await self._outcome(clip.path)
        if found is not None:
            return found.facts
        return replace(clip.facts, path=clip.path) if _fits(clip) and clip.facts is not None else None

    async def _outcome(self, path: Path) -> _Seen | None:
        version = version_of(path)
        task = None if version is None else self._seen.get(version)
        if task is None:
            return None
        try:
            return await asyncio.shield(task)
        except (InvalidMedia, OSError):
            return None  # asked for again, so that the error names every clip that has one

    def _begin_early(self) -> None:
        """Encodes odd clips as soon as it is sure what the usual ones are."""
        seen = [
            (clip, task.result().facts)
            for clip, version in self._clips
            if (task := self._seen[version]).done() and not task.cancelled() and task.exception() is None
        ]
        if not seen or not self._expected:
            return
        usual = usual_of([facts for _, facts in seen])
        if 2 * sum(facts.copy_key == usual.copy_key for _, facts in seen) <= self._expected:
            return
        for clip, facts in seen:
            self._begin_one(clip, facts, usual)

    def _begin_one(self, clip: CutClip, facts: MediaFacts, usual: MediaFacts) -> None:
        # The rest of the film is stood in for by two of its usual clips: how one clip is encoded depends on no other.
        cut = replace(self._cut, fade_in=Fraction(0), fade_out=Fraction(0), title="", end_card="", captions="none")
        clips = [CutClip(usual.path, ""), CutClip(usual.path, ""), clip]
        target = target_of([usual, usual, facts], cut)
        try:
            timeline = lay_out(clips, [usual, usual, facts], cut, target.frame_rate)
        except InvalidMedia:
            return  # the join will say so
        scene = timeline.scenes[2]
        key = (facts, scene.first, scene.frames)
        if plan_join(timeline, cut, target).odd == (2,) and key not in self._made:

            async def make() -> MediaFacts | None:
                out = self.new_file(".mp4")
                try:
                    async with self._turns:
                        await normalise(timeline, 2, target, usual, Images(), out, lambda _: None, fit=cut.fit)
                        return (await probe([out]))[0]
                except InvalidMedia:
                    return None  # as above

            self._made[key] = asyncio.create_task(make())


def version_of(path: Path) -> Version | None:
    """What a path stands for now; None where nothing can be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Version(path, status.st_size, status.st_mtime_ns)


def _fits(clip: CutClip) -> bool:
    """Whether facts came along that still fit the file."""
    return clip.facts is not None and clip.path.is_file() and clip.path.stat().st_size == clip.facts.bytes
