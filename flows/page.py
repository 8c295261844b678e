"""A run's page in the Prefect UI: a progress ring, a table of its shots, and at the end its film.

All of it is decoration: what Prefect's server does not take is told at debug, and stops no shot.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import ExternalSignal
from prefect.logging import get_run_logger

from prefect_kling.clips import Clip, without_password
from prefect_kling.flows.cutting import Cutting
from prefect_kling.flows.outcome import Rendering, ShotOutcome
from prefect_kling.flows.page_view import MOST_PICTURES, PageShot, artifact_key, done_share, escaped, linked, summary
from prefect_kling.flows.preparing import Prepared
from prefect_kling.flows.progress import Progress, watcher
from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger.desk import Desk
from prefect_kling.media.thumbnails import thumbnails
from prefect_kling.tasks.results import Film

__all__ = ["GoesOn", "RunPage", "on_its_page", "show_video"]

EVERY_SECONDS: Final = 1.0
SHARE_OF_TIME: Final = 20
"""Bringing the page up to date takes at most one part in so many of the run's time: a thousand shots move at once."""
CALL_SECONDS: Final = 30.0
"""For all calls of an update: a server that says nothing must not hold up the run's end."""
LEDGER_SECONDS: Final = 2.0
"""Of these, for what the ledger says of the money."""
LAST_SECONDS: Final = 5.0
"""For all calls of the last update of a run that is cancelled: whoever stops its process does not wait for long."""
MOST_CHARACTERS: Final = 1_400_000
"""Of a picture: 1 MB as text. Prefect's lists carry artifacts whole."""
_PICTURES: Final = {"sheet.jpg": ("sheet", "image/jpeg"), "preview.webp": ("preview", "image/webp")}


class GoesOn(Exception):
    """Ends what a page tells of, not its run: another page follows."""


@asynccontextmanager
async def on_its_page(prepared: Prepared, cutting: Cutting) -> AsyncIterator[RunPage]:
    """Keeps the page of the run that this is called in up to date for as long as the block lasts."""
    page = RunPage(prepared, cutting)
    outer = watcher.get()

    def told(step: Progress) -> None:
        page.told(step)
        if outer is not None:
            outer(step)

    token = watcher.set(told)
    keeping = asyncio.create_task(page.keep())
    try:
        yield page
    except GoesOn:
        raise
    except Exception as error:
        await page.stopped(str(error))
        raise
    except (asyncio.CancelledError, ExternalSignal):  # not Prefect's Pause: the page says what the run waits for
        await page.stopped("The run was stopped. What is bought is kept", seconds=LAST_SECONDS)
        raise
    finally:
        watcher.reset(token)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


