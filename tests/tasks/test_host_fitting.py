"""Hosting with `fit`: what the gateway would not take is made into what it takes, and remembered as it was sent."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from prefect.logging import disable_run_logger

from prefect_kling import KlingStudio
from prefect_kling.clips import sha256_of
from prefect_kling.ledger.desk import desk
from prefect_kling.ledger.hosted import hosted_url
from prefect_kling.simulator.server import Running
from prefect_kling.tasks import host_file


@pytest.fixture(autouse=True)
def _plain_functions() -> Iterator[None]:
    with disable_run_logger():
        yield


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "harbour.png"


def uploads(simulator: Running) -> int:
    count: int = simulator.service.stats()["uploads"]
    return count


async def test_an_image_that_the_gateway_would_not_take_is_fitted_and_remembered_as_sent(
    studio: KlingStudio, simulator: Running, image: Path
) -> None:
    Image.new("RGB", (200, 150), "teal").save(image)
    first = await host_file.fn(str(image), studio, fit=True)
    async with httpx.AsyncClient(trust_env=False) as client:
        sent = (await client.get(first.url)).content
    assert min(Image.open(io.BytesIO(sent)).size) >= 300
    ours = await desk(studio.settings())
    assert await hosted_url(ours.ledger, ours.account, hashlib.sha256(sent).hexdigest()) == first.url
    assert await hosted_url(ours.ledger, ours.account, sha256_of(image)) is None
    again = await host_file.fn(str(image), studio, fit=True, sha256=sha256_of(image))
    assert (again.url, uploads(simulator)) == (first.url, 1)
    # As it is, it is another content.
    assert (await host_file.fn(str(image), studio)).url != first.url


async def test_an_image_that_is_fine_is_sent_as_it_is(studio: KlingStudio, simulator: Running, image: Path) -> None:
    Image.new("RGB", (400, 400), "teal").save(image)
    first = await host_file.fn(str(image), studio, fit=True)
    assert (await host_file.fn(str(image), studio)).url == first.url
    assert uploads(simulator) == 1
