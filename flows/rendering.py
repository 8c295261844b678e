"""Rendering a plan: every shot as soon as what it needs is there, and the film when all are.

A shot that fails takes down what depends on it and nothing else. What is bought is always waited for and kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip
from prefect_kling.flows.outcome import Rendering, ShotOutcome, TakeOutcome, said_of, usd_of
from prefect_kling.flows.preparing import Prepared
from prefect_kling.flows.progress import tell
from prefect_kling.flows.standing import further_takes
from prefect_kling.gateway.addresses import is_loopback_url
from prefect_kling.gateway.errors import AuthenticationFailed, InsufficientCredits, KlingError, LedgerUnavailable
from prefect_kling.ledger.holds import HOLD_SECONDS, Hold
from prefect_kling.ledger.money import shown
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.states import State
from prefect_kling.storyboard.plan import Input, PlannedShot
from prefect_kling.tasks import (
    create_video,
    download_video,
    extract_last_frame,
    host_file,
    join_clips,
    wait_for_video,
)
from prefect_kling.tasks.results import Film, Generated, Hosted, Submitted

__all__ = ["render"]

P = ParamSpec("P")
R = TypeVar("R")

CLOSES_THE_TILL = (InsufficientCredits, AuthenticationFailed)
"""After one of these, nothing more is bought in this run: the next create would be refused as well."""


async def render(prepared: Prepared, studio: KlingStudio) -> Rendering:
    """Renders a plan and joins the film, inside a flow run.

    Args:
        prepared: checked; what it buys is admitted as a whole here, before the first shot.
        studio: the account that pays and the storage that keeps.

    Returns:
        The rendering; shots that failed are in it, not raised.

    Raises:
        BudgetExceeded: a budget does not allow it; nothing was bought.
    """
    run = _Run(prepared, studio)
    plan, title = prepared.plan, prepared.document.storyboard.title
    async with run.admitted():
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
    """One run's state: who waits for whom, what is hosted and billed already, and whether buying goes on."""

    def __init__(self, prepared: Prepared, studio: KlingStudio) -> None:
        self.prepared, self.studio = prepared, studio
        self.plan, self.reckoner, self.desk = prepared.plan, prepared.reckoner, prepared.reckoner.desk
        self.loopback = is_loopback_url(self.desk.settings.base_url)
        self.till_closed: KlingError | None = None
        self.running: dict[str, asyncio.Task[ShotOutcome]] = {}
        self.hosted: dict[tuple[str, str], asyncio.Task[Hosted]] = {}
        self.further: dict[str, list[asyncio.Task[TakeOutcome]]] = {}
        self.billed: dict[int, tuple[str, int]] = {}

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Holds the money for every shot that is to be bought, until all of them are through."""
        ledger, account = self.desk.ledger, self.desk.account
        hold = Hold(self.reckoner.edition, self.prepared.document.digest, self.reckoner.run)
        wanted = {
            (shot, take): micro
            for shot, standing in self.prepared.standings.items()
            # A retake is admitted by itself, when it is bought.
            if shot not in self.reckoner.retakes
            for take, micro in standing.to_buy.items()
        }
        await ledger.admit(account, hold, wanted, self.prepared.limits)
        renewing = asyncio.create_task(_renewing(lambda: ledger.renew_hold(account, hold)))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await ledger.end_hold(account, hold)

    async def shots(self) -> list[ShotOutcome]:
        """Every shot's outcome, in the document's order.

        Not by a TaskGroup: it would wrap the signal by which Prefect ends a run, and Prefect would not know it again.
        """
        for shot in self.plan.order:
            self.running[shot.id] = asyncio.create_task(self._shoot(shot))
        try:
            outcomes = await asyncio.gather(*(self.running[shot.id] for shot in self.plan.shots))
            for number, found in enumerate(outcomes):
                further = await asyncio.gather(*self.further.get(found.id, ()))
                outcomes[number] = found.model_copy(update={"further": tuple(further)})
            return outcomes
        finally:
            others = [task for tasks in self.further.values() for task in tasks]
            left = [*self.running.values(), *self.hosted.values(), *others]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def join(self, cut: Sequence[str], clips: Mapping[str, Clip]) -> Film:
        tell("", "joining", f"{len(cut)} clips")
        name = f"films/{self.reckoner.folder}.mp4"
        return await _named(join_clips, "join")([clips[shot] for shot in cut], self.studio, name=name, titles=cut)

    async def _shoot(self, shot: PlannedShot) -> ShotOutcome:
        tell(shot.id, "waiting", ", ".join(shot.needs))
        needed = {need: await self.running[need] for need in shot.needs}
        missing = [need for need, outcome in needed.items() if outcome.clip is None]
        if missing:
            tell(shot.id, "blocked", f"no clip of {', '.join(missing)}")
            return ShotOutcome.blocked(shot.id, missing)
        clips = {need: outcome.clip for need, outcome in needed.items() if outcome.clip is not None}
        order: Order | None = None
        try:
            # The same text in another object: Prefect would draw an arrow from the clip to whatever holds its own.
            facts = {need: (bytes.fromhex(clip.sha256).hex(), clip.seconds) for need, clip in clips.items()}
            order = await self.reckoner.order(shot, facts)
            self.further[shot.id] = [
                asyncio.create_task(self._further(shot, other, clips)) for other in further_takes(order, shot.takes)
            ]
            clip, kept = await self._take(shot, order, clips)
        except Exception as error:  # noqa: BLE001 - a shot's failure must not cancel its siblings; it is in the outcome
            outcome = ShotOutcome.failed(shot.id, error, await self._bought(order))
            get_run_logger().error("%s failed: %s", shot.id, outcome.error)
            tell(shot.id, "failed", outcome.error or "")
            return outcome
        outcome = ShotOutcome.stored(shot.id, clip, await self._bought(order), kept=kept, take=order.take)
        if not kept:
            tell(shot.id, "stored", f"{clip.seconds:.2f} s, {outcome.usd:.2f} USD")
        return outcome

    async def _further(self, shot: PlannedShot, order: Order, clips: Mapping[str, Clip]) -> TakeOutcome:
        """A take that the film does not use; nothing waits for it, and nothing fails with it."""
        try:
            clip, _ = await self._take(shot, order, clips, f"{shot.id} take {order.take}")
        except Exception as error:  # noqa: BLE001 - as above
            get_run_logger().error("%s take %d failed: %s", shot.id, order.take, said_of(error))
            bought = usd_of(await self._bought(order))
            kind = type(error).__name__
            return TakeOutcome(take=order.take, usd=bought, error_type=kind, error=said_of(error))
        return TakeOutcome(take=order.take, usd=usd_of(await self._bought(order)), clip=clip)

    async def _take(
        self, shot: PlannedShot, order: Order, clips: Mapping[str, Clip], name: str | None = None
    ) -> tuple[Clip, bool]:
        """A take's clip, and whether it was there already; its tasks are called after the shot, or `name`."""
        name = name or shot.id
        found = await self._live(order)
        if found is not None and found.state is State.STORED:
            tell(name, "kept", f"bought {found.created_at:%Y-%m-%d}")
            kept = Generated(purchase=found.id, task_id=str(found.task_id))
            return await _named(download_video, f"{name} · kept")(kept, self.studio), True
        if found is not None and found.state in (State.SUBMITTED, State.COMPLETED):
            submitted = Submitted(purchase=found.id, task_id=str(found.task_id))
        else:
            submitted = await self._buy(shot, order, clips, name)
        tell(name, "generating", f"task {submitted.task_id}")
        generated = await _named(wait_for_video, f"{name} · generate")(submitted, self.studio)
        tell(name, "downloading")
        return await _named(download_video, f"{name} · download")(generated, self.studio), False

    async def _buy(self, shot: PlannedShot, order: Order, clips: Mapping[str, Clip], name: str) -> Submitted:
        if self.till_closed is not None:
            raise self.till_closed
        sources = [await self._source(entry, clips) for entry in shot.inputs]
        request = shot.filled(
            {entry.place: url for entry, (url, _) in zip(shot.inputs, sources, strict=True)}, loopback=self.loopback
        )
        tell(name, "buying", shown(order.micro_usd))
        try:
            return await _named(create_video, f"{name} · create")(
                request.body(),
                self.studio,
                order=replace(order, shot=self._held_for(order)),
                budget=self.prepared.budget,
                wait_for=[origin for _, origin in sources if origin is not None],
            )
        except CLOSES_THE_TILL as error:
            self.till_closed = error
            raise

    def _held_for(self, order: Order) -> str:
        """The shot that an order's money is held for: of shots that are one purchase, the first."""
        standing = self.prepared.standings[order.shot]
        return order.shot if standing.shares is None or order.take in standing.to_buy else standing.shares

    async def _live(self, order: Order) -> Purchase | None:
        found = await self.desk.ledger.find(self.desk.account, order.edition, (order.key, *order.also))
        return next(iter(found.values()), None)

    async def _bought(self, order: Order | None) -> Purchase | None:
        """What this run bought for a shot; what others bought, or another shot that is the same, is not on its bill."""
        try:
            found = None if order is None else await self._live(order)
        except LedgerUnavailable as error:
            # What became of the shot is known; what it cost is in the ledger, and must not cost its siblings.
            get_run_logger().warning("%s", error)
            return None
        if order is None or found is None or found.order.run != self.reckoner.run:
            return None
        this = (order.shot, order.take)
        return found if self.billed.setdefault(found.id, this) == this else None

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
            named = f"{source.rpartition('/')[2]} · host"
            # What is sent is what the key was made of.
            return await _named(host_file, named)(source, self.studio, sha256=await self.reckoner.digest(source))
        if kind == "clip":
            return await _named(host_file, f"{source} · host")(clip, self.studio)
        still = await _named(extract_last_frame, f"{source} · last frame")(clip, self.studio)
        return await _named(host_file, f"{source} · host last frame")(still, self.studio)


def _named(task: Task[P, R], name: str) -> Task[P, R]:
    return task.with_options(task_run_name=name)


async def _renewing(renew: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(HOLD_SECONDS / 5)
        try:
            await renew()
        except LedgerUnavailable as error:
            get_run_logger().warning("%s", error)  # the next try comes in time
