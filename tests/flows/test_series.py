"""A series: a film for each row, each paid once, and whatever becomes of one row, the others are rendered."""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_RESULTS_PERSIST_BY_DEFAULT, temporary_settings
from pydantic import SecretStr

from prefect_kling import KlingCredentials, KlingStudio, Storyboard
from prefect_kling.flows import render_series
from prefect_kling.flows import series as series_flow
from prefect_kling.flows.outcome import Rendering, ShotOutcome, TakeOutcome
from prefect_kling.flows.purse import Purse
from prefect_kling.flows.series_outcome import Series, SeriesRow
from prefect_kling.flows.series_plan import SeriesPlan, SeriesWish, plan_series
from prefect_kling.gateway.errors import AuthenticationFailed, BudgetExceeded, InsufficientCredits, StoryboardError
from prefect_kling.gateway.prices import micro_usd
from prefect_kling.ledger.desk import Desk
from prefect_kling.settings import StudioSettings
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running
from prefect_kling.tasks.results import Film

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
QUICK = SimulatorConfig(seed=1, generation_seconds=0.2, shrink=8)
NEVER = datetime.max.replace(tzinfo=UTC)


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


def at(studio: KlingStudio, server: Running) -> KlingStudio:
    credentials = KlingCredentials(api_key=SecretStr(KEY), base_url=server.base_url)
    return studio.model_copy(update={"credentials": credentials})


def statuses(series: Series) -> list[str]:
    return [row.status for row in series.rows]


async def test_a_film_for_each_row_and_nothing_more_the_second_time(
    board: str, table: str, studio: KlingStudio, simulator: Running, tmp_path: Path
) -> None:
    state, series = await begun(board, table, studio)
    assert (state.name, statuses(series), series.usd) == ("Rendered", ["rendered"] * 3, 3 * PRICE)
    assert [row.title for row in series.rows] == ["Mug teaser", "Lamp teaser", "Kettle teaser"]
    films = tmp_path / "storage" / "films" / "main"
    assert sorted(film.name for film in films.glob("*.mp4")) == [
        "kettle-teaser.mp4",
        "lamp-teaser.mp4",
        "mug-teaser.mp4",
    ]
    runs = await children(state)
    assert sorted((run.name, run.state_name) for run in runs) == [
        ("Kettle teaser", "Rendered"), ("Lamp teaser", "Rendered"), ("Mug teaser", "Rendered")
    ]  # fmt: skip
    stats = simulator.service.stats()
    assert stats["creates"] == 3

    # What people read.
    summary = tmp_path / "storage" / "series" / "main" / "spring.json"
    assert series.summary == str(summary)
    kept = json.loads(summary.read_text())
    assert kept == series.document()
    assert (kept["films"], kept["usd"], kept["rows"][1]["title"]) == (3, float(3 * PRICE), "Lamp teaser")
    page = await artifact("series-spring")
    assert f"| 1 | Mug teaser: {films}/mug-teaser.mp4 | rendered | 3.0 | 0.19 |  |" in page.replace("\\", "")
    told = [repr(series), str(state), summary.read_text(), page, *(str(run.parameters) for run in runs)]
    assert KEY not in "".join(told)

    # Again.
    again, series = await begun(board, table, studio)
    assert (again.name, statuses(series), series.usd) == ("Rendered", ["kept"] * 3, Decimal(0))
    assert await children(again) == []
    assert simulator.service.stats()["posts"] == stats["posts"]


async def test_rows_go_wrong_by_themselves(studio: KlingStudio, simulator: Running) -> None:
    typed = Storyboard.model_validate(
        {
            "title": "{{ product }} teaser",
            "defaults": {"aspect_ratio": "16:9", "duration": 3},
            "shots": [{"id": "turn", "prompt": "A {{ product }} in {{ city | default('the city') }}"}],
        }
    )
    rows = [{"product": "forbiddenpicture"}, {"city": "Rome"}, {"product": "Lamp", "price": 7.5, "city": None}]
    state, series = await begun(typed, rows, studio)
    assert (state.name, statuses(series)) == ("Partial", ["failed", "failed", "rendered"])
    assert [row.error_type for row in series.rows] == ["GenerationFailed", "StoryboardError", None]
    assert series.usd == PRICE
    said = state.message or ""
    assert "row 1 (forbiddenpicture teaser): turn: The gateway made no clip" in said
    assert "row 2: storyboard: title: the variable 'product' is not given" in said
    assert series.name == "product-teaser"
    assert "| 2 |  | failed |" in await artifact("series-product-teaser")
    assert sorted(run.state_name or "" for run in await children(state)) == ["Partial", "Rendered"]


