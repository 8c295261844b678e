"""Clips and films in an object store: a server process that speaks S3's API and checks keys and signatures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.blocks.fields import SecretDict
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from benchmarks.s3_server import S3Server
from prefect_kling import KlingStudio
from prefect_kling.clips import ClipStorage, sha256_of
from prefect_kling.flows import render_storyboard
from prefect_kling.flows.outcome import Rendering
from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.simulator.server import Running

BOARD = """\
title: Stored
defaults:
  model: kling-v3-omni
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: dawn
    prompt: A lighthouse at dawn
  - id: keeper
    prompt: The keeper
    continues: dawn
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def signed(s3: S3Server) -> Iterator[None]:
    """The server takes signed addresses."""
    s3.check_keys(False)
    yield
    s3.check_keys(True)


async def test_a_clip_is_published_whole_fetched_again_and_removed(s3: S3Server) -> None:
    storage = ClipStorage(f"{s3.new_bucket()}/films", s3.url_options)
    await storage.check()
    async with storage.incoming() as folder:
        # More than one part of a multipart upload would take is one file all the same.
        (folder / "clip.mp4").write_bytes(bytes(range(256)) * 250_000)
        sha256 = sha256_of(folder / "clip.mp4")
        location = await storage.publish(folder / "clip.mp4", "clips/main/a.mp4")
    assert await storage.size(location) == 64_000_000
    async with storage.at_hand(location, sha256=sha256) as path:
        assert sha256_of(path) == sha256
    with pytest.raises(InvalidMedia, match="sha256 has changed"):
        async with storage.at_hand(location, sha256="0" * 64):
            pass
    assert await storage.remove(location)
    assert await storage.size(location) is None
    with pytest.raises(InvalidMedia, match="is not there"):
        async with storage.at_hand(location):
            pass


@pytest.mark.usefixtures("signed")
async def test_a_page_links_to_a_signed_address_and_nobody_else_can_read_the_file(s3: S3Server) -> None:
    bucket = s3.new_bucket()
    storage = ClipStorage(bucket, s3.url_options)
    async with storage.incoming() as folder:
        (folder / "a b.mp4").write_bytes(b"picture")
        location = await storage.publish(folder / "a b.mp4", "a b.mp4")
    link = await storage.page_link(location)
    async with httpx.AsyncClient(trust_env=False) as browser:
        assert (await browser.get(link)).content == b"picture"
        assert (await browser.get(link.partition("?")[0])).status_code == 403
    assert s3.secret not in link
    assert storage.link(location) == location
    public = ClipStorage(bucket, s3.url_options, public_url="https://films.test")
    assert await public.page_link(location) == "https://films.test/a%20b.mp4"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"secret": "sesame-1"}, "signature"),
        ({"key": "AKIAOPENSESAME", "secret": "sesame-1"}, "Access Key Id"),
        ({"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}, "127.0.0.1:9"),
        ({"bucket": "s3://nobodys"}, "bucket does not exist"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
@pytest.mark.usefixtures("prefect_server")
async def test_storage_that_cannot_be_written_is_told_before_anything_is_bought(
    wrong: dict[str, Any], said: str, s3: S3Server, studio: KlingStudio, simulator: Running, tmp_path: Path
) -> None:
    bucket = wrong.get("bucket") or s3.new_bucket()
    options = s3.url_options | {name: value for name, value in wrong.items() if name != "bucket"}
    state, found = await render(at(studio, bucket, options), tmp_path)
    assert isinstance(found, OSError)
    assert said in str(found)
    assert f"The storage {bucket}/films cannot be written" in str(found)
    assert simulator.service.stats()["creates"] == 0
    for secret in ("sesame-1", s3.secret):
        assert secret not in f"{found} {state.message}"


@pytest.mark.usefixtures("prefect_server", "signed")
async def test_a_film_is_rendered_into_a_bucket_and_its_page_links_to_it(
    s3: S3Server, studio: KlingStudio, tmp_path: Path
) -> None:
    bucket = s3.new_bucket()
    state, found = await render(at(studio, bucket, s3.url_options), tmp_path)
    assert isinstance(found, Rendering), found
    assert found.film is not None, found.sentence()
    listed = s3.client().list_objects_v2(Bucket=bucket.removeprefix("s3://"))["Contents"]
    sizes = {f"{bucket}/{entry['Key']}": entry["Size"] for entry in listed}
    kept = [shot.clip for shot in found.shots if shot.clip is not None]
    assert sizes[found.film.path] == found.film.bytes
    assert [sizes[clip.path] for clip in kept] == [clip.bytes for clip in kept]
    assert set(found.film.beside.values()) <= sizes.keys()
    assert not [name for name in sizes if "check" in name or "incoming" in name]
    async with get_client() as client:
        own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
        (page,) = [one for one in await client.read_artifacts(artifact_filter=own) if one.key == "film-stored"]
    link = str(page.data).partition("(<")[2].rpartition(">)")[0]
    async with httpx.AsyncClient(trust_env=False) as browser:
        assert len((await browser.get(link)).content) == found.film.bytes


def at(studio: KlingStudio, bucket: str, options: dict[str, Any]) -> KlingStudio:
    """The studio, with its storage in a bucket."""
    return studio.model_copy(update={"storage_url": f"{bucket}/films", "storage_options": SecretDict(options)})


async def render(studio: KlingStudio, folder: Path) -> tuple[Any, Any]:
    """A film's final state, and what it came to."""
    (folder / "board.yaml").write_text(BOARD)
    state = await render_storyboard(str(folder / "board.yaml"), studio, return_state=True)
    return state, await state.aresult(raise_on_failure=False)
