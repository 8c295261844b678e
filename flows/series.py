"""One document, many rows, a film of each."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import deque
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from prefect import flow, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import file_name, without_password
from prefect_kling.flows.form import NO_VARIABLES, AtOnce, Budget, Document, Edition, Rows, Studio, Variables
from prefect_kling.flows.naming import name_run, run_name
from prefect_kling.flows.outcome import Rendering, said_of
from prefect_kling.flows.progress import tell, watcher
from prefect_kling.flows.purse import Purse
from prefect_kling.flows.runs import edition_of_run
from prefect_kling.flows.series_outcome import Series, SeriesRow
from prefect_kling.flows.series_plan import PlannedRow, SeriesPlan, SeriesWish, budget_of, money_refusal, plan_series
from prefect_kling.flows.storyboard import render_storyboard
from prefect_kling.gateway.errors import BudgetExceeded, KlingError, LedgerUnavailable, StoryboardError
from prefect_kling.gateway.prices import micro_usd
from prefect_kling.ledger.desk import Desk, desk
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.money import shown
from prefect_kling.storyboard.document import Storyboard

__all__ = ["render_series"]

_PAGE = 200


@flow(name="render-series")
async def render_series(
    storyboard: Document,
    rows: Rows,
    studio: Studio = None,
    variables: Variables = NO_VARIABLES,
    edition: Edition = "",
    at_once: AtOnce = 3,
    budget: Budget = None,
    draft: bool = False,
    allow_outside: bool = False,
    where: Literal["here", "work-pool"] = "here",
) -> State[Series]:
    """Renders a storyboard once for each row, which gives its variables other values; each film is a run of its own.

    All rows are planned first, and what all films together would cost is checked, before anything is bought. A row that
    goes wrong leaves the others. Rows whose film is there already in this edition are not rendered again; running a
    series again, or its retry, pays for nothing twice.

    Args:
        storyboard: A path or URL as the worker sees it, or the document itself.
        rows: A path or URL of a CSV, JSON, JSON Lines or YAML file, or the rows themselves. A column that the document
            does not use may be a note.
        studio: The account that pays and where clips and films are kept. Empty: the worker's environment.
        variables: Values for the document's {{ name }} places in all rows; a row's own value wins.
        edition: Separates runs that are meant to give new films. Empty: main, or on a schedule its time.
        at_once: How many films are made at a time.
        budget: USD that the whole series may spend, retries included; without one, the studio's budget of a run holds
            for each film.
        draft: Try it cheaply: std mode, one take of each shot, in the edition draft.
        allow_outside: Let the document use files of the worker's outside of its own folder.
        where: Make each take in its film's run (here), or in a run of its own on any worker (work-pool).

    Returns:
        `Rendered` with a `Series`; `Partial` (failed) where a row has no film, naming row, reason and what to do.

    Raises:
        StoryboardError: the document or the rows cannot be read, or two rows would make one film; nothing was bought.
        AuthenticationFailed: there is no key.
        BudgetExceeded, InsufficientCredits: all films together would cost more than there is; nothing was bought.
        LedgerUnavailable: the ledger cannot be used; nothing was bought.
        OSError: the storage cannot be written; nothing was bought.
    """
    if at_once < 1:
        raise StoryboardError(f"at_once is how many films are made at a time, 1 or more, not {at_once}")
    wish = SeriesWish(
        storyboard, rows, variables or {}, edition_of_run(edition), draft, allow_outside, budget_of(budget)
    )
    settings = (studio or KlingStudio.from_environment()).settings()
    spent = 0 if wish.budget is None else await _spent_before(await desk(settings))
    planned = await plan_series(wish, settings, spent=spent)
    tags = [planned.edition] if planned.edition != "main" else []
    await name_run(run_name(f"Series {wish.name}", planned.edition), *tags)
    logger = get_run_logger()
    if planned.unused:
        logger.info("Columns that the document does not use: %s", ", ".join(planned.unused))
    todo = len(planned.to_render)
    most = shown(planned.micro_usd)
    logger.info("%s: %d rows, %d films to render, %s at most", wish.name, len(planned.rows), todo, most)
    ended = await _Run(planned, studio, at_once, spent, where).rows()
    series = await _kept(Series(name=wish.name, edition=planned.edition, rows=tuple(ended)), planned.desk)
    if len(series.films) == len(series.rows):
        return Completed(name="Rendered", message=series.sentence(), data=series)
    return Failed(name="Partial", message=series.sentence(), data=series)


class _Run:
    """The films of a series under way, and why no further one is begun."""

    def __init__(
        self,
        planned: SeriesPlan,
        studio: KlingStudio | None,
        at_once: int,
        spent: int,
        where: Literal["here", "work-pool"],
    ) -> None:
        self._planned, self._studio, self._desk, wish = planned, studio, planned.desk, planned.wish
        self._where = where
        self._limits = replace(planned.desk.limits, per_run=None)
        budget = None if wish.budget is None else micro_usd(wish.budget) - spent
        waiting = planned.to_render
        self._purse = Purse(budget, {found.row.number: found.micro_usd for found in waiting}, at_once)
        self._waiting = deque(waiting)
        self._at_once = min(at_once, len(waiting))
        self._closed: KlingError | None = None
        self._ended = {found.row.number: found.row for found in planned.rows if found.row.status != "not-begun"}
        self._logger = get_run_logger()

    async def rows(self) -> list[SeriesRow]:
        """What became of each row, in their order.

        Not by a TaskGroup: it would wrap the signal by which Prefect ends a run, and Prefect would not know it again.
        """
        for row in self._ended.values():
            self._tell(row)
        workers = [asyncio.create_task(self._work()) for _ in range(self._at_once)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        while self._waiting and self._closed is not None:
            self._end(self._waiting.popleft().row.as_not_begun(self._closed))
        return [self._ended[found.row.number] for found in self._planned.rows]

    async def _work(self) -> None:
        while self._waiting and self._closed is None:
            found = self._waiting.popleft()
            self._closed = self._closed or await self._unpayable(found)
            if self._closed is not None:
                self._waiting.appendleft(found)
                return
            await self._render(found)

    async def _unpayable(self, found: PlannedRow) -> KlingError | None:
        """Why a film may not be begun: another run may have spent the day's budget meanwhile."""
        if not found.micro_usd:
            return None
        try:
            why = await money_refusal(self._desk, self._limits, [found])
        except LedgerUnavailable as error:
            return error  # what runs is finished
        return None if why is None else BudgetExceeded(why)

    async def _render(self, found: PlannedRow) -> None:
        row, wish = found.row, self._planned.wish
        drawn = self._purse.draw(row.number)
        tell(row.title, "rendering", f"{found.usd:.2f} USD")
        # Prefect's types do not know of tasks that say what state they end in.
        film: Any = _film.with_options(task_run_name=lambda: row.title)
        state = await film(
            row.title,
            wish.storyboard,
            self._studio,
            dict(found.variables),
            wish.edition,
            # A flow takes no budget of nothing; for a millionth of a dollar nothing can be bought either.
            budget=None if drawn is None else max(drawn, 1) / 1_000_000,
            draft=wish.draft,
            allow_outside=wish.allow_outside,
            where=self._where,
            return_state=True,
        )
        made = await state.aresult(raise_on_failure=False)
        if not isinstance(made, _Made):
            made = _Made("", made)  # the run could not even be begun
        if isinstance(made.found, Rendering):
            ended = row.as_ended(made.found)
        else:
            ended = row.as_failed(made.found, await self._spent(made.run, found))
        self._purse.settle(drawn, micro_usd(ended.usd))
        self._end(ended)
        self._closed = self._closed or ended.stops_others()

    async def _spent(self, run: str, found: PlannedRow) -> Decimal:
        """What a run has spent that did not come to tell."""
        try:
            spent = (await self._desk.ledger.spent(self._desk.account, Hold("", "", run))).run if run else 0
        except LedgerUnavailable as error:
            self._logger.warning("What %s has cost is not known: %s", found.row.called, error)
            spent = found.micro_usd
        return Decimal(spent) / 1_000_000

    def _end(self, row: SeriesRow) -> None:
        self._ended[row.number] = row
        self._tell(row)

    def _tell(self, row: SeriesRow) -> None:
        said = row.error or ("" if row.seconds is None else f"{row.seconds:.1f} s, {row.usd:.2f} USD")
        level = logging.INFO if row.film is not None else logging.ERROR
        self._logger.log(level, "%s: %s: %s", row.called, row.status, said)
        tell(row.title or row.called, row.status, said)


