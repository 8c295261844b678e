"""Rendering a plan: every shot as soon as what it needs is there, and the film when all are.

A shot that fails takes down what depends on it and nothing else. What is bought is always waited for and kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip, file_name
from prefect_kling.flows.outcome import Rendering, ShotOutcome
from prefect_kling.flows.progress import tell
from prefect_kling.gateway.addresses import is_loopback_url
from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    GenerationFailed,
    InsufficientCredits,
    KlingError,
    PurchaseUncertain,
)
from prefect_kling.gateway.prices import PriceTable, estimate_cost
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.settings import StudioSettings
from prefect_kling.storyboard.document import slug
from prefect_kling.storyboard.plan import Input, Plan, PlannedShot
from prefect_kling.tasks import (
    create_video,
    download_video,
    extract_last_frame,
    host_file,
    join_clips,
    wait_for_video,
)
from prefect_kling.tasks.results import Film, Hosted, Submitted

__all__ = ["render"]

P = ParamSpec("P")
R = TypeVar("R")

CLOSES_THE_TILL = (InsufficientCredits, AuthenticationFailed)
"""After one of these, nothing more is bought in this run: the next create would be refused as well."""


async def render(plan: Plan, title: str, studio: KlingStudio, *, edition: str) -> Rendering:
    """Renders a plan and joins the film, inside a flow run.

    Args:
        plan: checked, and within the budget.
        title: of the storyboard; names the film and its folder.
        studio: the account that pays and the storage that keeps.
        edition: names the folder of the film.

    Returns:
        The rendering; shots that failed are in it, not raised.
    """
    run = _Run(plan, studio, f"{file_name(edition)}/{slug(title)}")
    outcomes = await run.shots()
    clips = {outcome.id: outcome.clip for outcome in outcomes if outcome.clip is not None}
    if len(clips) < len(outcomes):
        return Rendering(title=title, film=None, shots=tuple(outcomes))
    cut = [shot.id for shot in plan.shots if shot.in_cut]
    try:
        film = await run.join(cut, clips)
    except Exception as error:  # noqa: BLE001 - whatever stops the join, the clips are kept and the run says why
        message = str(error) if isinstance(error, KlingError) else f"{type(error).__name__}: {error}"
        return Rendering(title=title, film=None, shots=tuple(outcomes), error_type=type(error).__name__, error=message)
    return Rendering(title=title, film=film, shots=tuple(outcomes))


class _Run:
    """One run's state: who waits for whom, what is hosted already, and whether buying goes on."""

    def __init__(self, plan: Plan, studio: KlingStudio, folder: str) -> None:
        self.plan = plan
        self.studio = studio
        self.folder = folder
        self.settings: StudioSettings = studio.settings()
        self.loopback = is_loopback_url(self.settings.base_url)
        self.prices = PriceTable.load(self.settings.prices)
        self.slots = asyncio.Semaphore(self.settings.max_in_flight)
        self.till_closed: KlingError | None = None
        self.running: dict[str, asyncio.Task[ShotOutcome]] = {}
        self.hosted: dict[tuple[str, str], asyncio.Task[Hosted]] = {}

    async def shots(self) -> list[ShotOutcome]:
        """Every shot's outcome, in the document's order.

        Not by a TaskGroup: it would wrap the signal by which Prefect ends a run, and Prefect would not know it again.
        """
        for shot in self.plan.order:
            self.running[shot.id] = asyncio.create_task(self._shoot(shot))
        try:
            return await asyncio.gather(*(self.running[shot.id] for shot in self.plan.shots))
        finally:
            left = [*self.running.values(), *self.hosted.values()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def join(self, cut: Sequence[str], clips: Mapping[str, Clip]) -> Film:
        tell("", "joining", f"{len(cut)} clips")
        name = f"films/{self.folder}.mp4"
        return await _named(join_clips, "join")([clips[shot] for shot in cut], self.studio, name=name, titles=cut)

    async def _shoot(self, shot: PlannedShot) -> ShotOutcome:
        tell(shot.id, "waiting", ", ".join(shot.needs))
        needed = {need: await self.running[need] for need in shot.needs}
        missing = [need for need, outcome in needed.items() if outcome.clip is None]
        if missing:
            tell(shot.id, "blocked", f"no clip of {', '.join(missing)}")
            return ShotOutcome.blocked(shot.id, missing)
        bought = _Bought()
        try:
            clip = await self._take(shot, {n: o.clip for n, o in needed.items() if o.clip is not None}, bought)
        except Exception as error:  # noqa: BLE001 - a shot's failure must not cancel its siblings; it is in the outcome
            outcome = ShotOutcome.failed(shot.id, error, bought.usd, bought.task_id)
            get_run_logger().error("%s failed: %s", shot.id, outcome.error)
            tell(shot.id, "failed", outcome.error or "")
            return outcome
        tell(shot.id, "stored", f"{clip.seconds:.2f} s, {bought.usd:.2f} USD")
        return ShotOutcome.stored(shot.id, clip, bought.usd)

    async def _take(self, shot: PlannedShot, clips: Mapping[str, Clip], bought: _Bought) -> Clip:
        sources = [await self._source(entry, clips) for entry in shot.inputs]
        request = shot.filled(
            {entry.place: url for entry, (url, _) in zip(shot.inputs, sources, strict=True)}, loopback=self.loopback
        )
        usd = estimate_cost(request, input_seconds=_input_seconds(shot, request, clips), prices=self.prices)
        async with self.slots:
            submitted = await self._buy(shot, request, usd, [origin for _, origin in sources], bought)
            tell(shot.id, "generating", f"task {submitted.task_id}")
            try:
                generated = await _named(wait_for_video, f"{shot.id} · generate")(submitted, self.studio)
            except GenerationFailed:
                bought.usd = Decimal(0)  # failed tasks are not billed
                raise
        tell(shot.id, "downloading")
        return await _named(download_video, f"{shot.id} · download")(
            generated, self.studio, folder=f"clips/{self.folder}"
        )

    async def _buy(
        self, shot: PlannedShot, request: OmniVideoRequest, usd: Decimal, origins: Sequence[Any], bought: _Bought
    ) -> Submitted:
        if self.till_closed is not None:
            raise self.till_closed
        tell(shot.id, "buying", f"{usd:.2f} USD")
        try:
            submitted = await _named(create_video, f"{shot.id} · create")(
                request.body(), self.studio, wait_for=[origin for origin in origins if origin is not None]
            )
        except CLOSES_THE_TILL as error:
            self.till_closed = error
            raise
        except PurchaseUncertain:
            bought.usd = usd
            raise
        bought.usd, bought.task_id = usd, submitted.task_id
        return submitted

    async def _source(self, entry: Input, clips: Mapping[str, Clip]) -> tuple[str, Any]:
        """The URL of an input, and the task result that it comes from, if any."""
        if entry.kind == "url":
            return entry.source, None
        if entry.kind == "file":
            hosted = await self._hosted("file", entry.source, None)
            return hosted.url, hosted
        clip = clips[entry.source]
        if entry.kind == "clip":
            live = clip.live_url(datetime.now(UTC))
            if live is not None:
                return live, clip
        hosted = await self._hosted(entry.kind, entry.source, clip)
        return hosted.url, hosted

    async def _hosted(self, kind: str, source: str, clip: Clip | None) -> Hosted:
        """A file at the gateway, uploaded once however many shots of this run use it."""
        key = (kind, source)
        if key not in self.hosted:
            self.hosted[key] = asyncio.create_task(self._host(kind, source, clip))
        return await asyncio.shield(self.hosted[key])

    async def _host(self, kind: str, source: str, clip: Clip | None) -> Hosted:
        if clip is None:
            return await _named(host_file, f"{source.rpartition('/')[2]} · host")(source, self.studio)
        if kind == "clip":
            return await _named(host_file, f"{source} · host")(clip, self.studio)
        still = await _named(extract_last_frame, f"{source} · last frame")(clip, self.studio)
        return await _named(host_file, f"{source} · host last frame")(still, self.studio)


class _Bought:
    """What one shot has cost so far; kept apart from its outcome, as a failure may come after the purchase."""

    def __init__(self) -> None:
        self.usd = Decimal(0)
        self.task_id: str | None = None


def _named(task: Task[P, R], name: str) -> Task[P, R]:
    return task.with_options(task_run_name=name)


def _input_seconds(shot: PlannedShot, request: OmniVideoRequest, clips: Mapping[str, Clip]) -> float | None:
    if request.base_video is None:
        return None
    upstream = next((i.source for i in shot.inputs if i.kind == "clip" and i.place[0] == "video_list"), None)
    return clips[upstream].seconds if upstream else shot.seconds
