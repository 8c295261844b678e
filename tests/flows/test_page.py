"""A run's page on a real Prefect server: its name, its tags, its artifacts, and that it stops no shot."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.client.schemas.objects import State as PrefectState
from prefect.context import FlowRunContext

from prefect_kling import KlingStudio
from prefect_kling.flows import generate_video, page, preparing, render_storyboard, rendering
from prefect_kling.flows.naming import run_name
from prefect_kling.flows.page_view import escaped
from prefect_kling.flows.preparing import Prepared
from prefect_kling.gateway.errors import BudgetExceeded, LedgerUnavailable
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.simulator.server import Running

pytestmark = pytest.mark.usefixtures("prefect_server")

TWO = """
title: "Two *stars*"
defaults:
  model: kling-v3-omni
  duration: 3
  aspect_ratio: "16:9"
shots:
  - id: one
    prompt: A star
  - id: two
    prompt: Another star
"""


def written(tmp_path: Path, text: str = TWO) -> str:
    path = tmp_path / "two.yaml"
    path.write_text(text, "utf-8")
    return str(path)


async def page_of(state: PrefectState[Any]) -> tuple[FlowRun, dict[str, Artifact]]:
    """The run of a final state, and its artifacts by the kind in their keys."""
    run_id = state.state_details.flow_run_id
    assert isinstance(run_id, UUID)
    async with get_client() as client:
        run = await client.read_flow_run(run_id)
        own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        found = await client.read_artifacts(artifact_filter=own)
    assert len({artifact.key for artifact in found}) == len(found)
    return run, {str(artifact.key).partition("-")[0]: artifact for artifact in found}


def picture(artifact: Artifact) -> Any:
    head, _, data = str(artifact.data).partition(",")
    assert head.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(data)))


async def test_a_film_has_its_page(studio: KlingStudio, tmp_path: Path) -> None:
    state = await render_storyboard(written(tmp_path), studio, return_state=True)
    run, artifacts = await page_of(state)
    assert run.name == run_name("Two *stars*", "main")
    assert set(run.tags) == {"kling", "Two *stars*"}
    assert set(artifacts) == {"progress", "shots", "film", "sheet", "preview"}
    assert artifacts["progress"].data == 100.0
    table = str(artifacts["shots"].data)
    assert table.startswith("# Two \\*stars\\*\n\n2 clips, 6.1 s, 0.38 USD\n\nFilm: ")
    assert [line.partition(" | data")[0][:27] for line in table.splitlines() if line.startswith("| ")][1:] == [
        "| one | Stored | 1 | 3.0 | ",
        "| two | Stored | 1 | 3.0 | ",
    ]
    assert table.count("![](data:image/webp;base64,") == 2
    assert len(table) < 30_000
    assert picture(artifacts["sheet"]).format == "JPEG"
    assert picture(artifacts["preview"]).n_frames > 1
    assert (
        artifacts["film"].data
        == f"Two \\*stars\\*: {escaped(str(tmp_path / 'storage'))}"
        + str(artifacts["film"].data).partition("storage")[2]
    )


async def test_a_link_is_made_where_the_storage_is_public(studio: KlingStudio, tmp_path: Path) -> None:
    public = studio.model_copy(update={"public_storage_url": "https://films.example.com"})
    _, artifacts = await page_of(await render_storyboard(written(tmp_path), public, edition="b", return_state=True))
    assert str(artifacts["film"].data).startswith("[Two \\*stars\\*](<https://films.example.com/films/b/")
    assert "[Film](<https://films.example.com/films/b/" in str(artifacts["shots"].data)


async def test_a_failure_says_what_and_how_to_go_on(studio: KlingStudio, tmp_path: Path) -> None:
    refused = TWO.replace("Another star", "A forbiddenpicture")
    state = await render_storyboard(written(tmp_path, refused), studio, return_state=True)
    _, artifacts = await page_of(state)
    assert set(artifacts) == {"progress", "shots"}
    table = str(artifacts["shots"].data)
    assert "1 of 2 shots failed" in table
    assert f"prefect\\-kling render {escaped(str(tmp_path / 'two.yaml'))}" in table
    assert table.count("**Failed**") == 1


@pytest.mark.parametrize("name", ["Friday's film", "summer-teaser"])
async def test_a_name_that_was_given_is_kept(studio: KlingStudio, tmp_path: Path, name: str) -> None:
    named = render_storyboard.with_options(flow_run_name=name)
    run, _ = await page_of(await named(written(tmp_path), studio, edition="x", return_state=True))
    assert run.name == name
    assert "x" in run.tags


async def test_a_run_that_is_cancelled_says_what_it_has_bought_and_how_to_go_on(
    studio: KlingStudio, simulator: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = simulator.service.config.model_copy(update={"generation_seconds": 60.0})
    monkeypatch.setattr(simulator.service, "config", slow)
    monkeypatch.setattr(page, "LAST_SECONDS", page.CALL_SECONDS)  # the machine may be busy
    begun: list[UUID] = []

    @flow
    async def parent() -> None:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        begun.append(context.flow_run.id)
        await render_storyboard(written(tmp_path), studio)

    running = asyncio.create_task(parent())
    while simulator.service.stats()["creates"] < 2 or not simulator.service.stats()["polls"]:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with get_client() as client:
        wanted = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=begun))
        (run,) = await client.read_flow_runs(flow_run_filter=wanted)
        own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        shots = {str(one.key): one for one in await client.read_artifacts(artifact_filter=own)}["shots-two-stars"]
    said = str(shots.data).split("\n\n")
    assert said[1].endswith("0 of 2 clips are there; this run has spent 0.38 USD.")
    assert said[2] == "The run was stopped. What is bought is kept"
    assert said[3].startswith("To go on, run it again as you did, such as prefect\\-kling render ")


async def test_what_cannot_be_rendered_is_told_under_its_films_name_and_without_a_traceback(
    studio: KlingStudio, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = await render_storyboard(written(tmp_path), studio, budget=0.1, return_state=True)
    assert (state.name, str(state.message).partition(":")[0]) == (
        "BudgetExceeded",
        "Two *stars* was not begun, and nothing was bought",
    )
    run, artifacts = await page_of(state)
    assert (run.name, artifacts) == (run_name("Two *stars*", "main"), {})
    assert not [record for record in caplog.records if record.exc_info]
    with pytest.raises(BudgetExceeded, match="was not begun"):
        await render_storyboard(written(tmp_path), studio, budget=0.1)


async def test_a_flow_with_retries_is_repeated_and_raises(studio: KlingStudio, tmp_path: Path) -> None:
    """Prefect repeats only what raises, and leaves what ends as failed waiting for a retry that nobody begins."""
    with pytest.raises(BudgetExceeded, match="was not begun"):
        await render_storyboard.with_options(retries=1)(written(tmp_path), studio, budget=0.1)


async def test_a_run_that_ends_as_the_ledger_is_away_says_so(
    studio: KlingStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> Any:
        raise LedgerUnavailable("The ledger is away")

    monkeypatch.setattr(rendering, "_rendered", away)
    monkeypatch.setattr(Prepared, "spent", away)
    monkeypatch.setattr(preparing, "_check_budgets", nothing)
    state = await render_storyboard(written(tmp_path), studio, return_state=True)
    _, artifacts = await page_of(state)
    assert "\n\nThe ledger is away\n\nTo go on, run it again" in str(artifacts["shots"].data)


async def nothing(*_: Any) -> None:
    """What would look into the ledger."""


async def test_a_video_has_a_page_of_its_own(studio: KlingStudio) -> None:
    request = {"model": "kling-v3-omni", "prompt": "A star [that] shines on the sea", "duration": "3"}
    request["aspect_ratio"] = "16:9"
    state: Any = await generate_video(OmniVideoRequest.model_validate(request), studio, edition="e", return_state=True)
    assert (state.name, state.message) == ("Generated", "3.0 s, 0.19 USD")
    run, artifacts = await page_of(state)
    assert (run.name, sorted(run.tags)) == ("Video · A star [that] shines on the sea", ["e", "kling"])
    shown = str(artifacts["video"].data)
    assert shown.startswith("# A star \\[that\\] shines on the sea\n\n![](data:image/webp;base64,")
    clip = await state.aresult()
    assert f"Video: {escaped(clip.path)}" in shown
    again: Any = await generate_video(OmniVideoRequest.model_validate(request), studio, edition="e", return_state=True)
    assert again.message == "3.0 s, bought before"


async def test_a_page_that_cannot_be_kept_stops_nothing(
    studio: KlingStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses() -> Any:
        raise OSError("no server for pages")

    monkeypatch.setattr(page, "get_client", refuses)
    state = await render_storyboard(written(tmp_path), studio, return_state=True)
    assert state.name == "Rendered"
    _, artifacts = await page_of(state)
    assert artifacts == {}


def test_an_edition_takes_the_days_place() -> None:
    assert run_name("Lighthouse", "2026-11-22T06-00-00Z") == "Lighthouse · 2026-11-22T06-00-00Z"
