"""Runs that wait for a person: before any money is spent, and before the film is joined.

Nothing before an answer has effects outside of the ledger, so a run that was suspended can start again from the top:
what was bought is there, what was answered is read back. The retakes of a review pin their takes under that review's
key; however often the run starts again, each is bought once.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from prefect.logging import get_run_logger

from prefect_kling.clips import Clip, without_password
from prefect_kling.flows.asking import Asked, Questions
from prefect_kling.flows.cutting import Cutting
from prefect_kling.flows.outcome import Rendering, ShotOutcome
from prefect_kling.flows.page import GoesOn
from prefect_kling.flows.preparing import Prepared, Wish
from prefect_kling.flows.rendering import Review
from prefect_kling.flows.reviews import Seen, cut_form, cut_trouble, plan_form
from prefect_kling.gateway.errors import BudgetExceeded, InsufficientCredits, KlingError
from prefect_kling.ledger.money import Spent, shown
from prefect_kling.media.thumbnails import thumbnails

__all__ = ["Approve", "NotApproved", "render_approved"]

Approve: TypeAlias = Literal["nothing", "plan", "cut", "both"]
Prepare: TypeAlias = Callable[[Wish], Awaitable[Prepared]]
Render: TypeAlias = Callable[[Prepared, "Review | None"], Awaitable[Rendering]]

FRAMES: Final = 3
LARGE, SMALL = 240 * 135, 160 * 90
"""Pixels of a frame in a review, and of one where there are many."""
MANY: Final = 40


class NotApproved(Exception):
    """A person has ended the run; `state` is what that is called."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state


class _TakenAgain(GoesOn):
    """A review wants retakes: the run goes on with them from its plan."""


async def render_approved(prepare: Prepare, render: Render, wish: Wish, approve: Approve, wait: float) -> Rendering:
    """Renders what is approved, in a flow run.

    Args:
        prepare: reads and plans what is wished.
        render: renders a plan, with a review before the join or without one.
        wish: of the run.
        approve: what a person has to say yes to.
        wait: seconds that each question may stay unanswered.

    Raises:
        NotApproved: a person has declined the plan, or stopped at the cut.
        NotAnswered: nobody answered in time.
        KlingError: what `prepare` and `render` raise.
    """
    plan = _PlanApproval(wait) if approve in ("plan", "both") else None
    cut = _CutApproval(wait) if approve in ("cut", "both") else None
    if plan is None and cut is None:
        return await render(await prepare(wish), None)
    while True:
        wished = wish if cut is None else await cut.wish(wish)
        try:
            prepared = await prepare(wished)
        except (BudgetExceeded, InsufficientCredits) as error:
            if cut is None or not await cut.takes_back(error):
                raise
            continue
        if plan is not None and not (cut and cut.covers(prepared)) and not await plan.approved(prepared):
            continue
        try:
            return await render(prepared, None if cut is None else cut.review(prepared))
        except _TakenAgain:
            continue


class _PlanApproval:
    """The question before money is spent."""

    def __init__(self, wait: float) -> None:
        self._questions = Questions("plan", "plan-{}", wait)

    async def approved(self, prepared: Prepared) -> bool:
        """Whether what is about to be bought was approved; where it had to be asked, all is to be looked up anew."""
        title = prepared.document.storyboard.title
        if not prepared.may_buy:
            get_run_logger().info("There is nothing to buy for %s, so its plan needs no approval", title)
            return True
        spent = await prepared.spent()
        # A retry has bought some of what was approved.
        most = spent.run + prepared.micro_usd
        why, asked = "", await self._questions.last()
        if asked is not None and asked.said is not None and not asked.is_used_up:
            await self._not_declined(asked, title, spent)
            if asked.facts["document"] != prepared.document.digest:
                why = "The storyboard has changed since its plan was approved."
            elif most > int(asked.facts["micro_usd"]):
                before = shown(int(asked.facts["micro_usd"]))
                why = "With what this run has bought it costs" if spent.run else "It costs"
                why += f" more than was approved, which was at most {before}."
            else:
                get_run_logger().info("The plan of %s was approved (%s)", title, asked.key)
                return True
        facts = {"document": prepared.document.digest, "micro_usd": most}
        asked = await self._questions.ask(
            plan_form(prepared, spent, why),
            facts,
            f"The plan of {title}, {shown(prepared.micro_usd)} at most,",
            f"{_bought(spent)}. Retry the run, or start another one, to be asked again",
        )
        await self._not_declined(asked, title, spent)
        return False

    async def _not_declined(self, asked: Asked, title: str, spent: Spent) -> None:
        if asked.said is not None and asked.said.get("decision") != "buy":
            await self._questions.use_up(asked)
            raise NotApproved("Declined", f"The plan of {title} was declined ({asked.key}). {_bought(spent)}")


