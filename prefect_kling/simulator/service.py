"""The gateway behind its endpoints: what a create, a poll and an upload do. No HTTP in here.

A create is checked, priced, held and accepted in one step without awaiting, so that concurrent creates cannot spend the
same money; everything slow (fetching inputs, rendering) comes before or after it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote, urlsplit

import httpx
from pydantic import ValidationError

from prefect_kling.gateway.prices import estimate_cost, micro_usd
from prefect_kling.gateway.requests import Model, OmniVideoRequest
from prefect_kling.simulator.account import Account, NotEnough, usd
from prefect_kling.simulator.callbacks import AT_ONCE, deliver
from prefect_kling.simulator.clock import Clock, RealClock
from prefect_kling.simulator.config import MEDIA_MARKER, MediaSpec, SimulatorConfig
from prefect_kling.simulator.faults import CALLBACK_FAULTS, GENERATION_FAULTS, SPOILING_FAULTS, Faults
from prefect_kling.simulator.inputs import FetchedInputs, Refused, fetch_inputs
from prefect_kling.simulator.life import (
    SimulatedTask,
    callback_payload,
    canonical_digest,
    generation_seconds,
    poll_data,
    task_id,
)
from prefect_kling.simulator.moderation import PROMPT_REFUSED, forbidden_picture, forbidden_word
from prefect_kling.simulator.multipart import Part
from prefect_kling.simulator.order import order_for
from prefect_kling.simulator.render import render
from prefect_kling.simulator.spoiling import PICTURE_FAULTS, spoil
from prefect_kling.simulator.standin import stand_in_image, stand_in_video
from prefect_kling.simulator.store import Store, Stored
from prefect_kling.simulator.trace import Remembered

__all__ = ["Refusal", "Service"]

UNDRAWN = b"not drawn"
TIMES_DUPLICATED = 3

FAILURES = {
    "failed": ("500", "internal error while generating; nothing was billed"),
    "moderation": ("1301", "failure to pass the risk control system: the prompt or an input was found sensitive"),
}


class Refusal(Exception):
    """An answer other than 200: an HTTP status, the gateway's `msg` and further headers."""

    def __init__(self, status: int, msg: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(msg)
        self.status = status
        self.msg = msg
        self.headers = dict(headers or {})


class Service:
    """One simulated account with its tasks and files.

    Args:
        config: what it is like.
        clock: its time; None for the machine's.

    Attributes:
        seed: the configured one, or the one drawn in its place.
        account: the money.
        faults: what strikes, and what has struck.
        tasks: every accepted create, by id.
        counts: polls, downloads, uploads and the like.
        callbacks: what the callback sender did.
    """

    def __init__(self, config: SimulatorConfig, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or RealClock()
        self.seed = secrets.randbits(63) if config.seed is None else config.seed
        self.account = Account(micro_usd(config.balance))
        self.faults = Faults(config.faults, self.seed)
        self.tasks: dict[str, SimulatedTask] = {}
        self.creates: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.callbacks: Counter[str] = Counter()
        self.closing = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._remembered = Remembered()
        self._abandoned = threading.Event()
        self._kinds: dict[tuple[object, ...], tuple[Path, float]] = {}
        self._drawing = threading.Lock()

    async def __aenter__(self) -> Service:
        self._directory = tempfile.TemporaryDirectory(prefix="kling-simulator-", ignore_cleanup_errors=True)
        root = Path(self._directory.name)
        stores = []
        for name in ("results", "files", "inputs"):
            (root / name).mkdir()
            stores.append(Store(root / name, retention_seconds=self.config.retention_seconds, clock=self.clock))
        self.results, self.files, self._inputs = stores
        self._pool = ThreadPoolExecutor(
            self.config.workers or os.cpu_count() or 1, thread_name_prefix="kling-simulator"
        )
        # Apart from rendering: a create that waits behind clips being drawn is a create whose answer is lost.
        self._looking = ThreadPoolExecutor(2, thread_name_prefix="kling-simulator-inputs")
        # A connection each is kept: to open one takes longer than to call.
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        self._client = httpx.AsyncClient(trust_env=False, limits=limits)
        self._turns = asyncio.Semaphore(AT_ONCE)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.closing.set()
        self._abandoned.set()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._client.aclose()
        self._looking.shutdown(wait=True, cancel_futures=True)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._directory.cleanup()

    # --- creates ------------------------------------------------------------------------------------------------

    async def create(self, body: Any, origin: str) -> SimulatedTask:
        """Accepts a create: from here on the task runs, and its money is held.

        Args:
            body: the JSON as it arrived.
            origin: scheme, host and port under which the caller reached the simulator.

        Raises:
            Refusal: 400, 402 or 429; nothing was created.
        """
        request = _validated(body)
        media = _media(request, self.config.media)
        if forbidden_word(request):
            raise Refusal(400, PROMPT_REFUSED)
        try:
            inputs = await fetch_inputs(
                request,
                own=self.own_file,
                directory=self._inputs.directory,
                pool=self._looking,
                shrink=self.config.shrink,
                stand_in=self._stand_in,
            )
        except Refused as error:
            raise Refusal(400, str(error)) from error
        cost = micro_usd(estimate_cost(request, input_seconds=inputs.video_seconds))
        limit = self.config.concurrency
        if limit is not None and sum(task.running for task in self.tasks.values()) >= limit:
            raise Refusal(429, f"upstream error 1303: more than {limit} concurrent tasks", {"Retry-After": "1"})
        try:
            self.account.hold(cost)
        except NotEnough as error:
            raise Refusal(402, f"insufficient credits: {error}") from error
        task = self._accept(request, body, cost)
        self._spawn(self._live(task, inputs, media, origin))
        return task

    def _accept(self, request: OmniVideoRequest, body: Mapping[str, Any], cost: int) -> SimulatedTask:
        digest = canonical_digest(body, self._content_of)
        self.creates[digest] += 1
        take, now = self.creates[digest], self.clock.now()
        lasts = generation_seconds(
            self.seed, digest, take, seconds=self.config.generation_seconds, jitter=self.config.jitter
        )
        task = SimulatedTask(
            task_id=task_id(self.seed, digest, take, now),
            request=request,
            body=body,
            digest=digest,
            take=take,
            cost=cost,
            created_at=now,
            finish_at=now + lasts,
            fault="moderation" if forbidden_picture(request) else self.faults.first(GENERATION_FAULTS),
        )
        self.tasks[task.task_id] = task
        return task

    def _content_of(self, url: str) -> str | None:
        try:
            stored = self.own_file(url)
        except LookupError:
            return None
        return stored.sha256 if stored is not None else None

    def own_file(self, url: str) -> Stored | None:
        """The simulator's own file behind a URL: an upload or a result.

        Raises:
            LookupError: it has expired.
        """
        if not url.lower().startswith(("http://127.0.0.1:", "http://localhost:")):
            return None
        path = unquote(urlsplit(url).path)
        if path.startswith("/results/"):
            return self.results.get(path.removeprefix("/results/").removesuffix(".mp4"))
        if path.startswith("/files/"):
            return self.files.get(path.removeprefix("/files/").partition("/")[0])
        return None

    # --- the life of a task -------------------------------------------------------------------------------------

    async def _live(self, task: SimulatedTask, inputs: FetchedInputs, media: MediaSpec, origin: str) -> None:
        faults = self.faults.all(CALLBACK_FAULTS) if task.request.callback_url else frozenset()
        rendering = asyncio.get_running_loop().run_in_executor(self._pool, self._render, task, inputs, media)
        # When the simulator stops nobody asks any more how a rendering ended, and asyncio would complain of that.
        rendering.add_done_callback(lambda done: done.cancelled() or done.exception())
        await self.clock.sleep_until(task.processing_at)
        task.become("processing", at=self.clock.now())
        if "callback-forged" in faults:
            self._spawn(self._forge(task, origin))
        rendered = (await asyncio.gather(rendering, return_exceptions=True))[0]
        await self.clock.sleep_until(task.finish_at)
        now = self.clock.now()
        if isinstance(rendered, BaseException):
            task.problems.append(repr(rendered))
            self._fail(task, "failed", now)
        elif task.fault in FAILURES:
            self._fail(task, task.fault, now)
        else:
            path, task.video_duration = rendered
            stored = self.results.add(task.task_id, path, filename=f"{task.task_id}.mp4", content_type="video/mp4")
            task.sha256 = stored.sha256
            if task.fault == "expired":
                self.results.expire(task.task_id)
            self.account.take(task.cost)
            task.become("completed", at=now)
        if task.request.callback_url and task.fault != "unknown-state":
            await self._call_back(task, faults, origin)

    def _fail(self, task: SimulatedTask, fault: str, now: float) -> None:
        task.fail_code, task.fail_msg = FAILURES[fault]
        self.account.release(task.cost)
        task.become("failed", at=now)

    def _render(self, task: SimulatedTask, inputs: FetchedInputs, media: MediaSpec) -> tuple[Path, float]:
        path = self.results.directory / f"{task.task_id}.mp4"
        if not self.config.draw:
            path.write_bytes(UNDRAWN)
            return path, 0.0
        if self.config.draw == "once":
            return self._drawn_before(task, inputs, media, path)
        return self._drawn(task, inputs, media, path)

    def _drawn_before(
        self, task: SimulatedTask, inputs: FetchedInputs, media: MediaSpec, path: Path
    ) -> tuple[Path, float]:
        """The clip that was drawn for the first task of this kind, or for this one."""
        asked = task.request
        kind = (asked.model, asked.mode, asked.aspect_ratio, asked.duration, asked.sound, media.model_dump_json())
        with self._drawing:
            if kind not in self._kinds:
                self._kinds[kind] = self._drawn(task, inputs, media, path)
                return self._kinds[kind]
        first, seconds = self._kinds[kind]
        path.hardlink_to(first)
        return path, seconds

    def _drawn(self, task: SimulatedTask, inputs: FetchedInputs, media: MediaSpec, path: Path) -> tuple[Path, float]:
        order = order_for(
            task.request,
            inputs,
            media=media,
            identity=f"{self.seed}:{task.digest}:{task.take}",
            task_id=task.task_id,
            barcode=self.config.barcode,
            shrink=self.config.shrink,
        )
        continued = self._remembered.find(order.first_frame) if order.first_frame is not None else None
        rendered = render(order, path, continued, abandoned=self._abandoned.is_set)
        if task.fault not in PICTURE_FAULTS:
            self._remembered.add(rendered.last, rendered.trace)
        if task.fault not in SPOILING_FAULTS:
            return path, rendered.seconds
        return path, spoil(path, task.fault, media, abandoned=self._abandoned.is_set)

    def _stand_in(self, kind: str, url: str, path: Path) -> None:
        making = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        if kind == "image":
            stand_in_image(url, making)
        else:
            stand_in_video(url, making)
        making.replace(path)

    async def _call_back(self, task: SimulatedTask, faults: frozenset[str], origin: str) -> None:
        if "callback-drop" in faults:
            return
        if "callback-late" in faults:
            await self.clock.sleep_until(self.clock.now() + self.config.late_seconds)
        payload = callback_payload(task, self.result_url(task, origin))
        for _ in range(TIMES_DUPLICATED if "callback-duplicate" in faults else 1):
            await self._post_callback(task, payload)

    async def _forge(self, task: SimulatedTask, origin: str) -> None:
        forged = SimulatedTask(**{**vars(task), "state": "completed", "completed_at": self.clock.now()})
        payload = callback_payload(forged, f"{origin}/results/{uuid.uuid4().hex}.mp4")
        await self._post_callback(task, payload)

    async def _post_callback(self, task: SimulatedTask, payload: Mapping[str, Any]) -> None:
        await deliver(
            task.request.callback_url or "",
            payload,
            client=self._client,
            turns=self._turns,
            clock=self.clock,
            counts=self.callbacks,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.counts["internal_errors"] += 1
            asyncio.get_running_loop().call_exception_handler({"message": "a simulated task broke", "exception": error})

    # --- everything else ----------------------------------------------------------------------------------------

    def poll(self, wanted: str, origin: str) -> dict[str, Any]:
        """`data` of a poll's answer.

        Raises:
            Refusal: 404.
        """
        task = self.tasks.get(wanted)
        if task is None:
            raise Refusal(404, f"task not found: {wanted}")
        task.polls += 1
        return poll_data(task, self.result_url(task, origin))

    def result_url(self, task: SimulatedTask, origin: str) -> str:
        """Where the clip can be had once the task has completed."""
        return f"{origin}/results/{task.task_id}.mp4"

    def upload(self, part: Part, origin: str) -> dict[str, Any]:
        """Hosts a file; `data` of the answer."""
        key = uuid.uuid4().hex
        filename = Path(part.filename or "file").name or "file"
        path = self.files.directory / key
        path.write_bytes(part.content)
        stored = self.files.add(key, path, filename=filename, content_type=part.content_type)
        self.counts["uploads"] += 1
        return {
            "publicUrl": str(httpx.URL(origin).copy_with(path=f"/files/{key}/{filename}")),
            "fileName": filename,
            "size": len(part.content),
            "expireTime": int(stored.expires_at * 1000),
        }

    def balance(self) -> dict[str, Any]:
        """`data` of the balance, in USD: what can be spent, that plus what is held, and what is held."""
        account = self.account
        names = {"balance": account.balance, "total": account.balance + account.frozen, "frozen": account.frozen}
        return {name: float(Decimal(micro) / 1_000_000) for name, micro in names.items()}

    def stats(self) -> dict[str, Any]:
        """What happened so far (`GET /_sim/stats`); dollars as integer micro-dollars and as text."""
        account = self.account
        money = {"balance": account.balance, "frozen": account.frozen, "billed": account.taken}
        states = Counter(task.state for task in self.tasks.values())
        return {
            "seed": self.seed,
            "creates": self.creates.total(),
            "distinct_bodies": len(self.creates),
            "creates_by_body": dict(self.creates),
            "tasks": {
                task.task_id: {
                    "body": task.digest,
                    "state": task.state,
                    "micro_usd": task.cost,
                    "sha256": task.sha256,
                    "polls": task.polls,
                    "problems": task.problems,
                }
                for task in self.tasks.values()
            },
            "states": dict(states),
            "micro_usd": money,
            "usd": {name: usd(micro) for name, micro in money.items()},
            "posts": self.counts["posts"],
            "refused": self.counts["refused"],
            "polls": self.counts["polls"],
            "downloads": self.counts["downloads"],
            "uploads": self.counts["uploads"],
            "callbacks": {
                name: self.callbacks[name]
                for name in ("attempts", "delivered", "answered_badly", "unreachable", "given_up", "not_loopback")
            },
            "faults": dict(self.faults.injected),
            "internal_errors": self.counts["internal_errors"],
        }

    def models(self) -> list[dict[str, str]]:
        """`data` of the list of models."""
        return [{"id": name, "object": "model"} for name in get_args(Model)]


def _validated(body: Any) -> OmniVideoRequest:
    try:
        return OmniVideoRequest.model_validate(body, context={"loopback": True})
    except ValidationError as error:
        broken = (
            ": ".join(filter(None, (".".join(map(str, part["loc"])), part["msg"])))
            for part in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise Refusal(400, "invalid parameters: " + "; ".join(broken)) from error


def _media(request: OmniVideoRequest, defaults: MediaSpec) -> MediaSpec:
    marker = request.external_task_id or ""
    if not marker.startswith(MEDIA_MARKER):
        return defaults
    try:
        return MediaSpec.parse(marker.removeprefix(MEDIA_MARKER), defaults)
    except ValueError as error:
        raise Refusal(400, f"external_task_id: {error}") from error
