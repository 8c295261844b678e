"""Bringing in a clip that was bought elsewhere as a take of a shot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from prefect_kling.flows.preparing import plan_document
from prefect_kling.flows.reckoning import Reckoner
from prefect_kling.flows.standing import facts_of, standings
from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.ledger.adopting import adopt
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.refusals import is_moderated_row
from prefect_kling.ledger.schema import purchases
from prefect_kling.storyboard.places import did_you_mean
from prefect_kling.storyboard.reader import read_storyboard

__all__ = ["Adoptee", "adopt_clip"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adoptee:
    """The shot that a clip is adopted for.

    Attributes:
        shot: its id.
        storyboard: the path or URL of its document; None takes the shot as the ledger last saw it.
        variables: values for the document's variables.
        edition: whose take it becomes; empty for "main".
        allow_outside: whether the document's paths may leave its folder.
    """

    shot: str
    storyboard: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    edition: str = "main"
    allow_outside: bool = False


async def adopt_clip(desk: Desk, adoptee: Adoptee, task_id: str) -> Purchase:
    """Makes a task bought elsewhere a take of a shot, waits for it and keeps its clip; later runs use that take.

    Args:
        desk: whose ledger and storage.
        adoptee: the shot.
        task_id: the gateway's task.

    Returns:
        Its row, `stored`.

    Raises:
        StoryboardError: there is no such shot, or what it is cannot be known yet.
        InvalidRequest: the task cannot be its take.
        KlingError: the task is not known, failed, or its clip cannot be had.
    """
    order, bases = await _wanted(desk, adoptee)
    settings = desk.settings
    async with desk.keeper(_logger) as keeper:
        adopted = await adopt(desk.ledger, desk.account, keeper.client, order, bases[0], task_id, also=bases[1:])
        done = await keeper.wait(adopted, poll_interval=settings.poll_interval, max_wait=settings.max_wait)
        return await keeper.keep(done)


async def _wanted(desk: Desk, adoptee: Adoptee) -> tuple[Order, tuple[str, ...]]:
    if adoptee.storyboard is None:
        order = await _last_order(desk, adoptee)
        return order, (order.key.rpartition("#")[0],)
    document = await asyncio.to_thread(
        read_storyboard, adoptee.storyboard, variables=adoptee.variables, allow_outside=adoptee.allow_outside
    )
    planned = await plan_document(document, desk.settings)
    shots = {shot.id: shot for shot in planned.shots}
    shot = shots.get(adoptee.shot)
    if shot is None:
        raise StoryboardError(
            f"there is no shot '{adoptee.shot}' in {document.source}{did_you_mean(adoptee.shot, shots)}"
        )
    if shot.take:
        raise StoryboardError(f"{document.source} says take: {shot.take} of shot '{shot.id}'; remove that first")
    reckoner = Reckoner(desk, document, planned.only([shot.id]), adoptee.edition)
    found = await standings(reckoner)
    missing = [need for need in shot.needs if found[need].status != "kept"]
    if missing:
        raise StoryboardError(
            f"shot '{shot.id}' is made of the clip of {', '.join(missing)}, which is not there yet; render or adopt "
            "that first. Nothing was changed"
        )
    choice = await reckoner.choice(shot, {need: facts_of(found[need]) for need in shot.needs}, pin=False)
    return choice.order(1), choice.base_keys


async def _last_order(desk: Desk, adoptee: Adoptee) -> Order:
    rows = await desk.ledger.of_account(
        desk.account, purchases.c.shot == adoptee.shot, purchases.c.edition == adoptee.edition
    )
    boards = sorted({row.order.storyboard for row in rows})
    said = f"shots of that name belong to {', '.join(boards)}" if boards else "it was never asked for"
    if len(boards) == 1:
        last = max(rows, key=lambda row: row.id).order
        if not any(row.order.document == last.document and is_moderated_row(row) for row in rows):
            return last
        said = "moderation refused it, and which words are its own only the storyboard says"
    raise StoryboardError(
        f"what shot '{adoptee.shot}' of edition {adoptee.edition} is cannot be told: {said}. Name the storyboard: "
        f"`prefect-kling ledger adopt TASK_ID FILE --shot {adoptee.shot}`"
    )
