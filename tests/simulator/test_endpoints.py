"""The gateway's calls over HTTP: envelopes, states, money, files, errors."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from prefect_kling.simulator.clock import ManualClock

WEEK = 7 * 24 * 3600


def png(width: int = 320, height: int = 320, colour: int = 90) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), colour, np.uint8)).save(out, "PNG")
    return out.getvalue()


async def test_a_create_is_answered_polled_and_downloaded(simulate: Any, finish: Any, order: dict[str, Any]) -> None:
    async with simulate() as (_, client):
        created = (await client.post("video/generations", json=order)).json()
        assert created["code"] == 200
        assert created["msg"] == "success"
        assert created["data"]["state"] == "pending"
        assert created["data"]["model"] == "kling-video/kling-v3-omni"
        data = await finish(client, order)
        assert data["taskId"] != created["data"]["taskId"]
        assert json.loads(data["param"]) == order
        assert json.loads(data["resultJson"]) == {"resultUrls": data["resultUrls"], "videoDuration": 73 / 24}
        assert data["completeTime"] - data["createTime"] == data["costTime"] >= 50
        (url,) = data["resultUrls"]
        async with httpx.AsyncClient() as anybody:
            whole = await anybody.get(url)
            assert whole.headers["content-type"] == "video/mp4"
            assert int(whole.headers["content-length"]) == len(whole.content)
            rest = await anybody.get(url, headers={"Range": "bytes=1000-"})
            assert (rest.status_code, rest.content) == (206, whole.content[1000:])
            assert rest.headers["content-range"] == f"bytes 1000-{len(whole.content) - 1}/{len(whole.content)}"
            assert rest.headers["etag"] == whole.headers["etag"]


async def test_a_task_goes_from_pending_over_processing_to_completed_and_ends_after_a_week(
    simulate: Any, until: Any, order: dict[str, Any]
) -> None:
    clock = ManualClock()
    async with simulate(clock=clock, generation_seconds=10) as (_, client):
        task_id = (await client.post("video/generations", json=order)).json()["data"]["taskId"]

        async def state() -> str:
            answer = await client.get("video/generations", params={"task_id": task_id})
            return str(answer.json()["data"]["state"])

        assert await state() == "pending"
        clock.advance(3)

        async def processing() -> bool:
            return await state() == "processing"

        await until(processing)
        clock.advance(7)

        async def completed() -> bool:
            return await state() == "completed"

        await until(completed)
        poll = await client.get("video/generations", params={"task_id": task_id})
        assert poll.json()["data"]["costTime"] == 10_000
        (url,) = poll.json()["data"]["resultUrls"]
        assert (await client.get(url)).status_code == 200
        clock.advance(WEEK)
        assert (await client.get(url)).status_code == 410
        assert (await client.get(url.replace(task_id, "unknown"))).status_code == 404


async def test_money_is_held_at_create_and_taken_on_completion(
    simulate: Any, until: Any, order: dict[str, Any]
) -> None:
    clock = ManualClock()
    async with simulate(clock=clock, generation_seconds=5, balance="0.4") as (_, client):

        async def balance() -> dict[str, float]:
            data: dict[str, float] = (await client.get("balance")).json()["data"]
            return data

        assert await balance() == {"balance": 0.4, "total": 0.4, "frozen": 0.0}
        await client.post("video/generations", json=order)
        await client.post("video/generations", json=order)
        assert await balance() == {"balance": 0.0202, "total": 0.4, "frozen": 0.3798}
        refused = await client.post("video/generations", json=order)
        assert refused.status_code == 402
        assert "insufficient credits" in refused.json()["msg"]
        clock.advance(2)
        clock.advance(5)

        async def taken() -> bool:
            return (await balance())["frozen"] == 0

        # The clock stands: whoever still sleeps is woken again.
        async def pushed() -> bool:
            clock.advance(1)
            return await taken()

        await until(pushed)
        assert await balance() == {"balance": 0.0202, "total": 0.0202, "frozen": 0.0}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": "kling-v9"}, "model"),
        ({"duration": 5}, "duration"),
        ({"duration": "16"}, "duration"),
        ({"aspect_ratio": None}, "aspect_ratio"),
        ({"negative_prompt": "rain"}, "negative_prompt"),
        ({"shot_type": "customize"}, "shot_type"),
        ({"image_list": [{"image_url": "http://10.0.0.1/a.png"}]}, "image_list.0.image_url"),
        ({"image_list": [{"image_url": "bm8gaW1hZ2U="}]}, "image_list.0.image_url"),
        ({"image_list": [{"image_url": base64.b64encode(png(64, 64)).decode()}]}, "image_list.0.image_url"),
    ],
)
async def test_a_broken_rule_is_a_400_that_names_the_field(
    simulate: Any, order: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    async with simulate() as (simulator, client):
        body = {name: value for name, value in {**order, **change}.items() if value is not None}
        answer = await client.post("video/generations", json=body)
        assert answer.status_code == answer.json()["code"] == 400
        assert field in answer.json()["msg"]
        stats = simulator.service.stats()
        assert (stats["creates"], stats["refused"], stats["usd"]["frozen"]) == (0, 1, "0")


async def test_inputs_are_fetched_from_loopback_and_checked(simulate: Any, order: dict[str, Any]) -> None:
    """A file that is not there, and an image that is too small for a first frame, are refused."""
    async with simulate(shrink=1) as (simulator, client):
        gone = {**order, "image_list": [{"image_url": f"{simulator.origin}/files/none/a.png"}]}
        answer = await client.post("video/generations", json=gone)
        assert (answer.status_code, "404" in answer.json()["msg"]) == (400, True)
        small = await client.post("files", files={"file": ("a.png", png(200, 200), "image/png")})
        body = {**order, "image_list": [{"image_url": small.json()["data"]["publicUrl"], "type": "first_frame"}]}
        answer = await client.post("video/generations", json=body)
        assert answer.status_code == 400
        assert "200x200" in answer.json()["msg"]
        text = await client.post("files", files={"file": ("a.mp4", b"#EXTM3U\nhttp://127.0.0.1:1/x", "video/mp4")})
        body = {**order, "video_list": [{"video_url": text.json()["data"]["publicUrl"]}]}
        answer = await client.post("video/generations", json=body)
        assert answer.status_code == 400
        assert "video_list.0.video_url" in answer.json()["msg"]


async def test_a_hosted_file_comes_back_until_it_expires(simulate: Any) -> None:
    clock = ManualClock()
    async with simulate(clock=clock) as (_, client):
        content = png()
        answer = await client.post("files", files={"file": ("my picture.png", content, "image/png")})
        url = answer.json()["data"]["publicUrl"]
        back = await client.get(url)
        assert (back.content, back.headers["content-type"]) == (content, "image/png")
        clock.advance(WEEK)
        assert (await client.get(url)).status_code == 410
        assert (await client.post("files", files={"other": ("a", b"x")})).status_code == 400
        assert (await client.post("files", content=b"x")).status_code == 400


async def test_hosted_copies_of_one_picture_are_one_body(simulate: Any, finish: Any, order: dict[str, Any]) -> None:
    async with simulate() as (simulator, client):
        for _ in range(2):
            answer = await client.post("files", files={"file": ("a.png", png(), "image/png")})
            await finish(client, {**order, "image_list": [{"image_url": answer.json()["data"]["publicUrl"]}]})
        stats = (await client.get(f"{simulator.origin}/_sim/stats")).json()
        assert (stats["creates"], stats["distinct_bodies"], stats["uploads"]) == (2, 1, 2)
        assert list(stats["creates_by_body"].values()) == [2]
        assert stats["micro_usd"]["billed"] == 2 * 189_900
        assert stats["usd"]["billed"] == "0.3798"
        assert stats["states"] == {"completed": 2}


async def test_only_a_key_opens_and_results_need_none(simulate: Any, order: dict[str, Any]) -> None:
    async with simulate(api_key="sk-right") as (simulator, client):
        for headers in ({"Authorization": "Bearer sk-wrong"}, {"Authorization": "Basic sk-right"}, {}):
            async with httpx.AsyncClient(base_url=f"{simulator.base_url}/", headers=headers) as other:
                answer = await other.post("video/generations", json=order)
                assert answer.status_code == answer.json()["code"] == 401
        right = await client.get("models", headers={"Authorization": "Bearer sk-right"})
        assert [model["id"] for model in right.json()["data"]] == ["kling-video-o1", "kling-v3-omni"]


async def test_what_is_not_there_is_answered_in_the_envelope(simulate: Any) -> None:
    async with simulate() as (_, client):
        unknown = await client.get("video/generations", params={"task_id": "nobody"})
        assert (unknown.status_code, unknown.json()["msg"]) == (404, "task not found: nobody")
        assert (await client.get("video/generations")).status_code == 400
        assert (await client.get("nothing")).json()["code"] == 404
        assert (await client.delete("balance")).json()["code"] == 405
        assert (await client.post("video/generations", content=b"{")).status_code == 400


async def test_one_task_too_many_is_told_to_wait(simulate: Any, order: dict[str, Any]) -> None:
    async with simulate(clock=ManualClock(), concurrency=2) as (_, client):
        for _ in range(2):
            assert (await client.post("video/generations", json=order)).status_code == 200
        answer = await client.post("video/generations", json=order)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert "1303" in answer.json()["msg"]


async def test_a_public_url_is_never_contacted_and_has_a_stand_in(
    simulate: Any, finish: Any, order: dict[str, Any]
) -> None:
    """The name does not exist anywhere, so that any attempt to reach it would fail."""
    async with simulate() as (_, client):
        body = {**order, "image_list": [{"image_url": "https://pictures.example.com/a-harbour-at-night.jpg"}]}
        data = await finish(client, body)
        assert data["state"] == "completed"


async def test_one_clip_of_a_kind_can_do_for_all(simulate: Any, finish: Any, order: dict[str, Any]) -> None:
    async with simulate(draw="once") as (_, client):
        orders = [order | {"prompt": "a"}, order | {"prompt": "b"}, order | {"prompt": "c", "sound": "on"}]
        clips = [(await client.get((await finish(client, one))["resultUrls"][0])).content for one in orders]
    assert clips[0] == clips[1]
    assert clips[0] != clips[2]
    assert all(b"ftyp" in clip[:16] for clip in clips)


async def test_clips_need_not_be_drawn(simulate: Any, finish: Any, order: dict[str, Any]) -> None:
    """For measuring what is around them; each task also says how often it was asked about."""
    async with simulate(draw=False) as (simulator, client):
        data = await finish(client, order)
        clip = await client.get(data["resultUrls"][0])
        assert (data["state"], clip.content) == ("completed", b"not drawn")
        stats = simulator.service.stats()
        assert stats["tasks"][data["taskId"]]["polls"] == stats["polls"] > 0
