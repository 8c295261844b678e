"""Everything that can be known before money is spent: the document, its media, the key, storage, ledger, budgets."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Final

from prefect_kling.blocks import KlingStudio
from prefect_kling.callbacks.listening import listener_of
from prefect_kling.clips import ClipStorage
from prefect_kling.flows.checking import import_checks
from prefect_kling.flows.elsewhere import Elsewhere
from prefect_kling.flows.reckoning import Reckoner
from prefect_kling.flows.rehearsing import rehearse
from prefect_kling.flows.standing import Standing, standings
from prefect_kling.gateway.addresses import is_loopback_url
from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    BudgetExceeded,
    InsufficientCredits,
    KlingError,
    StoryboardError,
)
from prefect_kling.gateway.limits import VideoFacts
from prefect_kling.gateway.prices import PriceTable, micro_usd
from prefect_kling.ledger.desk import Desk, desk
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.money import Limits, Spent, refusal
from prefect_kling.media.fitting import fitted_image
from prefect_kling.media.probe import probe
from prefect_kling.settings import StudioSettings
from prefect_kling.storyboard.document import Storyboard
from prefect_kling.storyboard.drafts import draft_edition, draft_of
from prefect_kling.storyboard.places import did_you_mean
from prefect_kling.storyboard.plan import Plan, images_to_fit, local_videos, plan
from prefect_kling.storyboard.reader import Document, document_of, read_storyboard

__all__ = ["Prepared", "Wish", "check_balance", "plan_document", "prepare", "reckoned"]

_FORBIDDEN: Final = 403
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """What a run is asked for besides its storyboard.

    Attributes:
        edition: separates runs that are meant to give new clips from reruns that are meant to reuse them.
        retake: ids of shots that are bought anew.
        only: ids of the only shots that are wanted, with what they need; empty for all.
        draft: to try the document cheaply: one std take of each shot, in an edition of its own.
        budget: USD that this run may spend, in place of the studio's.
        run: the flow run's id, or empty.
        review: the key of the review that wants these retakes, or empty where the run itself was asked for them.
    """

    edition: str = "main"
    retake: Sequence[str] = ()
    only: Sequence[str] = ()
    draft: bool = False
    budget: Decimal | None = None
    run: str = ""
    review: str = ""


@dataclass(frozen=True)
class Prepared:
    """A document, its plan, how each shot stands in the ledger, and where takes are made: ready to be rendered."""

    document: Document
    plan: Plan
    reckoner: Reckoner
    standings: Mapping[str, Standing]
    limits: Limits
    only: tuple[str, ...] = ()
    elsewhere: Elsewhere | None = None

    @property
    def micro_usd(self) -> int:
        """The most that rendering it will cost."""
        return sum(standing.micro_usd for standing in self.standings.values())

    @property
    def may_buy(self) -> bool:
        """Whether rendering it may cost money: now, or once clips that nobody has looked at fail their checks."""
        return self.micro_usd > 0 or any(
            shot.max_retakes and self.standings[shot.id].is_unseen for shot in self.plan.shots
        )

    @property
    def usd(self) -> Decimal:
        """What rendering it most likely costs."""
        shots = {shot.id: shot for shot in self.plan.shots}
        return sum((shots[name].usd * len(found.to_buy) for name, found in self.standings.items()), Decimal(0))

    async def spent(self) -> Spent:
        """What counts against the budgets now; `run` is what this run has bought for, its retries included."""
        reckoner = self.reckoner
        hold = Hold(reckoner.edition, self.document.digest, reckoner.run)
        return await reckoner.desk.ledger.spent(reckoner.desk.account, hold)

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
    storyboard: Storyboard | str,
    studio: KlingStudio,
    variables: Mapping[str, str],
    wish: Wish,
    *,
    allow_outside: bool = False,
    known: Callable[[Reckoner], Awaitable[None]] | None = None,
) -> Prepared:
    """Reads and plans a storyboard, looks up what is bought already, and makes sure that the rest could be rendered.

    Args:
        storyboard: a path or URL, or the document itself.
        studio: that would render it.
        variables: for the document's `{{ name }}` places.
        wish: what else is asked for.
        allow_outside: the document may use files outside of its folder.
        known: called once it is known which film it would be.

    Raises:
        StoryboardError, InvalidMedia: the document, or a file it names, cannot be used.
        AuthenticationFailed: there is no key, or it is refused.
        BudgetExceeded: what is still to be bought may cost more than a budget allows.
        InsufficientCredits: it most likely costs more than the account has.
        LedgerUnavailable: the ledger cannot be used.
        OSError: the storage cannot be written.
    """
    reckoner = await reckoned(storyboard, studio.settings(), variables, wish, allow_outside=allow_outside)
    if known is not None:
        await known(reckoner)
    await studio.get_client().aclose()
    ours = reckoner.desk
    await ours.ledger.reclaim(ours.account)
    await listener_of(ours)  # where callbacks cannot be had as the settings say, nothing is bought
    limits = ours.limits if wish.budget is None else replace(ours.limits, per_run=micro_usd(wish.budget))
    prepared = Prepared(
        document=reckoner.document,
        plan=reckoner.planned,
        reckoner=reckoner,
        standings=await standings(reckoner),
        limits=limits,
        only=tuple(shot.id for shot in reckoner.planned.shots if shot.id in wish.only),
    )
    await _check_budgets(prepared)
    await check_balance(ours, prepared.document.storyboard.title, prepared.usd)
    await studio.get_storage().check()
    return prepared


async def reckoned(
    storyboard: Storyboard | str,
    settings: StudioSettings,
    variables: Mapping[str, str],
    wish: Wish,
    *,
    allow_outside: bool = False,
) -> Reckoner:
    """Reads and plans what is wished of a storyboard, for a studio's ledger; takes and raises what `prepare` does."""
    if isinstance(storyboard, str):
        document = await asyncio.to_thread(
            read_storyboard, storyboard, variables=variables, allow_outside=allow_outside
        )
    else:
        document = document_of(storyboard, variables=variables)
    document = draft_of(document) if wish.draft else document
    edition = draft_edition(wish.edition) if wish.draft else wish.edition
    _check_named("--only", wish.only, document)
    if wish.review:
        # The document may have changed since: what it says of a take goes before a review.
        wish = replace(wish, retake=_still_to_retake(document, wish.retake))
    _check_named("--retake", wish.retake, document)
    # A review offers the shots that the wanted ones need, too.
    _check_retakes(document, wish.retake, () if wish.review else wish.only)
    planned = await plan_document(document, settings)
    if wish.only:
        planned = planned.only(wish.only)
        planned.check_film(document)
    await rehearse(planned)
    return Reckoner(
        await desk(settings), document, planned, edition, run=wish.run, retakes=wish.retake, review=wish.review
    )


