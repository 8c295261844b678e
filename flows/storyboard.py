"""A storyboard in, a film out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from prefect_kling.blocks import KlingStudio
from prefect_kling.flows.outcome import Rendering
from prefect_kling.flows.preparing import prepare
from prefect_kling.flows.progress import tell
from prefect_kling.flows.rendering import render
from prefect_kling.storyboard.document import Storyboard

__all__ = ["render_storyboard"]


@flow(name="render-storyboard")
async def render_storyboard(
    storyboard: Storyboard | str,
    studio: KlingStudio | None = None,
    variables: dict[str, str] | None = None,
    edition: str | None = None,
    budget: float | None = None,
) -> State[Rendering]:
    """Buys every shot of a storyboard, keeps the clips and joins them.

    Everything that can be checked is checked before anything is bought: the document, its media, the key, the storage,
    the budget. Shots that do not depend on each other run at the same time.

    Args:
        storyboard: a path or URL as the worker sees it, or the document itself.
        studio: the account that pays and where clips and films are kept; empty takes the worker's environment.
        variables: values for the document's `{{ name }}` places.
        edition: names the folder of clips and film; empty for "main".
        budget: USD that this run may spend; empty for the studio's.

    Returns:
        `Rendered` with a `Rendering`; `Partial` (failed) where a shot has no clip, naming shot, reason and what to do.

    Raises:
        StoryboardError, InvalidMedia: the document cannot be rendered; nothing was bought.
        BudgetExceeded: it would cost more than the budget; nothing was bought.
        OSError: the storage cannot be written; nothing was bought.
    """
    studio = studio or KlingStudio.from_environment()
    prepared = await prepare(
        storyboard, studio, variables or {}, budget=None if budget is None else Decimal(str(budget))
    )
    title, plan = prepared.document.storyboard.title, prepared.plan
    get_run_logger().info("%s: %d shots, about %.2f USD", title, len(plan.shots), plan.usd)
    for shot in plan.shots:
        tell(shot.id, "planned", f"{shot.usd:.2f} USD")
    rendering = await render(plan, title, studio, edition=edition or "main")
    return _final_state(rendering)


def _final_state(rendering: Rendering) -> State[Any]:
    if rendering.film is not None:
        return Completed(name="Rendered", message=rendering.sentence(), data=rendering)
    name = "Partial" if rendering.failures else "NotJoined"
    return Failed(name=name, message=rendering.sentence(), data=rendering)
