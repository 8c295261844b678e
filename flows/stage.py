"""What the shots of one run share: who is bought for, what is hosted and billed already, and whether buying goes on."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from prefect import Task

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip
from prefect_kling.flows.preparing import Prepared
from prefect_kling.flows.reckoning import Choice
from prefect_kling.flows.slots import Slots
from prefect_kling.gateway.addresses import is_loopback_url
from prefect_kling.gateway.errors import InvalidRequest, KlingError
from prefect_kling.gateway.limits import VideoFacts, video_refusal
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.refusals import moderated
from prefect_kling.storyboard.plan import Input, PlannedShot
from prefect_kling.tasks import extract_last_frame, host_file
from prefect_kling.tasks.results import Hosted

__all__ = ["Stage", "check_clip_as_input", "named"]

P = ParamSpec("P")
R = TypeVar("R")


class Stage:
    """One run's shared state.

    Attributes:
        till_closed: why nothing more is bought in this run.
        is_called: whether the gateway calls at a generation's end.
        slots: whose turn it is.
    """

    def __init__(self, prepared: Prepared, studio: KlingStudio) -> None:
        self.prepared, self.studio = prepared, studio
        self.reckoner, self.desk = prepared.reckoner, prepared.reckoner.desk
        self.loopback = is_loopback_url(self.desk.settings.base_url)
        self.till_closed: KlingError | None = None
        settings = self.desk.settings
        self.is_called = bool(settings.callback_base_url or settings.receive_on)
        self.slots = Slots(self.desk.limits.in_flight, elsewhere=prepared.elsewhere is not None)
        self._results: list[object] = []
        self._hosted: dict[tuple[str, str, bool], asyncio.Task[Hosted]] = {}
        self._billed: dict[int, tuple[str, int]] = {}

    def check_till(self) -> None:
        """Raises what has closed the till, if anything has."""
        if self.till_closed is not None:
            raise self.till_closed

    def kept(self, result: R) -> R:
        """A task's result, kept to the end of the run.

        Prefect draws its arrows by the identity of what results hold. Of one that is gone, a text or a list of another
        task may have the identity.
        """
        self._results.append(result)
        return result

    def bought(self, order: Order, found: Purchase | None) -> Purchase | None:
        """What this run bought for a take; what others bought, or another shot that is the same, is not on its bill."""
        if found is None or found.order.run != self.reckoner.run:
            return None
        this = (order.shot, order.take)
        return found if self._billed.setdefault(found.id, this) == this else None

    async def takes(self, choice: Choice, *numbers: int) -> dict[int, Purchase]:
        """The live rows of a shot's takes, by number; those of all that it may become, where none is given."""
        ledger, account, edition = self.desk.ledger, self.desk.account, self.reckoner.edition
        some = numbers or choice.numbers
        live = await ledger.find(account, edition, [key for number in some for key in choice.keys(number)])
        refused = await moderated(ledger, account, edition, choice.softened(live))
        rows = ((number, choice.bought(number, live, refused)) for number in some)
        return {number: row for number, row in rows if row is not None}

    async def source(self, shot: PlannedShot, entry: Input, clips: Mapping[str, Clip]) -> tuple[str, Any]:
        """The URL of an input, and the task result that it comes from, if any.

        Raises:
            InvalidRequest: a clip turned out as the gateway does not take it.
            KlingError: it cannot be hosted.
        """
        if entry.kind == "url":
            return entry.source, None
        if entry.kind == "file":
            hosted = await self._once("file", entry.source, None, fit=shot.fit and entry.place[0] == "image_list")
            return hosted.url, hosted
        clip = clips[entry.source]
        if entry.kind == "clip":
            if not self.loopback:  # the simulator takes back the small clips that it makes for tests
                check_clip_as_input(shot, entry, clip)
            live = clip.live_url(datetime.now(UTC))
            if live is not None:
                return live, clip
        hosted = await self._once(entry.kind, entry.source, clip)
        return hosted.url, hosted

    async def end(self) -> None:
        """Stops what still runs for inputs."""
        for task in self._hosted.values():
            task.cancel()
        await asyncio.gather(*self._hosted.values(), return_exceptions=True)

    async def _once(self, kind: str, source: str, clip: Clip | None, *, fit: bool = False) -> Hosted:
        """A file at the gateway, uploaded once however many shots of this run use it."""
        key = (kind, source, fit)
        if key not in self._hosted:
            self._hosted[key] = asyncio.create_task(self._host(kind, source, clip, fit=fit))
        return await asyncio.shield(self._hosted[key])

    async def _host(self, kind: str, source: str, clip: Clip | None, *, fit: bool) -> Hosted:
        if clip is None:
            label = f"{source.rpartition('/')[2]} · host"
            # What is sent is what the key was made of.
            digest = await self.reckoner.digest(source)
            return await named(host_file, label)(source, self.studio, sha256=digest, fit=fit)
        if kind == "clip":
            return await named(host_file, f"{source} · host")(clip, self.studio)
        still = self.kept(await named(extract_last_frame, f"{source} · last frame")(clip, self.studio))
        return await named(host_file, f"{source} · host last frame")(still, self.studio)


def named(task: Task[P, R], name: str) -> Task[P, R]:
    """A task under the name that the UI shows."""
    # `with_options` does the same, and reads the task's source anew each time.
    same = copy.copy(task)
    same.task_run_name = name
    return same


def check_clip_as_input(shot: PlannedShot, entry: Input, clip: Clip) -> None:
    """Refuses a clip that is not as planned before the gateway does, now that it is known what it is."""
    refer_type = "base" if shot.request.base_video is not None else "feature"
    rate = clip.frames / clip.seconds if clip.seconds else 0.0
    facts = VideoFacts(clip.seconds, clip.width, clip.height, rate, clip.bytes)
    refusal = video_refusal(facts, model=shot.request.model, refer_type=refer_type)
    if refusal is not None:
        raise InvalidRequest(
            f"shot '{shot.id}' was not sent, and nothing was bought: the clip of '{entry.source}' cannot be its "
            f"{refer_type}: {refusal}"
        )
