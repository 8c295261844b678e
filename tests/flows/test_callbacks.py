"""Runs that are called back: shots wake by callbacks, lost answers come home, and events tell of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect.client.schemas.objects import State
from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.settings import PREFECT_UI_URL

from prefect_kling import KlingCredentials, KlingStudio
from prefect_kling.clips import Clip
from prefect_kling.flows import announcing, generate_video, render_storyboard
from prefect_kling.flows.outcome import Rendering, ShotOutcome
from prefect_kling.gateway.errors import KlingError
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.desk import close_ledgers, desk
from prefect_kling.ledger.hints import Call, hear
from prefect_kling.ledger.purchases import Account
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.settling import settle_as_never_created
from prefect_kling.ledger.states import State as PurchaseState
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

KEY = "sk-called-91ae07"
BOARD = """\
title: Harbour
defaults: {model: kling-v3-omni, aspect_ratio: 16:9, duration: 3}
shots:
  - id: dawn
    prompt: A harbour at dawn
  - id: noon
    prompt: A harbour at noon
    continues: dawn
  - id: dusk
    prompt: A harbour at dusk
"""
SLOW = 30.0
"""Seconds between polls: what ends before is ended by callbacks."""
SOON = 60.0


@pytest.fixture
def board(tmp_path: Path) -> str:
    path = tmp_path / "harbour.yaml"
    path.write_text(BOARD)
    return str(path)


@pytest.fixture
def called(tmp_path: Path, prefect_server: str) -> Callable[..., Any]:
    """`async with called(faults) as (server, studio)`: a gateway, and a studio that it calls back."""

    @contextlib.asynccontextmanager
    async def opened(faults: str = "", **fields: Any) -> AsyncIterator[tuple[Running, KlingStudio]]:
        config = SimulatorConfig(seed=3, generation_seconds=0.5, shrink=8, faults=faults)
        async with running(config) as server:
            options = {"poll_interval": SLOW, "max_wait": 120, "receive_on": "127.0.0.1:0", **fields}
            yield (
                server,
                KlingStudio(
                    credentials=KlingCredentials(api_key=KEY, base_url=server.base_url),
                    storage_url=str(tmp_path / "storage"),
                    ledger_url=f"sqlite:///{tmp_path / 'ledger.db'}",
                    **options,
                ),
            )
        await close_ledgers()

    return opened


async def rendered(board: str, studio: KlingStudio, **wishes: Any) -> Rendering:
    async with asyncio.timeout(SOON):
        state: State[Any] = await render_storyboard(board, studio, return_state=True, **wishes)
        return cast("Rendering", await state.aresult(raise_on_failure=False))


async def test_each_shot_is_woken_by_its_callback_and_asked_about_once(called: Any, board: str) -> None:
    async with called() as (server, studio):
        rendering = await rendered(board, studio)
        assert rendering.film is not None
        stats = server.service.stats()
        assert (stats["creates"], stats["polls"], stats["callbacks"]["delivered"]) == (3, 3, 3)


async def test_lost_answers_come_home_in_the_run_that_lost_them(called: Any, board: str) -> None:
    async with called("lost-answer=@1,html=@3") as (server, studio):
        rendering = await rendered(board, studio)
        assert rendering.film is not None
        stats = server.service.stats()
        assert (stats["creates"], stats["posts"]) == (3, 3)
        assert stats["faults"] == {"lost-answer": 1, "html": 1}
        ours = await desk(studio.settings())
        assert {row.state for row in await ours.ledger.of_account(ours.account)} == {PurchaseState.STORED}
        assert await ours.ledger.audit(ours.account) == {}


async def test_forged_doubled_and_late_callbacks_give_the_same_film(called: Any, board: str, tmp_path: Path) -> None:
    films = []
    for edition, faults in (("plain", ""), ("forged", "callback-forged=1,callback-duplicate=1")):
        async with called(faults, poll_interval=0.5) as (server, studio):
            rendering = await rendered(board, studio, edition=edition)
            assert rendering.film is not None
            films.append([shot.clip.sha256 for shot in rendering.shots if shot.clip is not None])
            assert server.service.stats()["creates"] == 3
    assert len(films[0]) == 3
    # Of the second gateway the clips are its own; each shot is there, and none twice.
    assert [len(set(film)) for film in films] == [3, 3]


async def test_without_its_callbacks_a_run_is_ended_by_polling(called: Any, board: str) -> None:
    async with called("callback-drop=1", poll_interval=0.05) as (server, studio):
        rendering = await rendered(board, studio)
        assert rendering.film is not None
        assert server.service.stats()["callbacks"]["attempts"] == 0


async def test_what_is_settled_by_hand_meanwhile_is_bought(called: Any, board: str) -> None:
    async with called("lost-answer=@1,callback-drop=1", poll_interval=0.05) as (server, studio):
        ours = await desk(studio.settings())

        async def settle() -> None:
            while True:
                for row in await ours.ledger.of_account(ours.account):
                    if row.state is PurchaseState.UNCERTAIN:
                        await settle_as_never_created(ours.ledger, ours.account, row.token)
                        return
                await asyncio.sleep(0.05)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("prefect_kling.ledger.homecoming.LOOK_EVERY", 0.2)
            rendering, _ = await asyncio.gather(rendered(board, studio), settle())
        assert rendering.film is not None
        assert server.service.stats()["creates"] == 4


async def test_what_was_called_back_while_nobody_waited_comes_home_in_the_next_run(called: Any, board: str) -> None:
    async with called("lost-answer=@1,callback-drop=1", poll_interval=0.05, max_wait=2) as (server, studio):
        assert (await rendered(board, studio)).film is None
        ours = await desk(studio.settings())
        (lost,) = await ours.ledger.of_account(ours.account, purchases.c.state == str(PurchaseState.UNCERTAIN))
        (task,) = [t for t in server.service.tasks.values() if lost.token in str(t.request.callback_url)]
        await hear(ours.ledger, [Call(lost.token, task.task_id, "completed")])
        # Also where callbacks are not asked for any more.
        rendering = await rendered(board, studio.model_copy(update={"receive_on": ""}))
        assert rendering.film is not None
        assert server.service.stats()["creates"] == 3


async def test_a_single_video_is_called_back_too(called: Any) -> None:
    request = OmniVideoRequest.model_validate(
        {"model": "kling-v3-omni", "prompt": "A fox", "aspect_ratio": "16:9", "duration": "3"}
    )
    async with called() as (server, studio), asyncio.timeout(SOON):
        clip = await generate_video(request, studio)
        assert clip.seconds == pytest.approx(3.04, abs=0.01)
        assert server.service.stats()["polls"] == 1


async def test_an_address_that_cannot_be_is_told_before_anything_is_bought(called: Any, board: str) -> None:
    async with called(receive_on="", callback_base_url="http://kling.example.com/kling") as (server, studio):
        with pytest.raises(KlingError, match="callback_base_url cannot be"):
            await render_storyboard(board, studio)
        assert server.service.stats()["posts"] == 0


# --- events ---


class Heard:
    """The events of these names, as a Prefect server passes them on."""

    def __init__(self, *names: str) -> None:
        self.names, self.events = names, list[Event]()

    async def __aenter__(self) -> Heard:
        wanted = EventFilter(event=EventNameFilter(name=list(self.names)))
        self._subscriber = await get_events_subscriber(wanted).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._subscriber.__aexit__(None, None, None)

    async def until(self, enough: Callable[[list[Event]], bool]) -> list[Event]:
        async with asyncio.timeout(SOON):
            while not enough(self.events):
                self.events.append(await self._subscriber.__anext__())
        return self.events


def page_of_its_run(event: Event) -> str:
    """The address of the page of the run that an event came from; empty for none."""
    (run, *_) = [one.id for one in event.related if one.id.startswith("prefect.flow-run.")] or [""]
    return f"{PREFECT_UI_URL.value()}/runs/flow-run/{run.removeprefix('prefect.flow-run.')}" if run else ""


async def test_events_tell_of_callbacks_shots_and_the_film(called: Any, board: str) -> None:
    names = ("kling.callback.received", "kling.shot.completed", "kling.film.rendered")
    async with called() as (_, studio), Heard(*names) as heard:
        edition = "events"
        rendering = await rendered(board, studio, edition=edition)
        assert rendering.film is not None

        def of_this_run(event: Event) -> bool:
            return event.payload.get("edition") == edition

        events = await heard.until(
            lambda found: any(e.event == "kling.film.rendered" and of_this_run(e) for e in found)
        )
        shots = {e.payload["shot"]: e for e in events if e.event == "kling.shot.completed" and of_this_run(e)}
        clips = {shot.id: shot.clip for shot in rendering.shots}
        assert set(shots) == {"dawn", "noon", "dusk"}
        ours = await desk(studio.settings())
        rows = {row.order.shot: row for row in await ours.ledger.of_account(ours.account)}
        for shot, event in shots.items():
            clip = clips[shot]
            assert clip is not None
            facts = {name: event.payload[name] for name in ("take", "clip", "sha256", "storyboard", "task_id")}
            assert facts == {
                "take": 1, "clip": clip.path, "sha256": clip.sha256, "storyboard": "Harbour", "task_id": clip.task_id
            }  # fmt: skip
            assert event.payload["usd"] == pytest.approx(0.1899)
            assert event.resource.id == f"kling.shot.{rows[shot].short}"
            assert event.resource["kling.shot"] == shot
            assert page_of_its_run(event) == event.payload["run"]
        ids = {f"kling.shot.{row.short}" for row in rows.values()}
        # Whoever subscribes is told of the last minute too, in which other tests were called.
        received = {e.resource.id: e for e in events if e.event == "kling.callback.received" and e.resource.id in ids}
        assert set(received) == ids
        # What is heard belongs to whoever waits, not to the run that happened to listen first.
        assert all(not event.related for event in received.values())
        said = "".join(event.model_dump_json() for event in events)
        assert not [row.short for row in rows.values() if row.token in said]
        assert KEY not in said
        # Nothing is news the second time.
        await rendered(board, studio, edition=edition)
        (film,) = [e for e in events if e.event == "kling.film.rendered" and of_this_run(e)]
        assert film.payload["film"] == rendering.film.path
        assert film.payload["run"] == page_of_its_run(film)


@pytest.mark.parametrize(
    ("faults", "fields", "names"),
    [
        ("failed=@1", {}, {"kling.shot.failed"}),
        ("", {"budget_per_run": 0.2}, {"kling.budget.reached"}),
        ("lost-answer=@1,callback-drop=1", {"max_wait": 3}, {"kling.purchase.uncertain", "kling.shot.failed"}),
    ],
    ids=["failed", "budget", "uncertain"],
)
async def test_events_tell_of_trouble(
    called: Any, board: str, faults: str, fields: dict[str, Any], names: set[str]
) -> None:
    async with called(faults, poll_interval=0.05, **fields) as (_, studio), Heard(*names) as heard:
        with contextlib.suppress(KlingError):
            await rendered(board, studio)
        events = await heard.until(lambda found: names <= {event.event for event in found})
        assert all(KEY not in event.model_dump_json() for event in events)
        # What other tests tell comes from no run.
        own = [event for event in events if event.event in names and page_of_its_run(event)]
        assert {event.event for event in own} == names
        assert all(event.payload["run"] == page_of_its_run(event) for event in own)


def test_no_event_tells_the_password_of_a_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(announcing, "emit_event", lambda event, **said: told.append((event, said)))
    where = "webdav://films:s3cret-word@storage.example.com"
    storage = SimpleNamespace(link=lambda location: location)
    account = SimpleNamespace(account=Account("https://gateway.example.com", "main"), storage=lambda: storage)
    prepared = SimpleNamespace(
        document=SimpleNamespace(storyboard=SimpleNamespace(title="Harbour")),
        reckoner=SimpleNamespace(edition="main", desk=account),
    )
    clip = Clip(
        path=f"{where}/clip.mp4", sha256="a" * 64, bytes=1, seconds=3.0, frames=72, width=160, height=90, task_id="t1",
        url="https://results.example.com/clip.mp4?signature=s3cret-word", url_expires_at=datetime.now(UTC),
    )  # fmt: skip
    announcer = announcing.Announcer(cast("Any", prepared))
    announcer.shot(ShotOutcome(id="dawn", status="stored", clip=clip), None)
    announcer.film(cast("Any", SimpleNamespace(path=f"{where}/film.mp4", sha256="b" * 64, seconds=9.0)), Decimal(1))
    assert [event for event, _ in told] == ["kling.shot.completed", "kling.film.rendered"]
    assert "s3cret" not in repr(told)
