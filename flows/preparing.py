"""Everything that can be known before money is spent: the document, its media, the key, the storage, the budget."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from prefect_kling.blocks import KlingStudio
from prefect_kling.gateway.addresses import is_loopback_url
from prefect_kling.gateway.errors import BudgetExceeded
from prefect_kling.gateway.limits import VideoFacts
from prefect_kling.gateway.prices import PriceTable
from prefect_kling.media.probe import probe
from prefect_kling.settings import StudioSettings
from prefect_kling.storyboard.document import Storyboard
from prefect_kling.storyboard.plan import Plan, local_videos, plan
from prefect_kling.storyboard.reader import Document, document_of, read_storyboard

__all__ = ["Prepared", "plan_document", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A document and its plan, ready to be rendered."""

    document: Document
    plan: Plan


async def prepare(
    storyboard: Storyboard | str, studio: KlingStudio, variables: Mapping[str, str], *, budget: Decimal | None = None
) -> Prepared:
    """Reads and plans a storyboard, and makes sure that it could be rendered.

    Raises:
        StoryboardError, InvalidMedia: the document, or a file it names, cannot be used.
        AuthenticationFailed: there is no key.
        BudgetExceeded: the plan's upper bound is above the budget.
        OSError: the storage cannot be written.
    """
    settings = studio.settings()
    if isinstance(storyboard, str):
        document = await asyncio.to_thread(read_storyboard, storyboard, variables=variables)
    else:
        document = document_of(storyboard, variables=variables)
    planned = await plan_document(document, settings)
    await studio.get_client().aclose()
    allowed = settings.budget_per_run if budget is None else int(budget * 1_000_000)
    if allowed is not None and planned.upper_usd * 1_000_000 > allowed:
        raise BudgetExceeded(
            f"{document.storyboard.title} may cost up to {planned.upper_usd:.2f} USD, the budget of this run is "
            f"{Decimal(allowed) / 1_000_000:.2f} USD; nothing was bought"
        )
    await studio.get_storage().check()
    return Prepared(document, planned)


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
