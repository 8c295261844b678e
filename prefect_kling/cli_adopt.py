"""The command `prefect-kling ledger adopt`: a clip that was bought elsewhere becomes a take of a shot."""

from __future__ import annotations

import asyncio
import json as jsonlib
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prefect_kling.cli_studio import StudioName, set_up_prefect, studio_named, variables_of
from prefect_kling.terminal import announce

if TYPE_CHECKING:
    from prefect_kling.flows.adopting import Adoptee
    from prefect_kling.ledger.purchases import Purchase

__all__ = ["adopt"]


def adopt(
    task_id: str,
    file: str | None = None,
    /,
    *,
    shot: str,
    studio: StudioName = None,
    edition: str = "main",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    allow_outside: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Bring in a clip that was bought elsewhere with the same account, as a take that later runs use.

    Parameters
    ----------
    task_id
        The gateway's task, not older than 7 days.
    file
        The storyboard of the shot; without it, the shot is what it was when it was last bought.
    shot
        Id of the shot.
    edition
        Of the shot; "main" where it is not given.
    set_
        A value for a `{{ name }}` in the storyboard, as name=value; may be repeated.
    allow_outside
        Let the storyboard's paths leave its folder.
    json
        Print one JSON document to stdout, with the whole token.
    """
    from prefect_kling.flows.adopting import Adoptee
    from prefect_kling.ledger.reports import as_json

    adoptee = Adoptee(shot, file, variables_of(set_), edition, allow_outside)
    kept = asyncio.run(_adopted(studio, adoptee, task_id))
    if json:
        print(jsonlib.dumps(as_json(kept), indent=2, ensure_ascii=False))  # noqa: T201 - what --json is for
    where = kept.clip.path if kept.clip else ""
    announce(f"Task {task_id} is take {kept.order.take} of shot '{shot}' now, and later runs use it: {where}")
    return 0


async def _adopted(studio: str | None, adoptee: Adoptee, task_id: str) -> Purchase:
    set_up_prefect()
    there = await studio_named(studio)

    from prefect_kling.flows.adopting import adopt_clip
    from prefect_kling.ledger.desk import close_ledgers, desk

    try:
        return await adopt_clip(await desk(there.settings()), adoptee, task_id)
    finally:
        await close_ledgers()
