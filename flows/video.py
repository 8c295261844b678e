"""One request, one clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BeforeValidator, ValidationError
from pydantic.json_schema import SkipJsonSchema

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip
from prefect_kling.flows.errands import Errand
from prefect_kling.flows.form import Edition, Studio
from prefect_kling.flows.naming import name_run
from prefect_kling.flows.outcome import usd_of
from prefect_kling.flows.page import show_video
from prefect_kling.flows.runs import edition_of_run, is_repeated_by_prefect, run_id
from prefect_kling.gateway.errors import KlingError
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.desk import Desk, desk
from prefect_kling.tasks import create_video, download_video, wait_for_video

__all__ = ["generate_video"]

MOST_TITLE: Final = 40


def _with_loopback(value: Any) -> Any:
    """Whether an address on this machine can be used depends on the gateway's, which `create_video` knows."""
    if not isinstance(value, Mapping):
        return value
    try:
        return OmniVideoRequest.model_validate(value, context={"loopback": True})
    except ValidationError:
        return value  # to be told by Prefect as it tells of every other parameter


@flow(name="generate-video")
async def generate_video(
    request: Annotated[OmniVideoRequest, BeforeValidator(_with_loopback)],
    studio: Studio = None,
    edition: Edition = "",
    errand: SkipJsonSchema[Errand | None] = None,
) -> Clip:
    """Buys one video, waits for it and keeps it; the same request in the same edition is bought once.

    Args:
        request: What to ask the gateway for.
        studio: The account that pays and where the clip is kept. Empty: the worker's environment.
        edition: Separates runs that are meant to give new clips. Empty: main, or on a schedule its time.
        errand: For a film's run on another machine; not for people.

    Returns:
        The clip; the run ends as `Generated`.

    Raises:
        KlingError: as its task raised it; the message says what it means for the money.
    """
    try:
        return await _final_state(request, studio, edition_of_run(edition), errand)  # type: ignore[return-value] # Prefect hands out what is in it
    except KlingError as error:
        if errand is None and (error.retryable or is_repeated_by_prefect()):
            raise
        # The state's name and message are what a film's run can read; an exception would stay on this machine.
        return Failed(name=type(error).__name__, message=str(error), data=error)  # type: ignore[return-value] # as above


async def _final_state(
    request: OmniVideoRequest, studio: KlingStudio | None, edition: str, errand: Errand | None
) -> State[Clip]:
    ours = await desk((studio or KlingStudio.from_environment()).settings())
    if errand is not None:
        await errand.begin(ours)
        terms = {"order": errand.order, "limits": errand.limits, "on_uncertain": errand.on_uncertain}
        return await _generated(request, studio, ours, errand.order.run, edition=errand.order.edition, **terms)
    title = _title(request)
    await name_run(f"Video · {title}", *([] if edition == "main" else [edition]))
    state = await _generated(request, studio, ours, run_id(), edition=edition)
    await show_video(title, await state.aresult(), ours, str(state.message))
    return state


def _title(request: OmniVideoRequest) -> str:
    prompt = " ".join((request.prompt or request.model).split())
    return prompt if len(prompt) <= MOST_TITLE else f"{prompt[: MOST_TITLE - 1]}…"


async def _generated(
    request: OmniVideoRequest, studio: KlingStudio | None, ours: Desk, run: str, **terms: Any
) -> State[Clip]:
    submitted = await create_video(request.body(), studio, **terms)
    clip = await download_video(await wait_for_video(submitted, studio), studio)
    row = await ours.ledger.get(submitted.purchase)
    money = f"{usd_of(row):.2f} USD" if row.order.run == run else "bought before"
    return Completed(name="Generated", message=f"{clip.seconds:.1f} s, {money}", data=clip)
