"""Rendering storyboards through a real Prefect server, against the simulator over real HTTP."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from prefect import task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from prefect_kling import KlingCredentials, KlingStudio, Storyboard
from prefect_kling.flows import generate_video, render_storyboard, shooting
from prefect_kling.flows.outcome import Rendering
from prefect_kling.flows.progress import Progress, watcher
from prefect_kling.gateway.errors import BudgetExceeded, KlingError, StoryboardError
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.media.probe import probe
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running
from prefect_kling.tasks.results import Checked
from tests.conftest import logged

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(180)]

EVERY_KIND = """\
title: Every kind
look: soft light
defaults:
  model: kling-v3-omni
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: plain
    prompt: A lighthouse on a cliff
  - id: edit
    prompt: At night
    base: plain
  - id: next
    prompt: Inside
    feature: plain
  - id: onward
    prompt: Up the stairs
    continues: next
  - id: quay
    prompt: The quay as in {harbour}
    images:
      harbour: refs/harbour.png
  - id: loud
    prompt: Waves
    sound: on
    in_cut: false
"""
EDGES = {
    "edit · create": {"plain · download"},
    "next · create": {"plain · download"},
    "next · last frame": {"next · download"},
    "next · host last frame": {"next · last frame"},
    "onward · create": {"next · host last frame"},
    "quay · create": {"harbour.png · host"},
    "join": {"plain · download", "edit · download", "next · download", "onward · download", "quay · download"},
}
THREE = """\
title: Three
defaults:
  model: kling-v3-omni
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: first
    prompt: one
  - id: second
    prompt: two
    base: first
  - id: third
    prompt: three
"""


def written(folder: Path, text: str) -> str:
    """A storyboard file with the reference image it may name."""
    (folder / "refs").mkdir()
    Image.linear_gradient("L").resize((400, 320)).convert("RGB").save(folder / "refs" / "harbour.png")
    (folder / "board.yaml").write_text(text)
    return str(folder / "board.yaml")


def at(studio: KlingStudio, server: Running, **changes: Any) -> KlingStudio:
    """The same studio at another gateway."""
    credentials = KlingCredentials(api_key="sk-flows-80bd21", base_url=server.base_url)
    return studio.model_copy(update={"credentials": credentials, **changes})


async def outcome(state: State[Any]) -> Rendering:
    rendering = await state.aresult(raise_on_failure=False)
    assert isinstance(rendering, Rendering), rendering
    return rendering


async def edges(flow_run_id: UUID) -> dict[str, set[str]]:
    """The arrows that the UI draws: by a task run's name, the names of those whose results it was given."""
    async with get_client() as client:
        runs = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
    names = {run.id: run.name for run in runs}
    return {
        run.name: {
            names[source.id]
            for sources in run.task_inputs.values()
            for source in sources
            if source.input_type == "task_run"
        }
        for run in runs
    }


