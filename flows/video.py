"""One request, one clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from prefect import flow
from prefect.states import Failed
from pydantic import BeforeValidator, ValidationError
from pydantic.json_schema import SkipJsonSchema

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip
from prefect_kling.flows.errands import Errand
from prefect_kling.flows.form import Edition, Studio
from prefect_kling.flows.runs import edition_of_run
from prefect_kling.gateway.errors import KlingError
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.desk import desk
from prefect_kling.tasks import create_video, download_video, wait_for_video

__all__ = ["generate_video"]


def _with_loopback(value: Any) -> Any:
    """Whether an address on this machine can be used depends on the gateway's, which `create_video` knows."""
    if not isinstance(value, Mapping):
        return value
    try:
        return OmniVideoRequest.model_validate(value, context={"loopback": True})
    except ValidationError:
        return value  # to be told by Prefect as it tells of every other parameter


@flow(name="generate-video", flow_run_name="video · {request.model}")
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

    Raises:
        KlingError: as its task raised it; the message says what it means for the money.
    """
    if errand is None:
        return await _generated(request, studio, edition_of_run(edition))
    try:
        await errand.begin(await desk((studio or KlingStudio.from_environment()).settings()))
        return await _generated(request, studio, errand.order.edition, errand)
    except KlingError as error:
        # The state's name and message are what the film's run can read; an exception would stay on this machine.
        return Failed(name=type(error).__name__, message=str(error))  # type: ignore[return-value] # Prefect ends in it


async def _generated(
    request: OmniVideoRequest, studio: KlingStudio | None, edition: str, errand: Errand | None = None
) -> Clip:
    terms: dict[str, Any] = {}
    if errand is not None:
        terms = {"order": errand.order, "limits": errand.limits, "on_uncertain": errand.on_uncertain}
    submitted = await create_video(request.body(), studio, edition=edition, **terms)
    return await download_video(await wait_for_video(submitted, studio), studio)
