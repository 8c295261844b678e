"""Everything that can be known before money is spent: the document, its media, the key, storage, ledger, budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from prefect_kling.blocks import KlingStudio
from prefect_kling.flows.standing import Reckoner, Standing, standings
from prefect_kling.gateway.addresses import is_loopback_url
from prefect_kling.gateway.errors import BudgetExceeded, StoryboardError
from prefect_kling.gateway.limits import VideoFacts
from prefect_kling.gateway.prices import PriceTable, micro_usd
from prefect_kling.ledger.desk import desk
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.money import Limits, refusal
from prefect_kling.media.probe import probe
from prefect_kling.settings import StudioSettings
from prefect_kling.storyboard.document import Storyboard
from prefect_kling.storyboard.places import did_you_mean
from prefect_kling.storyboard.plan import Plan, local_videos, plan
from prefect_kling.storyboard.reader import Document, document_of, read_storyboard

__all__ = ["Prepared", "Wish", "plan_document", "prepare"]


@dataclass(frozen=True)
class Wish:
    """What a run is asked for besides its storyboard.

    Attributes:
        edition: separates runs that are meant to give new clips from reruns that are meant to reuse them.
        retake: ids of shots that are bought anew.
        budget: USD that this run may spend, in place of the studio's.
        run: the flow run's id, or empty.
    """

    edition: str = "main"
    retake: Sequence[str] = ()
    budget: Decimal | None = None
    run: str = ""


@dataclass(frozen=True)
class Prepared:
    """A document, its plan, and how each shot stands in the ledger: ready to be rendered."""

    document: Document
    plan: Plan
    reckoner: Reckoner
    standings: Mapping[str, Standing]
    limits: Limits
    budget: Decimal | None

    @property
    def micro_usd(self) -> int:
        """The most that rendering it will cost."""
        return sum(standing.micro_usd for standing in self.standings.values())

    def reuse(self) -> str | None:
        """That, and what, this run uses again; None where it uses nothing."""
        kept = [standing.purchase for standing in self.standings.values() if standing.status == "kept"]
        days = sorted({f"{purchase.created_at:%Y-%m-%d}" for purchase in kept if purchase is not None})
        if not days:
            return None
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        return (
            f"reusing {len(kept)} of {len(self.standings)} clips of edition {self.reckoner.edition}, bought {when}; "
            "for new ones pass an edition or --retake"
        )


async def prepare(
    storyboard: Storyboard | str, studio: KlingStudio, variables: Mapping[str, str], wish: Wish
) -> Prepared:
    """Reads and plans a storyboard, looks up what is bought already, and makes sure that the rest could be rendered.

    Raises:
        StoryboardError, InvalidMedia: the document, or a file it names, cannot be used.
        AuthenticationFailed: there is no key.
        BudgetExceeded: what is still to be bought may cost more than a budget allows.
        LedgerUnavailable: the ledger cannot be used.
        OSError: the storage cannot be written.
    """
    settings = studio.settings()
    if isinstance(storyboard, str):
        document = await asyncio.to_thread(read_storyboard, storyboard, variables=variables)
    else:
        document = document_of(storyboard, variables=variables)
    _check_retakes(document, wish.retake)
    planned = await plan_document(document, settings)
    await studio.get_client().aclose()
    ours = await desk(settings)
    await ours.ledger.reclaim(ours.account)
    reckoner = Reckoner(ours, document, planned, wish.edition, run=wish.run, retakes=wish.retake)
    limits = ours.limits if wish.budget is None else replace(ours.limits, per_run=micro_usd(wish.budget))
    prepared = Prepared(document, planned, reckoner, await standings(reckoner), limits, wish.budget)
    await _check_budgets(prepared)
    await studio.get_storage().check()
    return prepared


async def plan_document(document: Document, settings: StudioSettings) -> Plan:
    """Plans a document for a studio; local videos are probed first, as their length and size decide what is allowed."""
    paths = local_videos(document)
    facts = await probe([Path(path) for path in paths]) if paths else []
    videos = {
        path: VideoFacts(
            seconds=float(found.seconds),
            width=found.video.shown_size[0],
            height=found.video.shown_size[1],
            frames_per_second=float(found.video.frame_rate),
            bytes=found.bytes,
        )
        for path, found in zip(paths, facts, strict=True)
    }
    return await asyncio.to_thread(
        plan,
        document,
        loopback=is_loopback_url(settings.base_url),
        videos=videos,
        prices=PriceTable.load(settings.prices),
    )


def _check_retakes(document: Document, retakes: Sequence[str]) -> None:
    ids = [shot.id for shot in document.storyboard.shots]
    for shot in retakes:
        if shot not in ids:
            raise StoryboardError(f"--retake: there is no shot '{shot}' in {document.source}{did_you_mean(shot, ids)}")


async def _check_budgets(prepared: Prepared) -> None:
    """Tells early what the ledger would refuse when the run begins; nothing is held yet."""
    reckoner, title = prepared.reckoner, prepared.document.storyboard.title
    hold = Hold(reckoner.edition, prepared.document.digest, reckoner.run)
    spent = await reckoner.desk.ledger.spent(reckoner.desk.account, hold)
    # What another run of this document holds is held for the same shots.
    others = replace(spent, held=spent.held - spent.held_by_run, held_by_run=0)
    why = refusal(prepared.limits, others, prepared.micro_usd) if prepared.micro_usd else None
    if why is not None:
        raise BudgetExceeded(f"{title} was not begun, and nothing was bought: {why}")
