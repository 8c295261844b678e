"""From a run's clips to its film: worked on as they arrive, and joined, unless the film is there already."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip
from prefect_kling.flows.films import film_name, recipe_of, there_already
from prefect_kling.flows.outcome import ShotOutcome
from prefect_kling.flows.preparing import Prepared
from prefect_kling.flows.progress import tell
from prefect_kling.flows.stage import named
from prefect_kling.tasks import join_clips
from prefect_kling.tasks.arrivals import Arrivals
from prefect_kling.tasks.results import Film

__all__ = ["Cutting"]


class Cutting:
    """The cutting of one run's film, as an async context.

    Args:
        prepared: what is rendered.
        studio: whose storage.
    """

    def __init__(self, prepared: Prepared, studio: KlingStudio) -> None:
        self.prepared, self.studio = prepared, studio
        self.shots = {shot.title: shot for shot in prepared.plan.shot_cuts}
        self._stack = AsyncExitStack()
        self._arrivals: Arrivals | None = None

    async def __aenter__(self) -> Self:
        # Where every clip is there, so is the film, most likely; and if it is not, it is joined at once.
        if any(standing.status != "kept" for standing in self.prepared.standings.values()):
            # Behind a transition all is encoded in the end; no clip is worth encoding by itself before.
            hard = not any(shot.transition.xfade for shot in self.shots.values())
            expected = len(self.shots) if hard else 0
            arrivals = Arrivals(self.studio.get_storage(), self.prepared.plan.cut, expected)
            self._arrivals = await self._stack.enter_async_context(arrivals)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def arrived(self, shot: str, clip: Clip) -> None:
        """Works on a shot's clip, if the film shows it, while others are still being generated."""
        if self._arrivals is not None and shot in self.shots:
            self._arrivals.begin(clip, self.shots[shot])

    async def local(self, clip: Clip) -> Path | None:
        """A clip as a file on this machine, where it is one or is fetched for the film anyway.

        Raises:
            InvalidMedia: it is missing, or other bytes than were stored.
        """
        if self._arrivals is not None:
            return await self._arrivals.local(clip)
        return Path(clip.path) if self.prepared.reckoner.desk.storage().is_local else None

    async def film(self, outcomes: Mapping[str, ShotOutcome]) -> tuple[Film, str | None]:
        """The film, and what it was made of; None where it was there already."""
        plan, storage = self.prepared.plan, self.prepared.reckoner.desk.storage()
        clips = {shot: clip for shot in self.shots if (clip := outcomes[shot].clip) is not None}
        made_of = await recipe_of(self.prepared, [clip.sha256 for clip in clips.values()])
        film = await there_already(self.prepared, made_of)
        if film is not None:
            get_run_logger().info("The film is there already: %s", storage.link(film.path))
            tell("", "kept", "it is there already")
            return film, None
        tell("", "joining", f"{len(clips)} clips")
        film = await named(join_clips, "join")(
            list(clips.values()),
            self.studio,
            name=film_name(self.prepared),
            cut=plan.cut,
            shots=list(self.shots.values()),
            title=self.prepared.document.storyboard.title,
            sources=[self._source(outcomes[shot]) for shot in clips],
            poster_at=plan.film.poster_at,
            otio=plan.film.otio,
            arrivals=self._arrivals,
        )
        return film, made_of

    def _source(self, outcome: ShotOutcome) -> dict[str, Any]:
        """What the film's manifest says of where a clip comes from."""
        shot = next(shot for shot in self.prepared.plan.shots if shot.id == outcome.id)
        request = shot.softer[outcome.softened - 1] if outcome.softened else shot.request
        return {
            "prompt": request.prompt,
            "model": request.model,
            "mode": request.mode,
            "seconds": shot.seconds,
            "usd": float(shot.usd),
            "take": outcome.take,
            "task_id": outcome.clip.task_id if outcome.clip else None,
        }
