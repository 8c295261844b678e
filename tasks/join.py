"""Joining clips into the film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip, without_password
from prefect_kling.gateway.errors import InvalidMedia, KlingError
from prefect_kling.media import join as cutting_room
from prefect_kling.media.around import SOMETIMES, around
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.manifest import ShotRecord
from prefect_kling.storyboard.cutting import ShotCut
from prefect_kling.tasks.arrivals import Arrivals
from prefect_kling.tasks.live import live_state
from prefect_kling.tasks.results import Film

__all__ = ["join_clips"]


@task(name="join", cache_policy=NO_CACHE)
async def join_clips(
    clips: Sequence[Clip],
    studio: KlingStudio | None = None,
    *,
    name: str = "films/film.mp4",
    titles: Sequence[str] | None = None,
    cut: Cut | None = None,
    shots: Sequence[ShotCut] | None = None,
    title: str = "",
    sources: Sequence[Mapping[str, Any]] | None = None,
    poster_at: Fraction | None = None,
    otio: bool = False,
    arrivals: Arrivals | None = None,
) -> Film:
    """Joins stored clips, in order, into one MP4 with a chapter each, and stores it with what lies beside it.

    Pictures are copied where that is safe, encoded like the others where a clip is odd, and all encoded anew where
    there are transitions or too many kinds of clips; sound is always rebuilt as one track. Beside the film lie a
    poster, a contact sheet, a preview, subtitles and a manifest.

    Args:
        clips: what `download_video` returned, at least one.
        studio: whose storage; None for the environment's.
        name: of the film in storage, with `/` between folders; written over where it exists.
        titles: of the chapters; None numbers them, or takes them from `shots`.
        cut: how the film is cut; None for hard cuts at -16 LUFS.
        shots: what the film wants of each clip; None for all of it.
        title: of the film; None for its file's name.
        sources: what the manifest is to say of where each clip comes from, JSON-native.
        poster_at: the film's second that the poster shows; None for a frame that is chosen.
        otio: whether an OpenTimelineIO file is wanted (extra `edit`).
        arrivals: in which clips were worked on as they arrived.

    Raises:
        InvalidMedia: a clip is gone, changed or broken, the cut does not fit the clips, or the film did not come out
            exact.
        OSError: the storage cannot be written.
    """
    studio = studio or KlingStudio.from_environment()
    storage, cut = studio.get_storage(), cut or Cut()
    names = titles or [f"Shot {n}" for n in range(1, len(clips) + 1)]
    wanted = shots or [ShotCut(title) for _, title in zip(clips, names, strict=True)]
    async with live_state("Joining", f"{len(clips)} clips"), AsyncExitStack() as stack:
        at_hand = arrivals if arrivals is not None else await stack.enter_async_context(Arrivals(storage, cut))
        folder = await stack.enter_async_context(storage.incoming())
        parts = await _parts(clips, wanted, at_hand)
        film = await cutting_room.join(parts, folder / Path(name).name, cut, room=at_hand.room)
        location = await storage.publish(film.path, name)
        logger = get_run_logger()
        link = storage.link(location)
        logger.info("Film %s: %d frames, %.2f s, %s (%s)", link, film.frames, film.seconds, film.method, film.reason)
        if film.sound is not None and film.sound.gain.remark:
            logger.info("Its sound: %s", film.sound.gain.remark)
        records = [
            ShotRecord(shot.title, without_password(clip.path), clip.sha256, source)
            for shot, clip, source in zip(wanted, clips, sources or [{}] * len(clips), strict=True)
        ]
        try:
            files = await around(
                replace(film, path=Path(location) if storage.is_local else film.path),
                cut,
                records,
                folder,
                title=title or Path(name).stem,
                home=Path(location).parent if storage.is_local else None,
                locations={part.path: without_password(clip.path) for part, clip in zip(parts, clips, strict=True)},
                poster_at=poster_at,
                otio=otio,
            )
            stem = name.removesuffix(".mp4")
            beside = {end: await storage.publish(file, f"{stem}.{end}") for end, file in files.items()}
            for end in SOMETIMES:
                if end not in beside:
                    # Of the film that had this name: players would show its captions with this one.
                    await storage.remove(storage.location(f"{stem}.{end}"))
        except (KlingError, OSError) as error:
            # The film is what was paid for. A rerun makes the rest, as it finds it missing.
            logger.warning("The film is there, but not what lies beside it: %s", error)
            beside = {}
    return Film(
        path=location,
        frames=film.frames,
        seconds=float(film.seconds),
        width=film.width,
        height=film.height,
        bytes=film.bytes,
        sha256=film.sha256,
        method=film.method,
        reason=film.reason,
        sound="" if film.sound is None else film.sound.gain.remark,
        beside=beside,
    )


async def _parts(clips: Sequence[Clip], wanted: Sequence[ShotCut], arrivals: Arrivals) -> list[CutClip]:
    try:
        return [shot.at(await arrivals.local(clip)) for clip, shot in zip(clips, wanted, strict=True)]
    except InvalidMedia as error:
        raise InvalidMedia(
            f"{error}. Remove it and run again: it is fetched once more from the gateway, which keeps it for 7 days, "
            "and costs nothing"
        ) from error
