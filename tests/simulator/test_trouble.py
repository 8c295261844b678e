"""Faults over HTTP: what the caller sees, and what was billed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest

from prefect_kling.simulator.service import Service


async def test_a_lost_answer_has_created_a_task(simulate: Any, until: Any, order: dict[str, Any]) -> None:
    async with simulate(faults="lost-answer=@1") as (simulator, client):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("video/generations", json=order)

        async def billed() -> bool:
            return bool(simulator.service.stats()["micro_usd"]["billed"] == 189_900)

        await until(billed)
        assert simulator.service.stats()["faults"] == {"lost-answer": 1}
        assert (await client.post("video/generations", json=order)).status_code == 200


async def test_a_hung_answer_says_nothing_and_ends_with_the_simulator(
    simulate: Any, until: Any, order: dict[str, Any]
) -> None:
    async with simulate(faults="hung-answer=1") as (simulator, client):
        with pytest.raises(httpx.ReadTimeout):
            await client.post("video/generations", json=order, timeout=httpx.Timeout(5, read=0.3))
        assert simulator.service.stats()["creates"] == 1
        waiting = asyncio.ensure_future(client.post("video/generations", json=order))

        async def accepted() -> bool:
            return bool(simulator.service.stats()["creates"] == 2)

        await until(accepted)
        simulator.stop()
        with pytest.raises(httpx.RemoteProtocolError):
            await waiting


@pytest.mark.parametrize(
    ("fault", "status", "creates"),
    [("429", 429, 0), ("500", 500, 0), ("504", 504, 0), ("accepted-502", 502, 1), ("accepted-504", 504, 1)],
)
async def test_an_error_on_create_may_or_may_not_have_created(
    simulate: Any, order: dict[str, Any], fault: str, status: int, creates: int
) -> None:
    async with simulate(faults=f"{fault}=@1") as (simulator, client):
        answer = await client.post("video/generations", json=order)
        assert answer.status_code == answer.json()["code"] == status
        assert simulator.service.stats()["creates"] == creates
        assert ("retry-after" in answer.headers) == (status == 429)


async def test_a_proxy_answers_html_for_an_accepted_task(simulate: Any, order: dict[str, Any]) -> None:
    async with simulate(faults="html=@1,poll-html=@1,poll-503=@2") as (simulator, client):
        answer = await client.post("video/generations", json=order)
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/html")
        assert simulator.service.stats()["creates"] == 1
        assert "<html>" in (await client.get("video/generations", params={"task_id": "x"})).text
        assert (await client.get("video/generations", params={"task_id": "x"})).status_code == 503


@pytest.mark.parametrize(("fault", "said"), [("failed", "internal error"), ("moderation", "risk control")])
async def test_a_failed_task_is_not_billed(
    simulate: Any, finish: Any, order: dict[str, Any], fault: str, said: str
) -> None:
    async with simulate(faults=f"{fault}=1") as (simulator, client):
        data = await finish(client, order)
        assert data["state"] == "failed"
        assert said in data["failMsg"]
        assert data["resultUrls"] == []
        assert simulator.service.stats()["usd"] == {"balance": "100", "frozen": "0", "billed": "0"}


@pytest.mark.parametrize("where", ["prompt", "multi_prompt"])
async def test_a_prompt_that_moderation_refuses_creates_nothing(
    simulate: Any, order: dict[str, Any], where: str
) -> None:
    said = "A ForbiddenWord at dusk"
    parts = {"multi_shot": True, "shot_type": "customize"}
    told = {"prompt": said} if where == "prompt" else {**parts, "multi_prompt": [_part(said)]}
    async with simulate() as (simulator, client):
        answer = await client.post("video/generations", json={**order, **told})
        assert (answer.status_code, answer.json()["code"]) == (400, 400)
        assert "1301" in answer.json()["msg"]
        assert "risk control" in answer.json()["msg"]
        assert (simulator.service.stats()["creates"], simulator.service.stats()["refused"]) == (0, 1)
        assert (await client.post("video/generations", json=order)).status_code == 200


def _part(prompt: str) -> dict[str, Any]:
    return {"index": 1, "prompt": prompt, "duration": "3"}


async def test_a_picture_that_moderation_refuses_fails_and_is_not_billed(
    simulate: Any, finish: Any, order: dict[str, Any]
) -> None:
    async with simulate() as (simulator, client):
        data = await finish(client, {**order, "prompt": "A forbiddenpicture at dusk"})
        assert (data["state"], data["failCode"]) == ("failed", "1301")
        assert simulator.service.stats()["usd"]["billed"] == "0"


async def test_moderation_can_also_strike_by_chance(simulate: Any, order: dict[str, Any]) -> None:
    async with simulate(faults="moderated=@1") as (simulator, client):
        answer = await client.post("video/generations", json=order)
        assert (answer.status_code, "1301" in answer.json()["msg"]) == (400, True)
        assert (simulator.service.stats()["creates"], simulator.service.stats()["micro_usd"]["frozen"]) == (0, 0)
        assert (await client.post("video/generations", json=order)).status_code == 200


async def test_an_unknown_state_never_ends(simulate: Any, until: Any, order: dict[str, Any]) -> None:
    async with simulate(faults="unknown-state=1") as (simulator, client):
        task_id = (await client.post("video/generations", json=order)).json()["data"]["taskId"]

        async def over() -> bool:
            return bool(simulator.service.tasks[task_id].state == "completed")

        await until(over)
        poll = await client.get("video/generations", params={"task_id": task_id})
        assert poll.json()["data"]["state"] not in ("pending", "processing", "completed", "failed")


async def test_downloads_break_in_the_ways_that_are_asked_for(
    simulate: Any, finish: Any, order: dict[str, Any]
) -> None:
    spec = "truncated-download=@1,slow-download=@2,download-503=@3"
    async with simulate(faults=spec, slow_seconds=0.2) as (_, client):
        (url,) = (await finish(client, order))["resultUrls"]
        received = b""

        async def read(answer: httpx.Response) -> None:
            nonlocal received
            async for chunk in answer.aiter_raw():
                received += chunk

        async with client.stream("GET", url) as answer:
            with pytest.raises(httpx.RemoteProtocolError):
                await read(answer)
        assert 0 < len(received) < int(answer.headers["content-length"])
        slow = await client.get(url, headers={"Range": f"bytes={len(received)}-"})
        assert slow.elapsed.total_seconds() >= 0.15
        assert (await client.get(url)).status_code == 503
        whole = await client.get(url)
        assert received + slow.content == whole.content


async def test_an_expired_result_and_a_failed_upload(simulate: Any, finish: Any, order: dict[str, Any]) -> None:
    async with simulate(faults="expired=@1,upload-502=@1") as (_, client):
        data = await finish(client, order)
        assert data["state"] == "completed"
        assert (await client.get(data["resultUrls"][0])).status_code == 410
        assert (await client.post("files", files={"file": ("a", b"x")})).status_code == 502
        assert (await client.post("files", files={"file": ("a", b"x")})).status_code == 200


async def test_jitter_and_faults_come_from_the_seed(simulate: Any, order: dict[str, Any]) -> None:
    seen = []
    for _ in range(2):
        async with simulate(seed=11, faults="500=0.4,429=0.2") as (_, client):
            wrong = {**order, "model": "none"}
            seen.append([(await client.post("video/generations", json=wrong)).status_code for _ in range(12)])
    assert seen[0] == seen[1]
    assert set(seen[0]) == {400, 429, 500}


async def test_a_create_with_an_image_does_not_wait_behind_clips_being_drawn(
    simulate: Any, order: dict[str, Any], raw_bodies: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing, stop = threading.Event(), threading.Event()

    def forever(*_: Any) -> None:
        drawing.set()
        stop.wait()

    monkeypatch.setattr(Service, "_render", forever)
    async with simulate(workers=1) as (_, client):
        try:
            await client.post("video/generations", json=order)
            assert await asyncio.to_thread(drawing.wait, 30)
            body = next(row["body"] for row in raw_bodies if "refused" not in row and "image_list" in row["body"])
            assert (await client.post("video/generations", json=body)).status_code == 200
        finally:
            stop.set()