async def test_every_kind_of_shot_becomes_one_film(studio: KlingStudio, simulator: Running, tmp_path: Path) -> None:
    state = await render_storyboard(written(tmp_path, EVERY_KIND), studio, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Rendered"), state.message
    rendering = await outcome(state)
    assert [shot.id for shot in rendering.shots] == ["plain", "edit", "next", "onward", "quay", "loud"]
    assert rendering.film is not None
    cut = [shot.clip for shot in rendering.shots if shot.clip and shot.id != "loud"]
    (facts,) = await probe([Path(rendering.film.path)])
    assert facts.video.frames == sum(clip.frames for clip in cut) == 5 * 73
    assert rendering.film.method == "copy"
    assert simulator.service.stats()["creates"] == 6
    assert rendering.usd == 5 * 3 * Decimal("0.0633") + 3 * Decimal("0.0956")


async def test_results_last_as_long_as_the_run(
    studio: KlingStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect draws an arrow from a result that is gone to whatever has its address now."""
    gone: list[str] = []
    early: list[str] = []

    class Found(Checked):
        def __del__(self) -> None:
            gone.append("check")

    @task
    async def check(*_: Any, **__: Any) -> Found:
        return Found(faults=[])

    def watch(step: Progress) -> None:
        if step.step == "joining":
            gc.collect()
            early.extend(gone)

    monkeypatch.setattr(shooting, "check_clip", check)
    token = watcher.set(watch)
    try:
        checked = THREE.replace("defaults:\n", "defaults:\n  check:\n    frames: true\n")
        state = await render_storyboard(written(tmp_path, checked), studio, return_state=True)
    finally:
        watcher.reset(token)
    assert state.name == "Rendered"
    assert early == []


async def test_the_arrows_in_the_ui_are_those_of_the_plan(studio: KlingStudio, tmp_path: Path) -> None:
    checked = EVERY_KIND.replace("defaults:\n", "defaults:\n  check:\n    frames: true\n")
    state = await render_storyboard(written(tmp_path, checked), studio, return_state=True)
    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id is not None
    wanted: dict[str, set[str]] = {name: set(sources) for name, sources in EDGES.items()}
    for shot in ("plain", "edit", "next", "onward", "quay", "loud"):
        wanted.setdefault(f"{shot} · create", set())
        wanted[f"{shot} · generate"] = {f"{shot} · create"}
        wanted[f"{shot} · download"] = {f"{shot} · generate"}
        wanted[f"{shot} · check"] = {f"{shot} · download"}
    wanted["harbour.png · host"] = set()
    assert await _settled(flow_run_id, wanted) == wanted


async def test_a_failed_shot_takes_down_only_what_needs_it(studio: KlingStudio, tmp_path: Path) -> None:
    async with running(SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8, faults="failed=@1")) as failing:
        state = await render_storyboard(
            written(tmp_path, THREE), at(studio, failing, max_in_flight=1), return_state=True
        )
        assert failing.service.stats()["creates"] == 2
    assert (state.type.value, state.name) == ("FAILED", "Partial")
    rendering = await outcome(state)
    assert [shot.status for shot in rendering.shots] == ["failed", "blocked", "stored"]
    assert rendering.film is None
    kept = rendering.shots[2].clip
    assert kept is not None
    assert hashlib.sha256(Path(kept.path).read_bytes()).hexdigest() == kept.sha256
    assert state.message is not None
    assert "1 of 3 shots failed" in state.message
    assert "first: The gateway made no clip" in state.message


@pytest.mark.usefixtures("old_prices")
async def test_without_credits_nothing_more_is_bought_and_what_runs_is_kept(
    studio: KlingStudio, tmp_path: Path
) -> None:
    async with running(SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8, balance="0.20")) as poor:
        state = await render_storyboard(written(tmp_path, THREE), at(studio, poor, max_in_flight=1), return_state=True)
        assert poor.service.stats()["creates"] == 1
    rendering = await outcome(state)
    assert [shot.status for shot in rendering.shots].count("stored") == 1
    assert {shot.error_type for shot in rendering.failures} == {"InsufficientCredits"}


async def test_a_budget_that_is_too_small_buys_nothing(studio: KlingStudio, simulator: Running, tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded, match="nothing was bought"):
        await render_storyboard(written(tmp_path, THREE), studio, budget=0.5)
    assert simulator.service.stats()["creates"] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt: one": "promt: one"}, r"board\.yaml:8:5: .*promt.*prompt"),
        ({"base: first": "base: fist"}, r"fist.*first"),
        ({"base: first": "base: third", "prompt: three": "prompt: three\n    base: second"}, "second.*third"),
        ({"prompt: two": "prompt: two\n    sound: on"}, "second.*'on' cannot go with a video"),
    ],
)
async def test_a_document_that_cannot_be_rendered_buys_nothing(
    studio: KlingStudio, simulator: Running, tmp_path: Path, change: Mapping[str, str], said: str
) -> None:
    text = THREE
    for old, new in change.items():
        text = text.replace(old, new)
    with pytest.raises(StoryboardError, match=said):
        await render_storyboard(written(tmp_path, text), studio)
    assert simulator.service.stats()["creates"] == 0


async def test_storage_that_cannot_be_written_buys_nothing(
    studio: KlingStudio, simulator: Running, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(OSError, match="taken"):
        await render_storyboard(
            written(tmp_path, THREE), studio.model_copy(update={"storage_url": str(tmp_path / "taken" / "storage")})
        )
    assert simulator.service.stats()["creates"] == 0


async def test_a_storage_without_driver_is_named(studio: KlingStudio, tmp_path: Path) -> None:
    with pytest.raises(KlingError, match="nosuch"):
        await render_storyboard(
            written(tmp_path, THREE), studio.model_copy(update={"storage_url": "nosuch://bucket/films"})
        )


async def test_a_document_typed_into_the_form_renders_too(studio: KlingStudio) -> None:
    board = Storyboard.model_validate(
        {"title": "Typed", "defaults": {"aspect_ratio": "1:1", "duration": 3}, "shots": [{"id": "a", "prompt": "One"}]}
    )
    rendering = await outcome(await render_storyboard(board, studio, return_state=True))
    assert rendering.film is not None
    assert rendering.film.frames == 73


async def test_a_cancelled_run_leaves_its_finished_clips(studio: KlingStudio, tmp_path: Path) -> None:
    stored = asyncio.Event()

    def watch(step: Progress) -> None:
        if step.step == "stored" and step.shot == "first":
            stored.set()

    async with running(SimulatorConfig(seed=1, generation_seconds=0.3, shrink=8)) as server:
        token = watcher.set(watch)
        run = asyncio.ensure_future(
            render_storyboard(written(tmp_path, THREE), at(studio, server, max_in_flight=1), return_state=True)
        )
        watcher.reset(token)
        await asyncio.wait_for(stored.wait(), 60)
        run.cancel()
        await asyncio.wait([run])
    clips = list((Path(studio.storage_url) / "clips").rglob("*.mp4"))
    assert clips
    assert all(facts.video.frames == 73 for facts in await probe(clips))
    assert not list((Path(studio.storage_url) / ".incoming").iterdir())


async def test_the_key_is_in_no_log_and_no_state(
    studio: KlingStudio, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8, faults="failed=@1")) as failing:
        with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: True}):
            state = await render_storyboard(written(tmp_path, THREE), at(studio, failing), return_state=True)
    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id is not None
    async with get_client() as client:
        run = await client.read_flow_run(flow_run_id)
        tasks = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
    rendering = await outcome(state)
    seen = [run.model_dump_json(), rendering.model_dump_json(), caplog.text]
    seen += await logged(flow_run_id, "Bought shot")
    seen += [task.model_dump_json() for task in tasks]
    assert not [text for text in seen if "sk-flows-80bd21" in text]


async def test_one_request_becomes_one_clip(studio: KlingStudio, simulator: Running) -> None:
    request = OmniVideoRequest(model="kling-v3-omni", prompt="Waves", aspect_ratio="9:16", duration="3")
    clip = await generate_video(request, studio)
    assert (clip.frames, simulator.service.stats()["creates"]) == (73, 1)


async def _settled(flow_run_id: UUID, wanted: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The arrows once every task run is recorded; records appear shortly after their runs."""
    found: dict[str, set[str]] = {}
    for _ in range(100):
        found = await edges(flow_run_id)
        if found.keys() >= wanted.keys():
            break
        await asyncio.sleep(0.1)
    return found
