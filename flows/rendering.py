"""Rendering a plan: every shot as soon as what it needs is there, and the film when all are.

A shot that fails takes down what depends on it and nothing else. What is bought is always waited for and kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TypeAlias

from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.flows.announcing import Announcer
from prefect_kling.flows.cutting import Cutting
from prefect_kling.flows.films import remember
from prefect_kling.flows.outcome import Rendering, ShotOutcome
from prefect_kling.flows.page import RunPage, on_its_page
from prefect_kling.flows.preparing import Prepared
from prefect_kling.flows.progress import tell
from prefect_kling.flows.shooting import Shooting
from prefect_kling.flows.stage import Stage
from prefect_kling.gateway.errors import KlingError, LedgerUnavailable
from prefect_kling.ledger.holds import HOLD_SECONDS, Hold
from prefect_kling.storyboard.plan import PlannedShot
from prefect_kling.tasks.results import Film

__all__ = ["Review", "render"]

Review: TypeAlias = Callable[[Cutting, Sequence[ShotOutcome]], Awaitable[None]]
"""Looks at the clips once all are there; what it raises stops the join."""


async def render(prepared: Prepared, studio: KlingStudio, review: Review | None = None) -> Rendering:
    """Renders a plan and joins the film, inside a flow run.

    Args:
        prepared: checked; what it buys is admitted as a whole here, before the first shot.
        studio: the account that pays and the storage that keeps.
        review: to be had before the join; None to join at once.

    Returns:
        The rendering; shots that failed are in it, not raised.

    Raises:
        BudgetExceeded: a budget does not allow it; nothing was bought.
    """
    async with Cutting(prepared, studio) as cutting, on_its_page(prepared, cutting) as page:
        run = _Run(prepared, studio, cutting, page)
        # To the end of the join, so that no prune takes a clip away that the film is about to use.
        async with run.admitted():
            rendering = await _rendered(run, review)
        if review is not None:
            rendering = rendering.with_replaced(await run.spent(rendering.usd))
        await page.ended(rendering)
        return rendering


async def _rendered(run: _Run, review: Review | None) -> Rendering:
    title = run.prepared.document.storyboard.title
    outcomes = await run.shots()
    if any(outcome.clip is None for outcome in outcomes):
        return Rendering(title=title, film=None, shots=tuple(outcomes))
    if review is not None:
        async with run.page.waits(outcomes):
            await review(run.cutting, outcomes)
    try:
        film = await run.join({outcome.id: outcome for outcome in outcomes})
    except Exception as error:  # noqa: BLE001 - whatever stops the join, the clips are kept and the run says why
        message = str(error) if isinstance(error, KlingError) else f"{type(error).__name__}: {error}"
        return Rendering(title=title, film=None, shots=tuple(outcomes), error_type=type(error).__name__, error=message)
    return Rendering(title=title, film=film, shots=tuple(outcomes))


class _Run:
    """One run: who waits for whom, and what is held for them."""

    def __init__(self, prepared: Prepared, studio: KlingStudio, cutting: Cutting, page: RunPage) -> None:
        self.prepared, self.studio, self.cutting, self.page = prepared, studio, cutting, page
        self.plan, self.reckoner, self.desk = prepared.plan, prepared.reckoner, prepared.reckoner.desk
        self.stage, self.announcer = Stage(prepared, studio), Announcer(prepared)
        self.running: dict[str, asyncio.Task[ShotOutcome]] = {}
        self.shootings: dict[str, Shooting] = {}

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Holds the money for every shot that is to be bought, and says that a run of this edition is under way."""
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
                if found.id in self.shootings:
                    further = await self.shootings[found.id].further()
                    outcomes[number] = found.model_copy(update={"further": further})
            return outcomes
        finally:
            for task in self.running.values():
                task.cancel()
            await asyncio.gather(*self.running.values(), return_exceptions=True)
            for shooting in self.shootings.values():
                await shooting.end()
            await self.stage.end()

    async def join(self, outcomes: Mapping[str, ShotOutcome]) -> Film:
        """The film of the clips that the plan shows; joined before, it is used again."""
        film, made_of = await self.cutting.film(outcomes)
        used = [shooting.used.purchase for shooting in self.shootings.values() if shooting.used is not None]
        if made_of is not None:
            await remember(self.prepared, made_of, film, used)
            known = sum((outcome.usd for outcome in outcomes.values()), Decimal(0))
            self.announcer.film(film, await self.spent(known))
        return film

    async def spent(self, known: Decimal) -> Decimal:
        """USD that this run has bought for, its retries included; what is `known` where the ledger is away."""
        try:
            return Decimal((await self.prepared.spent()).run) / 1_000_000
        except LedgerUnavailable as error:  # the film is there, and must not be lost for its bill
            get_run_logger().warning("%s", error)
            return known

    async def _shoot(self, shot: PlannedShot) -> ShotOutcome:
        tell(shot.id, "waiting", ", ".join(shot.needs))
        needed = {need: await self.running[need] for need in shot.needs}
        missing = [need for need, outcome in needed.items() if outcome.clip is None]
        if missing:
            tell(shot.id, "blocked", f"no clip of {', '.join(missing)}")
            return ShotOutcome.blocked(shot.id, missing)
        clips = {need: outcome.clip for need, outcome in needed.items() if outcome.clip is not None}
        self.shootings[shot.id] = shooting = Shooting(self.stage, shot, clips)
        outcome = await shooting.outcome()
        if outcome.status != "kept":
            self.announcer.shot(outcome, await shooting.purchase(), shooting.error)
        if outcome.clip is not None:
            self.cutting.arrived(shot.id, outcome.clip)
        self.page.outcome(outcome)
        return outcome


async def _renewing(renew: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(HOLD_SECONDS / 5)
        try:
            await renew()
        except LedgerUnavailable as error:
            get_run_logger().warning("%s", error)  # the next try comes in time
