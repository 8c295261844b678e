"""One request, one clip."""

from __future__ import annotations

from prefect import flow

from prefect_kling.clips import Clip
from prefect_kling.flows.form import Edition, Studio
from prefect_kling.flows.runs import edition_of_run
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.tasks import create_video, download_video, wait_for_video

__all__ = ["generate_video"]


@flow(name="generate-video", flow_run_name="video · {request.model}")
async def generate_video(request: OmniVideoRequest, studio: Studio = None, edition: Edition = "") -> Clip:
    """Buys one video, waits for it and keeps it; the same request in the same edition is bought once.

    Args:
        request: What to ask the gateway for.
        studio: The account that pays and where the clip is kept. Empty: the worker's environment.
        edition: Separates runs that are meant to give new clips. Empty: main, or on a schedule its time.

    Raises:
        KlingError: as its task raised it; the message says what it means for the money.
    """
    submitted = await create_video(request.body(), studio, edition=edition_of_run(edition))
    return await download_video(await wait_for_video(submitted, studio), studio)
