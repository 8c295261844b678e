"""Hosting: each content is uploaded once for an account, while its URL can be used."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import fsspec
import httpx
import pytest
from prefect.logging import disable_run_logger
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling import KlingStudio
from prefect_kling.clips import sha256_of
from prefect_kling.gateway.errors import GatewayUnavailable
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.desk import close_ledgers, desk
from prefect_kling.ledger.hosted import hosted_url
from prefect_kling.ledger.schema import hosted
from prefect_kling.simulator.server import Running
from prefect_kling.tasks import host_file
from prefect_kling.tasks.results import Still


@pytest.fixture(autouse=True)
def _plain_functions() -> Iterator[None]:
    with disable_run_logger():
        yield


@pytest.fixture
def image(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "harbour.png"
    Image.new("RGB", (400, 400), "teal").save(path)
    return path


def uploads(simulator: Running) -> int:
    count: int = simulator.service.stats()["uploads"]
    return count


async def test_a_content_is_uploaded_once_whatever_it_is_called(
    studio: KlingStudio, simulator: Running, image: Path
) -> None:
    first = await host_file.fn(str(image), studio)
    copy = image.with_name("the-same.png")
    copy.write_bytes(image.read_bytes())
    fsspec.filesystem("memory").pipe_file("/host-tests/remote.png", image.read_bytes())
    for other in (str(image), str(copy), "memory://host-tests/remote.png"):
        assert (await host_file.fn(other, studio)).url == first.url
    stored = studio.get_storage()
    async with stored.incoming() as folder:
        (folder / "last.png").write_bytes(image.read_bytes())
        still = Still(path=await stored.publish(folder / "last.png", "frames/last.png"), media_type="image/png")
    assert (await host_file.fn(still, studio)).url == first.url
    assert uploads(simulator) == 1
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(first.url)).content == image.read_bytes()


async def test_another_content_is_another_upload(studio: KlingStudio, simulator: Running, image: Path) -> None:
    first = await host_file.fn(str(image), studio)
    image.write_bytes(image.read_bytes() + b"\0")
    assert (await host_file.fn(str(image), studio)).url != first.url
    assert uploads(simulator) == 2


async def test_those_who_want_it_at_once_share_one_upload(studio: KlingStudio, simulator: Running, image: Path) -> None:
    found = await asyncio.gather(*(host_file.fn(str(image), studio) for _ in range(5)))
    assert len({one.url for one in found}) == 1
    assert uploads(simulator) == 1


async def test_what_another_process_uploaded_is_found(studio: KlingStudio, simulator: Running, image: Path) -> None:
    first = await host_file.fn(str(image), studio)
    await close_ledgers()
    assert (await host_file.fn(str(image), studio)).url == first.url
    assert uploads(simulator) == 1


async def test_another_account_uploads_for_itself(studio: KlingStudio, simulator: Running, image: Path) -> None:
    await host_file.fn(str(image), studio)
    credentials = studio.credentials.model_copy(update={"account": "second"})
    await host_file.fn(str(image), studio.model_copy(update={"credentials": credentials}))
    assert uploads(simulator) == 2


async def test_an_expired_url_is_replaced(studio: KlingStudio, simulator: Running, image: Path) -> None:
    first = await host_file.fn(str(image), studio)
    ours = await desk(studio.settings())

    async def expire(connection: AsyncConnection) -> None:
        then = await ours.ledger.time() - timedelta(seconds=1)
        await connection.execute(update(hosted).values(expires_at=then))

    await in_backroom(ours.ledger.db.write(expire))
    second = await host_file.fn(str(image), studio)
    assert second.url != first.url
    assert (await host_file.fn(str(image), studio)).url == second.url
    assert uploads(simulator) == 2


async def test_a_failed_upload_is_not_remembered(
    studio: KlingStudio, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = await desk(studio.settings())

    async def upload(*_: object, **__: object) -> str:
        raise GatewayUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr("prefect_kling.gateway.client.KlingClient.upload", upload)
        with pytest.raises(GatewayUnavailable):
            await host_file.fn(str(image), studio)
    assert await hosted_url(ours.ledger, ours.account, sha256_of(image)) is None
    assert (await host_file.fn(str(image), studio)).url