@pytest.mark.parametrize(
    ("change", "wishes", "error", "said"),
    [
        ({}, {"rows": "product\nMug\nLamp\nmug!\n"}, StoryboardError, r"row 1 .*:2.* and row 3 .*same film"),
        ({}, {"rows": "product\n"}, StoryboardError, "there are no rows"),
        ({}, {"variables": {"prodct": "x"}}, StoryboardError, "'prodct' is used nowhere.*did you mean 'product'"),
        ({}, {"at_once": 0}, StoryboardError, "at_once .* not 0"),
        ({}, {"budget": 0}, StoryboardError, "budget .* not 0"),
        ({}, {"budget": 0.5}, BudgetExceeded, r"needs up to 0\.5697 USD, and the budget of this run is 0\.50 USD"),
        ({"budget_per_day": 0.5}, {"budget": 9}, BudgetExceeded, "the budget of this UTC day is 0.50 USD"),
        ({"credentials": ""}, {}, AuthenticationFailed, "key"),
    ],
)
async def test_what_is_wrong_with_the_whole_series_is_told_before_anything_is_bought(
    board: str,
    table: str,
    studio: KlingStudio,
    simulator: Running,
    change: dict[str, Any],
    wishes: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    """Called without Prefect's engine, which has no part in it."""
    if "credentials" in change:
        change = {"credentials": KlingCredentials(api_key=SecretStr(""), base_url=simulator.base_url)}
    if "rows" in wishes:
        Path(table).write_text(wishes["rows"])
    given = {name: value for name, value in wishes.items() if name != "rows"}
    with disable_run_logger(), pytest.raises(error, match=said):
        await render_series.fn(board, table, studio.model_copy(update=change), **given)
    assert simulator.service.stats()["creates"] == 0


async def test_the_balance_has_to_do_for_all_films(board: str, table: str, studio: KlingStudio) -> None:
    async with running(SimulatorConfig(seed=1, balance=Decimal("0.40"))) as poor:
        with disable_run_logger(), pytest.raises(InsufficientCredits, match=r"costs about 0\.57 USD.* has 0\.40 USD"):
            await render_series.fn(board, table, at(studio, poor))
        assert poor.service.stats()["creates"] == 0


@pytest.mark.usefixtures("old_prices")
async def test_what_stops_every_row_is_found_out_once(board: str, table: str, studio: KlingStudio) -> None:
    async with running(QUICK.model_copy(update={"balance": Decimal("0.20")})) as poor:
        state, series = await begun(board, table, at(studio, poor), at_once=1)
        assert poor.service.stats()["creates"] == 1
    assert statuses(series) == ["rendered", "failed", "not-begun"]
    assert [row.error_type for row in series.rows] == [None, "InsufficientCredits", "InsufficientCredits"]
    assert "1 failed. row 2 " in (state.message or "")
    assert "1 not begun: row 2 (" in (state.message or "")


async def test_a_retry_renders_what_is_missing_within_what_is_left(
    board: str, studio: KlingStudio, simulator: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second attempt begins with another row than the first did, and each film is that of its own row."""
    ends, spent = 0, []
    keep = series_flow._kept

    async def fails_once(series: Series, ours: Desk) -> Series:
        nonlocal ends
        ends += 1
        if ends == 1:
            assert statuses(series) == ["rendered", "failed", "rendered"]
            raise OSError("the machine had enough")
        return await keep(series, ours)

    async def planned(wish: SeriesWish, settings: StudioSettings, **said: int) -> SeriesPlan:
        spent.append(said["spent"])
        return await plan_series(wish, settings, **said)

    monkeypatch.setattr(series_flow, "_kept", fails_once)
    monkeypatch.setattr(series_flow, "plan_series", planned)
    rows = [{"product": "Mug"}, {"product": "Lamp"}, {"product": "Kettle"}]
    retried = render_series.with_options(retries=1)
    # Prefect, which then remembers what each run came to, must not mistake one row's for another's.
    with temporary_settings({PREFECT_RESULTS_PERSIST_BY_DEFAULT: True}):
        async with running(QUICK.model_copy(update={"faults": "failed=@2"})) as server:
            state: State[Any] = await retried(
                board, rows, at(studio, server), at_once=1, budget=float(3 * PRICE), return_state=True
            )
            assert server.service.stats()["creates"] == 4
    series = await state.aresult()
    assert (ends, statuses(series)) == (2, ["kept", "rendered", "kept"])
    assert spent == [0, micro_usd(2 * PRICE)]
    assert [run.name for run in sorted(await children(state), key=lambda run: run.expected_start_time or NEVER)] == [
        "Mug teaser", "Lamp teaser", "Kettle teaser", "Lamp teaser"
    ]  # fmt: skip
    assert series.rows[1].film.endswith("/films/main/lamp-teaser.mp4")


async def test_a_cancelled_series_keeps_its_films_and_ends_its_runs(board: str, studio: KlingStudio) -> None:
    rows = [{"product": "Bowl"}, {"product": "Vase"}, {"product": "Jug"}]
    async with running(QUICK.model_copy(update={"generation_seconds": 1.0})) as server:
        run = asyncio.create_task(begun(board, rows, at(studio, server), edition="tuesday", at_once=1))
        # The first film is done, and the second is under way.
        await until(lambda: server.service.stats()["creates"] == 2)
        run.cancel()
        await asyncio.wait([run])
        films = Path(studio.storage_url) / "films" / "tuesday"
        assert [film.name for film in films.glob("*.mp4")] == ["bowl-teaser.mp4"]
        _, series = await begun(board, rows, at(studio, server), edition="tuesday")
        assert (statuses(series), server.service.stats()["creates"]) == (["kept", "rendered", "rendered"], 3)
    async with get_client() as client:
        vases = FlowRunFilter(name=FlowRunFilterName(any_=["Vase teaser"]))
        page = await client.read_flow_runs(flow_run_filter=vases)
    assert sorted(run.state_name or "" for run in page) == ["Crashed", "Rendered"]


async def until(found: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not found():  # noqa: ASYNC110 - the simulator's counters tell nobody
            await asyncio.sleep(0.01)


async def test_drafts_have_an_edition_of_their_own_and_a_summary_that_fails_takes_no_film_away(
    board: str, studio: KlingStudio, simulator: Running, tmp_path: Path
) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "series").write_text("no folder")
    state, series = await begun(board, [{"product": "Mug"}], studio, edition="monday", draft=True)
    assert (state.name, series.edition, series.summary) == ("Rendered", "monday-draft", None)
    assert "the summary could not be written: " in (state.message or "")
    (run,) = await children(state)
    assert (run.parameters["edition"], run.parameters["draft"]) == ("monday", True)
    assert (tmp_path / "storage" / "films" / "monday-draft" / "mug-teaser.mp4").is_file()


# What people read.


def row(number: int, **said: Any) -> SeriesRow:
    return SeriesRow(number=number, **{"status": "rendered", **said})


def test_a_page_shows_links_and_keeps_its_table() -> None:
    film = {"film": "s3://films/a b.mp4", "seconds": 9.125, "usd": Decimal("0.5697")}
    series = Series(
        name="spring",
        edition="main",
        rows=(
            row(1, title="A | [B]\n*c*", **film),
            row(2, place="rows.csv:3", status="failed", error_type="StoryboardError", error="a | b\n<c>"),
        ),
    )
    lines = series.markdown(lambda film: f"https://films.example.com/{film[-7:].replace(' ', '%20')}").splitlines()
    assert "| 1 | [A \\| \\[B\\] \\*c\\*](<https://films.example.com/a%20b.mp4>) | rendered | 9.1 | 0.57 |  |" in lines
    assert "| 2 | rows.csv:3 | failed |  | 0.00 | a \\| b \\<c\\> |" in lines


def test_a_long_page_shows_first_what_has_no_film() -> None:
    rows = [row(n, film="f.mp4") for n in range(1, 3001)] + [row(3001, status="failed", error="why")]
    page = Series(name="n", edition="main", rows=tuple(rows)).markdown(str)
    assert "2,001 more rows are in the summary" in page
    assert "| 3001 |" in page
    assert len(page) < 200_000


def test_a_sentence_names_ten_failures_and_counts_the_others() -> None:
    rows = [row(n, status="failed", error=f"reason {n}.", error_type="StoryboardError") for n in range(1, 13)]
    told = InsufficientCredits("Top up.")
    rows += [row(n, status="not-begun").as_not_begun(told) for n in (13, 14)]
    said = Series(name="n", edition="main", rows=tuple(rows)).sentence()
    assert "12 failed. row 1: reason 1; " in said
    assert "row 10: reason 10; and 2 more; 2 not begun: Top up. Mend" in said
    assert "reason 11" not in said


def test_of_several_errors_the_one_that_waits_for_a_decision_is_told_first() -> None:
    shots = [ShotOutcome(id=kind, status="failed", error_type=kind, error="e") for kind in ("X", "PurchaseUncertain")]
    ended = row(1).as_ended(Rendering(title="t", film=None, shots=tuple(shots)))
    assert (ended.status, ended.error_type) == ("failed", "PurchaseUncertain")
    assert ended.stops_others() is None
    assert ended.error == "X: e; PurchaseUncertain: e"
    unjoined = row(1).as_ended(Rendering(title="t", film=None, shots=(), error_type="OSError", error="disk full"))
    assert (unjoined.error_type, unjoined.error) == ("OSError", "its shots are stored, but not joined: disk full")
    refused = row(1).as_failed(AuthenticationFailed("no"))
    assert isinstance(refused.stops_others(), AuthenticationFailed)


def test_a_further_take_that_is_missing_is_told_beside_the_film() -> None:
    film = Film(
        path="f.mp4",
        frames=1,
        seconds=3,
        width=1,
        height=1,
        bytes=1,
        sha256="0",
        method="copy",
        reason="",
        sound="",
        beside={},
    )
    take = TakeOutcome(take=2, error_type="PurchaseUncertain", error="may be bought")
    shot = ShotOutcome(id="a", status="kept", further=(take,))
    ended = row(1).as_ended(Rendering(title="t", film=film, shots=(shot,)))
    assert (ended.status, ended.error_type) == ("rendered", "PurchaseUncertain")
    assert "may be bought" in Series(name="n", edition="main", rows=(ended,)).sentence()


def test_a_softer_prompt_is_told_beside_the_film_and_is_no_error() -> None:
    film = Film(
        path="f.mp4",
        frames=1,
        seconds=3,
        width=1,
        height=1,
        bytes=1,
        sha256="0",
        method="copy",
        reason="",
        sound="",
        beside={},
    )
    ended = row(1).as_ended(Rendering(title="t", film=film, shots=(ShotOutcome(id="a", status="stored", softened=1),)))
    assert (ended.status, ended.error_type) == ("rendered", None)
    assert "prompt 1 of soften was used" in Series(name="n", edition="main", rows=(ended,)).sentence()


# The budget.


def test_each_film_draws_what_it_needs_and_a_part_of_what_is_to_spare() -> None:
    purse = Purse(1000, {1: 100, 2: 200, 3: 300}, at_once=2)
    first, second = purse.draw(1), purse.draw(2)
    assert (first, second) == (300, 300)  # 400 to spare, half of it; then 200, half of it
    purse.settle(first, 150)
    third = purse.draw(3)
    assert third == 550
    assert (Purse(None, {1: 100}, 3).draw(1), Purse(100, {1: 100}, 3).draw(1)) == (None, 100)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 100), st.integers(1, 4), st.randoms())
def test_all_films_together_never_spend_more_than_the_budget(
    needs: list[int], spare: int, at_once: int, chance: random.Random
) -> None:
    budget = sum(needs) + spare
    purse = Purse(budget, dict(enumerate(needs)), at_once)
    waiting, moving, spent = deque(range(len(needs))), dict[int, int](), 0
    while waiting or moving:
        if waiting and len(moving) < at_once:
            film = waiting.popleft()
            drawn = purse.draw(film)
            assert drawn is not None
            assert drawn >= needs[film]
            moving[film] = drawn
            continue
        _, drawn = moving.popitem()
        cost = chance.randint(0, drawn)
        purse.settle(drawn, cost)
        spent += cost
    assert spent <= budget