class _CutApproval:
    """The questions before the film is joined."""

    def __init__(self, wait: float) -> None:
        self._questions = Questions("cut-1", "cut-{}", wait)
        self._last: Asked | None = None
        self._why = ""

    def covers(self, prepared: Prepared) -> bool:
        """Whether all that is to be bought was approved with the last review: its retakes, and what is made of them."""
        if self._last is None or self._last.facts.get("document") != prepared.document.digest:
            return False
        again = set(prepared.reckoner.retakes)
        for shot in prepared.plan.order:
            if again.intersection(shot.needs):
                again.add(shot.id)
        return all(shot in again for shot, standing in prepared.standings.items() if standing.to_buy)

    async def wish(self, wish: Wish) -> Wish:
        """What is to be made now: what the run was asked for, or once that was there, the retakes of a review."""
        self._last = last = await self._questions.last()
        if last is None:
            return wish
        await self._not_stopped(last)
        wanted = last.said is not None and last.said.get("decision") == "retake" and not last.is_used_up
        again = tuple((last.said or {}).get("retake") or ()) if wanted else ()
        return replace(wish, retake=again, review=last.key)

    async def takes_back(self, error: KlingError) -> bool:
        """Lets go of retakes that there is no money for; whether there were any. The next review says why."""
        if self._last is None or self._last.is_used_up or not (self._last.said or {}).get("retake"):
            return False
        await self._questions.use_up(self._last)
        self._why = str(error)
        get_run_logger().warning("%s is not followed: %s", self._last.key, error)
        return True

    def review(self, prepared: Prepared) -> Review:
        """What is to be done before the join."""

        async def review(cutting: Cutting, outcomes: Sequence[ShotOutcome]) -> None:
            facts = {"clips": _digest(outcomes), "document": prepared.document.digest}
            asked = self._last
            while True:
                if asked is not None and asked.said is not None and not asked.is_used_up:
                    await self._not_stopped(asked)
                    trouble = cut_trouble(asked.said, prepared.plan)
                    if trouble is not None:
                        self._why = trouble
                    elif asked.said["decision"] == "retake":
                        if asked is not self._last:
                            raise _TakenAgain(f"{', '.join(asked.said['retake'])}: taken again ({asked.key})")
                    elif asked.facts["clips"] == facts["clips"]:
                        get_run_logger().info("The cut was approved (%s)", asked.key)
                        return
                    else:
                        self._why = "The clips are not those that were approved."
                asked = await self._ask(prepared, cutting, outcomes, facts)

        return review

    async def _ask(
        self, prepared: Prepared, cutting: Cutting, outcomes: Sequence[ShotOutcome], facts: dict[str, str]
    ) -> Asked:
        last = await self._questions.last()
        number = 1 if last is None else last.number + 1
        seen = await _seen(prepared, cutting, outcomes)
        form = cut_form(prepared, seen, await prepared.spent(), self._why, number)
        self._why = ""
        return await self._questions.ask(
            form,
            facts,
            f"The cut of {prepared.document.storyboard.title}",
            "All clips are kept. Retry the run, or start another one, to be asked again: what is there costs nothing",
        )

    async def _not_stopped(self, asked: Asked) -> None:
        if asked.said is not None and asked.said.get("decision") == "stop" and not asked.is_used_up:
            await self._questions.use_up(asked)
            raise NotApproved(
                "Stopped",
                f"No film was joined, as {asked.key} says. All clips are kept: run it again to review them again, "
                "which buys nothing that is there",
            )


async def _seen(prepared: Prepared, cutting: Cutting, outcomes: Sequence[ShotOutcome]) -> list[Seen]:
    """The clips with their pictures, as far as those can be had: a review without them is better than none."""
    clips = [outcome.clip for outcome in outcomes if outcome.clip is not None]
    pictures: list[bytes] = []
    try:
        async with AsyncExitStack() as stack:
            paths = [await _at_hand(stack, prepared, cutting, clip) for clip in clips]
            pictures = await thumbnails(paths, frames=FRAMES, pixels=LARGE if len(paths) <= MANY else SMALL)
    except (KlingError, OSError) as error:
        get_run_logger().warning("The review has no pictures: %s", error)
    storage = prepared.reckoner.desk.storage()
    links = [without_password(await storage.page_link(clip.path)) for clip in clips]
    uris = [f"data:image/webp;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
    return [Seen(*one) for one in zip(outcomes, uris or [""] * len(clips), links, strict=True)]


async def _at_hand(stack: AsyncExitStack, prepared: Prepared, cutting: Cutting, clip: Clip) -> Path:
    local = await cutting.local(clip)
    if local is not None:
        return local
    return await stack.enter_async_context(prepared.reckoner.desk.storage().at_hand(clip.path, sha256=clip.sha256))


def _bought(spent: Spent) -> str:
    """What it means for the money that a plan is not gone on with."""
    return f"What this run has bought before, for {shown(spent.run)}, is kept" if spent.run else "Nothing was bought"


def _digest(outcomes: Sequence[ShotOutcome]) -> str:
    clips = [f"{outcome.id} {outcome.clip.sha256 if outcome.clip else ''}" for outcome in outcomes]
    return hashlib.sha256("\n".join(clips).encode()).hexdigest()
