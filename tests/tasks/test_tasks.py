"""The tasks, one step each, over real HTTP against the simulator; run as plain functions, without a Prefect server."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from prefect.logging import disable_run_logger
from prefect.states import Failed

from prefect_kling import Clip, KlingCredentials, KlingStudio
from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    GenerationFailed,
    GenerationTimeout,
    InvalidMedia,
    InvalidRequest,
    KlingError,
    PurchaseUncertain,
    RateLimited,
)
from prefect_kling.ledger.desk import desk
from prefect_kling.ledger.states import Event
from prefect_kling.media.probe import probe
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running
from prefect_kling.storyboard.cutting import ShotCut
from prefect_kling.tasks import (
    create_video,
    download_video,
    extract_last_frame,
    host_file,
    join_clips,
    wait_for_video,
)
from prefect_kling.tasks.retries import is_retryable, is_retryable_create

TEXT: dict[str, Any] = {
    "model": "kling-v3-omni",
    "prompt": "A lighthouse at dawn",
    "aspect_ratio": "16:9",
    "duration": "3",
}


@pytest.fixture(autouse=True)
def _plain_functions() -> Iterator[None]:
    with disable_run_logger():
        yield


async def make(studio: KlingStudio, **fields: Any) -> Clip:
    """Buys a clip and brings it home."""
    submitted = await create_video.fn({**TEXT, **fields}, studio)
    return await download_video.fn(await wait_for_video.fn(submitted, studio), studio)


async def test_one_request_becomes_one_stored_clip(studio: KlingStudio, simulator: Running) -> None:
    clip = await make(studio)
    stored = Path(clip.path)
    assert stored.parent == Path(studio.storage_url) / "clips" / "main"
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == clip.sha256
    assert (stored.stat().st_size, clip.frames) == (clip.bytes, 73)
    assert simulator.service.stats()["creates"] == 1
    assert not list((Path(studio.storage_url) / ".incoming").iterdir())


async def test_a_result_url_feeds_the_next_request_as_its_base(studio: KlingStudio) -> None:
    clip = await make(studio)
    url = clip.live_url(datetime.now(UTC))
    edit = {"model": "kling-v3-omni", "prompt": "At night", "video_list": [{"video_url": url, "refer_type": "base"}]}
    submitted = await create_video.fn(edit, studio)
    edited = await download_video.fn(await wait_for_video.fn(submitted, studio), studio)
    assert edited.frames == clip.frames
    assert edited.sha256 != clip.sha256


async def test_a_result_url_is_not_used_when_it_is_about_to_vanish(studio: KlingStudio) -> None:
    clip = await make(studio)
    assert clip.live_url(datetime.now(UTC) + timedelta(days=6)) == clip.url
    assert clip.live_url(datetime.now(UTC) + timedelta(days=6, hours=20)) is None


async def test_a_stored_clip_and_its_last_frame_can_be_hosted(studio: KlingStudio, simulator: Running) -> None:
    clip = await make(studio)
    still = await extract_last_frame.fn(clip, studio)
    for file in (clip, still):
        hosted = await host_file.fn(file, studio)
        assert hosted.url.startswith(simulator.origin)
    assert Path(still.path).parent.name == "frames"


async def test_a_local_file_can_be_hosted(studio: KlingStudio, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (400, 400), "teal").save(tmp_path / "ref.png")
    assert (await host_file.fn(str(tmp_path / "ref.png"), studio)).url.startswith("http://127.0.0.1")


async def test_a_file_at_the_root_of_a_store_can_be_hosted(studio: KlingStudio, simulator: Running) -> None:
    fsspec.filesystem("memory").pipe_file("/hosted-root.png", b"picture")
    assert (await host_file.fn("memory://hosted-root.png", studio)).url.startswith(simulator.origin)


async def test_a_missing_file_is_named(studio: KlingStudio, tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match=r"gone\.png"):
        await host_file.fn(str(tmp_path / "gone.png"), studio)


async def test_clips_are_joined_frame_by_frame(studio: KlingStudio) -> None:
    clips = [await make(studio, prompt=prompt) for prompt in ("one", "two")]
    film = await join_clips.fn(clips, studio, name="films/two.mp4", titles=["one", "two"])
    (facts,) = await probe([Path(film.path)])
    assert film.frames == facts.video.frames == sum(clip.frames for clip in clips)
    assert film.method == "copy"


async def test_what_lay_beside_a_film_of_that_name_does_not_outlive_it(studio: KlingStudio) -> None:
    clip = await make(studio)
    captioned = await join_clips.fn([clip], studio, shots=[ShotCut("one", caption="Once.")], otio=True)
    plain = await join_clips.fn([clip], studio)
    assert set(captioned.beside) - set(plain.beside) == {"srt", "vtt", "otio"}
    there = {path.name.removeprefix("film.") for path in Path(plain.path).parent.iterdir()}
    assert there == {"mp4", *plain.beside}


async def test_a_clip_that_was_changed_in_storage_is_not_joined(studio: KlingStudio) -> None:
    clip = await make(studio)
    Path(clip.path).write_bytes(b"something else")
    with pytest.raises(InvalidMedia, match="sha256"):
        await join_clips.fn([clip], studio)


async def test_a_body_that_breaks_a_rule_never_leaves(studio: KlingStudio, simulator: Running) -> None:
    with pytest.raises(InvalidRequest, match="sound: 'on' cannot go with a video"):
        await create_video.fn(
            {**TEXT, "sound": "on", "video_list": [{"video_url": "https://films.example.com/a.mp4"}]}, studio
        )
    assert simulator.service.stats()["creates"] == 0


async def test_a_wrong_key_is_refused_without_showing_it(studio: KlingStudio) -> None:
    async with running(SimulatorConfig(api_key="the-right-one")) as strict:
        wrong = KlingStudio(
            credentials=KlingCredentials(api_key="sk-wrong-1c44", base_url=strict.base_url),
            storage_url=studio.storage_url,
        )
        with pytest.raises(AuthenticationFailed) as refused:
            await create_video.fn(TEXT, wrong)
    assert "sk-wrong-1c44" not in str(refused.value)


async def test_a_failed_generation_says_why(studio: KlingStudio) -> None:
    async with running(SimulatorConfig(generation_seconds=0.1, faults="failed=1", shrink=8)) as failing:
        at = studio.model_copy(update={"credentials": KlingCredentials(api_key="k", base_url=failing.base_url)})
        submitted = await create_video.fn(TEXT, at)
        with pytest.raises(GenerationFailed, match="not billed"):
            await wait_for_video.fn(submitted, at)


async def test_a_wait_that_is_too_short_can_be_taken_up_again(studio: KlingStudio, simulator: Running) -> None:
    hasty = studio.model_copy(update={"max_wait": 0.001})
    submitted = await create_video.fn(TEXT, studio)
    with pytest.raises(GenerationTimeout, match=submitted.task_id):
        await wait_for_video.fn(submitted, hasty)
    assert (await wait_for_video.fn(submitted.task_id, studio)).task_id == submitted.task_id
    assert simulator.service.stats()["creates"] == 1


async def test_a_lost_answer_is_uncertain_and_not_sent_again(studio: KlingStudio) -> None:
    async with running(SimulatorConfig(generation_seconds=0.1, faults="lost-answer=1", shrink=8)) as losing:
        at = studio.model_copy(update={"credentials": KlingCredentials(api_key="k", base_url=losing.base_url)})
        with pytest.raises(PurchaseUncertain):
            await create_video.fn(TEXT, at)
        assert losing.service.stats()["creates"] == 1


async def test_what_can_fail_besides_the_purchase_fails_before_it(
    studio: KlingStudio, simulator: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prices.json").write_text('{"kling-video-o1": {}}')
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_PRICES", str(tmp_path / "prices.json"))
    with pytest.raises(InvalidRequest):
        await create_video.fn(TEXT, studio)
    assert simulator.service.stats()["creates"] == 0


async def test_a_result_that_is_no_video_is_named_by_its_task(studio: KlingStudio, simulator: Running) -> None:
    generated = await wait_for_video.fn(await create_video.fn(TEXT, studio), studio)
    ledger = (await desk(studio.settings())).ledger
    row = await ledger.get(generated.purchase)
    await ledger.happened(row, Event.COMPLETED, result_url=f"{simulator.origin}/_sim/stats")
    with pytest.raises(InvalidMedia, match=rf"^The result of task {generated.task_id} "):
        await download_video.fn(generated, studio)
    assert not list((Path(studio.storage_url) / ".incoming").iterdir())


async def test_an_unreachable_gateway_bought_nothing_and_says_so(studio: KlingStudio) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    at = studio.model_copy(
        update={"credentials": KlingCredentials(api_key="k", base_url=f"http://127.0.0.1:{port}/api/v1")}
    )
    with pytest.raises(GatewayUnavailable, match="nothing was bought"):
        await create_video.fn(TEXT, at)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (RateLimited("slow down"), True),
        (GatewayUnavailable("not there"), True),
        (PurchaseUncertain("who knows"), False),
        (InvalidRequest("no"), False),
        (KlingError("no"), False),
        (OSError("disk full"), False),
        (ValueError("a bug"), False),
    ],
)
async def test_prefect_repeats_only_what_can_help(error: Exception, again: bool) -> None:
    assert await is_retryable(create_video, None, Failed(data=error)) is again  # type: ignore[arg-type] # run is not used


async def test_waiting_again_for_a_failed_generation_cannot_help() -> None:
    error = GenerationFailed("the gateway is busy")
    error.retryable = True
    assert await is_retryable(wait_for_video, None, Failed(data=error)) is False  # type: ignore[arg-type] # as above


@pytest.mark.parametrize(("error", "again"), [(RateLimited("slow down"), False), (GatewayUnavailable("no"), True)])
async def test_a_create_that_has_put_up_with_429_long_enough_is_not_repeated(error: Exception, again: bool) -> None:
    assert create_video.retry_condition_fn is is_retryable_create
    assert await is_retryable_create(create_video, None, Failed(data=error)) is again  # type: ignore[arg-type] # as above