@dataclass(frozen=True)
class _Made:
    """What a film's run came to: its id, empty where there is none, and its rendering or what stopped it."""

    run: str
    found: Rendering | Exception


@task(name="film", cache_policy=NO_CACHE)
async def _film(
    title: str,
    storyboard: Storyboard | str,
    studio: KlingStudio | None,
    variables: dict[str, str],
    edition: str,
    *,
    budget: float | None,
    draft: bool,
    allow_outside: bool,
    where: Literal["here", "work-pool"],
) -> State[_Made]:
    """One row's film, as a run of its own.

    A task, although it only starts a run: of a flow's own children Prefect knows the first from the second by their
    order alone. After a retry, which begins only those that are missing, a row would be given another row's film.
    """
    # The steps of several films at once would be told as one film's.
    token = watcher.set(None)
    try:
        state: State[Any] = await render_storyboard.with_options(flow_run_name=lambda: title)(
            storyboard,
            studio,
            variables,
            edition=edition,
            budget=budget,
            draft=draft,
            allow_outside=allow_outside,
            where=where,
            return_state=True,
        )
    finally:
        watcher.reset(token)
    made = _Made(str(state.state_details.flow_run_id or ""), await state.aresult(raise_on_failure=False))
    kind = Completed if state.is_completed() else Failed
    return kind(name=state.name, message=state.message, data=made)


