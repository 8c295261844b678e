"""The command `prefect-kling series`: a storyboard rendered once for each row of a file."""

from __future__ import annotations

import asyncio
import json as jsonlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from prefect_kling.cli_codes import exit_code
from prefect_kling.cli_studio import (
    StudioName,
    reachable_server,
    set_up_prefect,
    studio_at_work,
    told,
    variables_of,
)
from prefect_kling.gateway.errors import KlingError, StoryboardError
from prefect_kling.terminal import announce

# Prefect is imported where it is used: every command of `prefect-kling` imports this module.
if TYPE_CHECKING:
    from prefect_kling.flows.progress import Progress
    from prefect_kling.flows.series_outcome import Series

__all__ = ["series"]


def series(
    file: str,
    rows: str,
    /,
    *,
    studio: StudioName = None,
    simulate: Annotated[bool, Parameter(negative="")] = False,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    edition: str | None = None,
    at_once: int = 3,
    budget: Decimal | None = None,
    draft: Annotated[bool, Parameter(negative="")] = False,
    allow_outside: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Render a storyboard once for each row of a file; rows whose film is there already are not rendered again.

    Parameters
    ----------
    file
        The storyboard: a path or URL, YAML or JSON.
    rows
        The rows: a path or URL of CSV, JSON, JSON Lines or YAML. Columns are the storyboard's variables, or notes.
    simulate
        Use the built-in simulator instead of the gateway: nothing is paid, no key is needed.
    set_
        A value for a `{{ name }}` in the document, for all rows, as name=value; may be repeated.
    edition
        Separates runs that are meant to give new films from reruns, which use what is there; "main" where not given.
    at_once
        How many films are made at a time; 3 where it is not given.
    budget
        USD that the whole series may spend at most.
    draft
        Try it cheaply: std mode, one take of each shot, in an edition of its own.
    allow_outside
        Let the storyboard's paths leave its folder.
    json
        Print one JSON document to stdout.
    """
    variables = variables_of(set_)
    if studio is not None and simulate:
        raise KlingError("series takes either --studio or --simulate: the simulator has a studio of its own")
    if at_once < 1:
        raise StoryboardError(f"--at-once is how many films are made at a time, 1 or more, not {at_once}")
    begun = time.monotonic()
    asked = _Asked(file, rows, variables, studio, simulate, edition or "", at_once, budget, draft, allow_outside)
    found = asyncio.run(_rendered(asked))
    if json:
        print(jsonlib.dumps(found.document(), indent=2, ensure_ascii=False))  # noqa: T201 - what --json is for
    announce(f"{found.name}: {found.sentence()}")
    cost = "would have cost" if simulate else "cost"
    announce(f"It {cost} {found.usd:.2f} USD and took {time.monotonic() - begun:.0f} s")
    if found.summary is not None:
        announce(f"Summary: {found.summary}")
    return exit_code(row.error_type for row in found.rows if row.error_type)


@dataclass(frozen=True)
class _Asked:
    """What `series` was asked for."""

    file: str
    rows: str
    variables: Mapping[str, str]
    studio: str | None
    simulate: bool
    edition: str
    at_once: int
    budget: Decimal | None
    draft: bool
    allow_outside: bool


async def _rendered(asked: _Asked) -> Series:
    set_up_prefect()
    async with studio_at_work(asked.studio, simulate=asked.simulate) as (studio, parameter):
        from prefect_kling.flows.series import render_series
        from prefect_kling.flows.series_plan import SeriesWish, budget_of, plan_series

        wish = SeriesWish(
            asked.file,
            asked.rows,
            asked.variables,
            asked.edition or "main",
            asked.draft,
            asked.allow_outside,
            budget_of(asked.budget),
        )
        # What is wrong with the rows shows in a second; a Prefect server takes ten to start.
        planned = await plan_series(wish, studio.settings())
        await reachable_server()
        todo, most = len(planned.to_render), planned.micro_usd / 1e6
        if planned.unused:
            announce(f"Columns that the storyboard does not use: {', '.join(planned.unused)}")
        announce(f"{len(planned.rows)} rows, {todo} films to render, {most:.2f} USD at most; starting Prefect …")
        with _watching(asked.studio):
            state: Any = await render_series(
                asked.file,
                asked.rows,
                parameter,
                variables=dict(asked.variables),
                edition=asked.edition or None,
                at_once=asked.at_once,
                budget=None if asked.budget is None else float(asked.budget),
                draft=asked.draft,
                allow_outside=asked.allow_outside,
                return_state=True,
            )
            found: Series = await state.aresult(raise_on_failure=False)
    if isinstance(found, BaseException):
        raise found
    rows = [row.model_copy(update={"error": row.error and told(row.error, asked.studio)}) for row in found.rows]
    return found.model_copy(update={"rows": tuple(rows)})


@contextmanager
def _watching(studio: str | None) -> Iterator[None]:
    """Shows a line for each row of a series that is begun or ends inside the block, in this process."""
    from prefect_kling.flows.progress import watcher

    begun = time.monotonic()

    def line(step: Progress) -> None:
        at = f"{time.monotonic() - begun:6.1f} s"
        announce(f"{at}  {step.shot:<32} {step.step:<10} {told(step.detail, studio)}".rstrip())

    token = watcher.set(line)
    try:
        yield
    finally:
        watcher.reset(token)
