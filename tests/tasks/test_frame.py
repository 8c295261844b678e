"""The still that the next shot starts on, from a clip that goes black."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image
from prefect.logging import disable_run_logger

from prefect_kling import KlingStudio
from prefect_kling.simulator.faults import Faults
from prefect_kling.simulator.server import Running
from prefect_kling.tasks import create_video, download_video, extract_last_frame, frame, wait_for_video


async def test_a_fade_at_the_end_is_skipped_and_said_so(
    studio: KlingStudio, simulator: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.service.faults = Faults("fade-out=@1", 1)
    body = {"model": "kling-v3-omni", "prompt": "The sea by day", "aspect_ratio": "16:9", "duration": "3"}
    with disable_run_logger():
        submitted = await create_video.fn(body, studio)
        clip = await download_video.fn(await wait_for_video.fn(submitted, studio), studio)
    monkeypatch.setattr(frame, "get_run_logger", lambda: logging.getLogger("test"))
    with caplog.at_level(logging.INFO, logger="test"):
        still = await extract_last_frame.fn(clip, studio)
    assert f"{clip.path}: the last 12 frames are black or fade to it; took frame 61" in caplog.text
    with Image.open(still.path) as image:
        assert np.asarray(image).mean() > 30