async def plan_document(document: Document, settings: StudioSettings) -> Plan:
    """Plans a document for a studio, once its local videos are probed, its images tried and its own checks imported.

    Raises:
        StoryboardError, InvalidMedia: the document, or a file it names, cannot be used.
    """
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
    planned = await asyncio.to_thread(
        plan,
        document,
        loopback=is_loopback_url(settings.base_url),
        videos=videos,
        fitting=await _fitting(document),
        prices=PriceTable.load(settings.prices),
    )
    import_checks(document, planned.shots)
    return planned


async def _fitting(document: Document) -> dict[str, str | None]:
    """Why images cannot be made to fit, or None where they can: tried now, as it is too late once shots are bought."""
    sources = await asyncio.to_thread(images_to_fit, document)
    found: dict[str, str | None] = {}
    for source in sources:
        try:
            async with ClipStorage(source).at_hand(source) as file:
                with tempfile.TemporaryDirectory(prefix="kling-") as folder:
                    await fitted_image(file, Path(folder))
        except KlingError as error:
            found[source] = str(error)
        else:
            found[source] = None
    return found


def _check_named(option: str, ids: Sequence[str], document: Document) -> None:
    known = [shot.id for shot in document.storyboard.shots]
    for shot in ids:
        if shot not in known:
            raise StoryboardError(
                f"{option}: there is no shot '{shot}' in {document.source}{did_you_mean(shot, known)}"
            )


def _check_retakes(document: Document, retakes: Sequence[str], only: Sequence[str]) -> None:
    told = {shot.id: shot.take for shot in document.storyboard.shots}
    for shot in retakes:
        if told[shot]:
            raise StoryboardError(
                f"--retake: {document.source} says take: {told[shot]} of shot '{shot}'; remove that to retake it"
            )
        if only and shot not in only:
            raise StoryboardError(f"--retake: shot '{shot}' is none of those that --only names")


def _still_to_retake(document: Document, retakes: Sequence[str]) -> tuple[str, ...]:
    known = {shot.id: shot.take for shot in document.storyboard.shots}
    return tuple(shot for shot in retakes if known.get(shot) == 0)


async def _check_budgets(prepared: Prepared) -> None:
    """Tells early what the ledger would refuse when the run begins; nothing is held yet."""
    title, spent = prepared.document.storyboard.title, await prepared.spent()
    # What another run of this document holds is held for the same shots.
    others = replace(spent, held=spent.held - spent.held_by_run, held_by_run=0)
    why = refusal(prepared.limits, others, prepared.micro_usd) if prepared.micro_usd else None
    if why is not None:
        raise BudgetExceeded(f"{title} was not begun, and nothing was bought: {why}")


async def check_balance(ours: Desk, name: str, usd: Decimal) -> None:
    """Refuses what the account most likely cannot pay; the gateway would, halfway through.

    Args:
        ours: whose account.
        name: of what would be begun.
        usd: what it most likely costs.

    Raises:
        AuthenticationFailed: the key is refused.
        InsufficientCredits: the account has less.
    """
    if not usd:
        return
    async with ours.client(once=True) as client:
        try:
            balance = (await client.balance()).balance
        except KlingError as error:
            if isinstance(error, AuthenticationFailed | InsufficientCredits) and error.status != _FORBIDDEN:
                raise
            # A gateway may not have this call, or keep it from a key that may buy all the same.
            _logger.warning("The account's balance is not known: %s", error)
            return  # the gateway says so itself, when it is asked to sell
    if usd > balance:
        raise InsufficientCredits(
            f"{name} was not begun, and nothing was bought: what is to be bought costs "
            f"about {usd:.2f} USD, and the account has {balance:.2f} USD. Top it up and run again"
        )
