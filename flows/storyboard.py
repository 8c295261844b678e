"""A storyboard in, a film out."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from prefect_kling.blocks import KlingStudio
from prefect_kling.flows.announcing import money_trouble
from prefect_kling.flows.approving import NotApproved, render_approved
from prefect_kling.flows.elsewhere import Elsewhere
from prefect_kling.flows.form import NO_VARIABLES, Budget, Document, Edition, ShotIds, Studio, Variables
from prefect_kling.flows.naming import name_run, run_name
from prefect_kling.flows.outcome import Rendering
from prefect_kling.flows.preparing import Prepared, Wish, prepare
from prefect_kling.flows.progress import tell
from prefect_kling.flows.reckoning import Reckoner
from prefect_kling.flows.rendering import Review, render
from prefect_kling.flows.runs import edition_of_run, is_repeated_by_prefect, run_id
from prefect_kling.gateway.errors import KlingError, StoryboardError
from prefect_kling.ledger.money import shown

__all__ = ["render_storyboard"]


@flow(name="render-storyboard")
async def render_storyboard(
    storyboard: Document,
    studio: Studio = None,
    variables: Variables = NO_VARIABLES,
    edition: Edition = "",
    retake: ShotIds = (),
    only: ShotIds = (),
    budget: Budget = None,
    draft: bool = False,
    allow_outside: bool = False,
    approve: Literal["nothing", "plan", "cut", "both"] = "nothing",
    where: Literal["here", "work-pool"] = "here",
) -> State[Rendering]:
    """Buys every shot of a storyboard that is not bought yet, keeps the clips and joins them.

    Everything that can be checked is checked before anything is bought: the document, its media, the key, the storage,
    the ledger, the budgets. Shots that do not depend on each other run at the same time. Running it again, in whatever
    process, uses what was bought before; so does a retry.

    Args:
        storyboard: A path or URL as the worker sees it, or the document itself.
        studio: The account that pays and where clips and films are kept. Empty: the worker's environment.
        variables: Values for the document's {{ name }} places.
        edition: Separates runs that are meant to give new clips. Empty: main, or on a schedule its time.
        retake: Ids of shots to buy anew; later runs use the new take.
        only: Ids of the only shots to make, with what they need; a film of just these, beside the whole one.
        budget: USD that this run may spend, its retries included.
        draft: Try it cheaply: std mode, one take of each shot, in the edition draft.
        allow_outside: Let the document use files of the worker's outside of its own folder.
        approve: Wait for a person on this run's page: before money is spent (plan), before the film is joined (cut).
        where: Make each take in this run (here), or in a run of its own on any worker (work-pool).

    Returns:
        `Rendered` with a `Rendering`; `Partial` (failed) where a shot has no clip, naming shot, reason and what to do;
        `Declined` or `Stopped` (cancelled) where a person did not approve; or failed under the name of an error below.

    Raises:
        StoryboardError, InvalidMedia: the document cannot be rendered; nothing was bought.
        BudgetExceeded: it would cost more than a budget allows; nothing was bought.
        InsufficientCredits: it would cost more than the account has; nothing was bought.
        LedgerUnavailable: the ledger cannot be used; nothing was bought.
        NotAnswered: nobody approved in time; what was bought is kept.
        OSError: the storage cannot be written; nothing was bought.
    """
    given, studio = studio, studio or KlingStudio.from_environment()
    if budget is not None and not (math.isfinite(budget) and budget > 0):
        raise StoryboardError(f"budget has to be an amount in USD above zero, not {budget}")
    wish = Wish(
        edition=edition_of_run(edition),
        retake=tuple(retake or ()),
        only=tuple(only or ()),
        draft=draft,
        budget=None if budget is None else Decimal(str(budget)),
        run=run_id(),
    )

    async def prepared(wished: Wish) -> Prepared:
        found = await prepare(
            storyboard, studio, variables or {}, wished, allow_outside=allow_outside, known=_name_after
        )
        if where == "here":
            return found
        return replace(found, elsewhere=await Elsewhere.found(found.reckoner.desk, given))

    async def rendered(found: Prepared, review: Review | None) -> Rendering:
        return await _rendered(found, studio, review)

    try:
        wait = studio.settings().approval_wait
        return _final_state(await render_approved(prepared, rendered, wish, approve, wait))
    except NotApproved as decision:
        # Neither done nor failed: a person has ended it, and automations on failures have nothing to do.
        return Cancelled(name=decision.state, message=str(decision))
    except KlingError as error:
        money_trouble(studio.credentials.account, error)
        if error.retryable or is_repeated_by_prefect():
            raise
        # Nothing is wrong with the program, so that nobody needs a traceback. Callers get the error all the same.
        return Failed(name=type(error).__name__, message=str(error), data=error)


async def _name_after(reckoner: Reckoner) -> None:
    title, edition = reckoner.document.storyboard.title, reckoner.edition
    await name_run(run_name(title, edition), title, *([] if edition == "main" else [edition]))


async def _rendered(prepared: Prepared, studio: KlingStudio, review: Review | None) -> Rendering:
    logger, title = get_run_logger(), prepared.document.storyboard.title
    reuse = prepared.reuse()
    if reuse is not None:
        logger.info("%s", reuse)
    apart = " without retakes" if prepared.plan.may_retake else ""
    logger.info("%s: %d shots, %s to buy at most%s", title, len(prepared.plan.shots), shown(prepared.micro_usd), apart)
    for shot in prepared.plan.shots:
        tell(shot.id, "planned", f"{shot.usd:.2f} USD")
    return await render(prepared, studio, review)


def _final_state(rendering: Rendering) -> State[Any]:
    if rendering.film is not None:
        return Completed(name="Rendered", message=rendering.sentence(), data=rendering)
    name = "Partial" if rendering.failures else "NotJoined"
    return Failed(name=name, message=rendering.sentence(), data=rendering)