async def _spent_before(ours: Desk) -> int:
    """Micro-dollars that earlier attempts of this flow run have spent, through the runs that they began."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.run_count < 2:
        return 0
    own = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[context.flow_run.id]))
    spent, offset = 0, 0
    async with get_client() as client:
        while page := await client.read_flow_runs(flow_run_filter=own, limit=_PAGE, offset=offset):
            for run in page:
                spent += (await ours.ledger.spent(ours.account, Hold("", "", str(run.id)))).run
            offset += len(page)
    return spent


async def _kept(series: Series, ours: Desk) -> Series:
    """The series with its summary in storage and in the UI; what comes between does not take the films away."""
    storage = ours.storage()
    name = f"series/{file_name(series.edition)}/{series.name}.json"
    try:
        async with storage.incoming() as folder:
            (folder / "series.json").write_text(json.dumps(series.document(), indent=2, ensure_ascii=False), "utf-8")
            location = await storage.publish(folder / "series.json", name)
        series = series.model_copy(update={"summary": location})
        get_run_logger().info("Summary: %s", storage.link(location))
        await acreate_markdown_artifact(
            key=_artifact_key(series.name),
            markdown=series.markdown(lambda kept: without_password(storage.link(kept))),
            description=f"Films, costs and failures of the series {series.name}, edition {series.edition}",
        )
    except Exception as error:  # noqa: BLE001 - the films are there and paid for; the run says what is missing
        get_run_logger().exception("The summary could not be written")
        return series.model_copy(update={"unwritten": said_of(error)})
    return series


def _artifact_key(name: str) -> str:
    """Prefect takes small letters, digits and hyphens."""
    return "series-" + re.sub(r"[^a-z0-9]+", "-", file_name(name)).strip("-")
