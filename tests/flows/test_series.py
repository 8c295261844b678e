"""A series: a film for each row, each paid once, and whatever becomes of one row, the others are rendered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, State

from prefect_kling import KlingStudio
from prefect_kling.flows import render_series
from prefect_kling.flows.series_outcome import Series
from prefect_kling.simulator.server import Running

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(180)]

BOARD = """\
title: "{{ product }} teaser"
defaults:
  model: kling-v3-omni
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: turn
    prompt: "A {{ product }} in {{ city | default('the city') }}"
"""
ROWS = "product,city,notes\nMug,Lisbon,ready | soon\nLamp,,\nKettle,Turin,\n"
PRICE = Decimal("0.1899")
KEY = "sk-studio-5be2c9"


@pytest.fixture
def board(tmp_path: Path) -> str:
    return written(tmp_path, "board.yaml", BOARD)


@pytest.fixture
def table(tmp_path: Path) -> str:
    return written(tmp_path, "spring.csv", ROWS)


def written(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


async def begun(board: Any, rows: Any, studio: KlingStudio, **wishes: Any) -> tuple[State[Any], Series]:
    state: State[Any] = await render_series(board, rows, studio, return_state=True, **wishes)
    series = await state.aresult(raise_on_failure=False)
    if isinstance(series, BaseException):
        raise series
    assert isinstance(series, Series)
    return state, series


async def children(state: State[Any]) -> Sequence[FlowRun]:
    run = state.state_details.flow_run_id
    assert run is not None
    async with get_client() as client:
        return await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
        )


async def artifact(key: str) -> str:
    async with get_client() as client:
        found = await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return str(max(found, key=lambda one: one.created or 0).data)


def statuses(series: Series) -> list[str]:
    return [row.status for row in series.rows]


async def test_a_film_for_each_row_and_nothing_more_the_second_time(
    board: str, table: str, studio: KlingStudio, simulator: Running, tmp_path: Path
) -> None:
    state, series = await begun(board, table, studio)
    assert (state.name, statuses(series), series.usd) == ("Rendered", ["rendered"] * 3, 3 * PRICE)
    assert [row.title for row in series.rows] == ["Mug teaser", "Lamp teaser", "Kettle teaser"]
    films = tmp_path / "storage" / "films" / "main"
    assert sorted(film.name for film in films.iterdir()) == ["kettle-teaser.mp4", "lamp-teaser.mp4", "mug-teaser.mp4"]
    runs = await children(state)
    assert sorted(run.name for run in runs) == ["Kettle teaser", "Lamp teaser", "Mug teaser"]
    assert {run.state_name for run in runs} == {"Rendered"}
    stats = simulator.service.stats()
    assert stats["creates"] == stats["distinct"] == 3 if "distinct" in stats else stats["creates"] == 3
    # What people read.
    summary = tmp_path / "storage" / "series" / "main" / "spring.json"
    assert series.summary == str(summary)
    kept = json.loads(summary.read_text())
    assert kept == series.document()
    assert (kept["films"], kept["usd"], kept["rows"][1]["title"]) == (3, float(3 * PRICE), "Lamp teaser")
    page = await artifact("series-spring")
    assert f"| 1 | Mug teaser: {films}/mug-teaser.mp4 | rendered | 3.0 | 0.19 |  |" in page.replace("\\", "")
    told = repr(series) + str(state) + summary.read_text() + page + "".join(str(run.parameters) for run in runs)
    assert KEY not in told
    # Again.
    again, series = await begun(board, table, studio)
    assert (again.name, statuses(series), series.usd) == ("Rendered", ["kept"] * 3, 0)
    assert await children(again) == []
    assert simulator.service.stats()["posts"] == stats["posts"]