class RunPage:
    """One run's page.

    Args:
        prepared: what is rendered.
        cutting: where clips are at hand.
    """

    def __init__(self, prepared: Prepared, cutting: Cutting) -> None:
        self._prepared, self._cutting = prepared, cutting
        self._title, self._edition = prepared.document.storyboard.title, prepared.reckoner.edition
        self._storage = prepared.reckoner.desk.storage()
        self._shots = {
            shot.id: PageShot(shot.id, seconds=float(shot.seconds or 0), take=prepared.standings[shot.id].take)
            for shot in prepared.plan.shots
        }
        self._clips: dict[str, Clip] = {}
        self._end, self._note = "", ""
        self._usd = Decimal(0)
        self._artifacts = _Artifacts(self._title)
        self._moved = asyncio.Event()
        self._turn = asyncio.Lock()

    def told(self, step: Progress) -> None:
        """Takes in what happened to a shot; takes that the film may not use have no row."""
        shot = self._shots.get(step.shot)
        if shot is not None:
            shot.step = step.step
            shot.note = f"for {step.detail}" if step.step == "waiting" and step.detail else step.detail
            self._moved.set()

    def outcome(self, outcome: ShotOutcome) -> None:
        """Takes in what became of a shot."""
        shot = self._shots[outcome.id]
        shot.take, shot.usd = outcome.take, outcome.usd + sum(take.usd for take in outcome.further)
        if outcome.clip is not None:
            shot.seconds, shot.note = outcome.clip.seconds, outcome.faults
            if not shot.picture and len(self._shots) <= MOST_PICTURES:
                self._clips[outcome.id] = outcome.clip
        self._moved.set()

    async def keep(self) -> None:
        """Makes the page, and brings it up to date as shots move."""
        self._moved.set()
        while True:
            await self._moved.wait()
            self._moved.clear()
            begun = time.monotonic()
            await _tried(self._shown())
            await asyncio.sleep(max(EVERY_SECONDS, SHARE_OF_TIME * (time.monotonic() - begun)))

    @asynccontextmanager
    async def waits(self, outcomes: Sequence[ShotOutcome]) -> AsyncIterator[None]:
        """All clips are there; for as long as the block lasts somebody is to look at them before they are joined."""
        for outcome in outcomes:
            self.outcome(outcome)
        self._note = "The cut waits to be approved: ⋮ → Resume above."
        await _tried(self._shown())
        yield
        self._note = ""
        self._moved.set()

    async def ended(self, rendering: Rendering) -> None:
        """The last word: what became of each shot, and the film."""
        for outcome in rendering.shots:
            self.outcome(outcome)
        film = rendering.film
        more = self._how_to_go_on() if film is None else [linked("Film", await self._link(film.path))]
        self._end = "\n\n".join([escaped(rendering.sentence()), *more])
        await _tried(self._shown())
        if film is not None:
            await _tried(self._film(film))

    async def stopped(self, why: str, seconds: float = CALL_SECONDS) -> None:
        """The last word of a run that ended before its shots did."""
        self._note = "\n\n".join([escaped(why), *self._how_to_go_on()])
        await _tried(self._shown(), seconds)

    def _how_to_go_on(self) -> list[str]:
        run = _flow_run()
        if run is None:
            return []
        if run.deployment_id is not None:
            return [f"To go on: ⋮ → Retry above, or `prefect flow-run retry {run.id}`."]
        again = f"prefect-kling render {self._prepared.document.source}"
        if self._edition != "main":
            again += f" --edition {self._edition}"
        return [f"To go on, run it again as you did, such as {escaped(again)}"]

    async def _shown(self) -> None:
        async with self._turn:
            await _tried(self._take_pictures())
            shots = list(self._shots.values())
            await self._artifacts.put("progress", "progress", done_share(shots), f"Shots of {self._title}")
            await self._count()
            table = summary(self._title, self._edition, shots, self._usd, note=self._note, end=self._end)
            await self._artifacts.put("shots", "markdown", table, "The shots of this run")

    async def _count(self) -> None:
        """What the run has bought for, as last known where the ledger is away; the run's end has the money in it."""
        if self._end:
            return
        try:
            async with asyncio.timeout(LEDGER_SECONDS):
                self._usd = Decimal((await self._prepared.spent()).run) / 1_000_000
        except (LedgerUnavailable, TimeoutError) as error:
            get_run_logger().debug("What the run has bought is not known: %s", error)

    async def _take_pictures(self) -> None:
        clips, self._clips = self._clips, {}
        found = {shot: await self._cutting.local(clip) for shot, clip in clips.items()}
        local = {shot: path for shot, path in found.items() if path is not None}
        for shot, picture in zip(local, await thumbnails(list(local.values())), strict=True):
            self._shots[shot].picture = _data_uri(picture, "image/webp")

    async def _film(self, film: Film) -> None:
        link = await self._link(film.path)
        await self._artifacts.put("film", "markdown", linked(self._title, link), "The film")
        for end, (name, kind) in _PICTURES.items():
            location = film.beside.get(end)
            if location is None:
                continue
            async with self._storage.at_hand(location) as path:
                picture = _data_uri(await asyncio.to_thread(Path(path).read_bytes), kind)
            if len(picture) <= MOST_CHARACTERS:
                await self._artifacts.put(name, "image", picture, f"{name.capitalize()} of {self._title}")

    async def _link(self, location: str) -> str:
        return without_password(await self._storage.page_link(location))


async def show_video(title: str, clip: Clip, ours: Desk, said: str) -> None:
    """Shows a clip on the page of the run that this is called in: a picture, what there is to say, and where it is."""

    async def shown() -> None:
        storage = ours.storage()
        async with storage.at_hand(clip.path, sha256=clip.sha256) as path:
            (picture,) = await thumbnails([Path(path)])
        link = linked("Video", without_password(await storage.page_link(clip.path)))
        text = f"# {escaped(title)}\n\n![]({_data_uri(picture, 'image/webp')})\n\n{escaped(said)}\n\n{link}\n"
        await _Artifacts(title).put("video", "markdown", text, "The video")

    await _tried(shown())


class _Artifacts:
    """The artifacts of this flow run: each is made once, whether the run is a retry or not, and brought up to date."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._ids: dict[str, UUID] | None = None
        self._put: dict[str, Any] = {}

    async def put(self, name: str, kind: str, data: Any, description: str) -> None:
        """Makes one, or gives it new data; none outside of a flow run."""
        run, key = _flow_run(), artifact_key(name, self._title)
        if run is None or self._put.get(key) == data:
            return
        async with get_client() as client:
            if self._ids is None:
                own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
                found = await client.read_artifacts(artifact_filter=own)
                self._ids = {there.key: there.id for there in found if there.key}
            if key in self._ids:
                # Not by `update_artifact`: that puts all of the data into an event as well.
                await client.request(
                    "PATCH", "/artifacts/{id}", path_params={"id": self._ids[key]}, json={"data": data}
                )
            else:
                made = ArtifactCreate(key=key, type=kind, description=description, data=data, flow_run_id=run.id)
                self._ids[key] = (await client.create_artifact(made)).id
        self._put[key] = data


async def _tried(work: Awaitable[None], seconds: float = CALL_SECONDS) -> None:
    try:
        async with asyncio.timeout(seconds):
            await work
    except Exception as error:  # noqa: BLE001 - see the module: decoration
        get_run_logger().debug("The run's page could not be brought up to date: %s: %s", type(error).__name__, error)


def _flow_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return None if context is None else context.flow_run


def _data_uri(picture: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"
