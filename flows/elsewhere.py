"""Takes that are made on other machines: each by a run of `generate-video/video`, on any worker of its work pool.

Nothing passes between machines but the ledger, the storage and Prefect's runs. This run watches the takes it has asked
for by their rows and by their runs' states. Whatever has become of a worker, it is always safe that this run goes on
with a take by itself, as the ledger sells each once; so all that there is to decide is how long to be patient.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from uuid import UUID

import httpx
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, StateType, WorkPoolStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.states import Cancelled

from prefect_kling.blocks import KlingStudio
from prefect_kling.flows.errands import Errand, newest
from prefect_kling.flows.progress import tell
from prefect_kling.flows.runs import run_id
from prefect_kling.gateway import errors
from prefect_kling.gateway.client import backoff
from prefect_kling.gateway.errors import KlingError, LedgerUnavailable, StoryboardError
from prefect_kling.ledger import states
from prefect_kling.ledger.buying import as_before
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.tasks.live import Live, live_state
from prefect_kling.tasks.results import Generated

__all__ = ["DEPLOYMENT", "Alone", "Elsewhere", "concluded", "make_elsewhere", "patience"]

DEPLOYMENT: Final = "generate-video/video"
LOOK_EVERY: Final = 2.0
ANSWER_SECONDS: Final = 10.0
"""For what Prefect's server is asked at each look: its client repeats for minutes, and the ledger tells meanwhile."""
STARTS_AT_ONCE: Final = 3
"""Prefect's server on SQLite takes some 2 s to write down a run of another one, however many are begun at a time."""
UNHEARD_SECONDS: Final = 60.0
"""After so long without news, a take is gone on with here: of one that is bought, or of a run that no worker is for."""
CALLED_UNHEARD_SECONDS: Final = 180.0
"""The same where a callback is expected, and the gateway is asked less often."""
BUSY_SECONDS: Final = 300.0
"""The same of one that has bought nothing yet: workers are busy, its machine is being made, or it waits for a slot."""
SERVER_PATIENCE: Final = 300.0
"""Seconds that a Prefect server which does not answer is asked again to start a run."""
_MOST_RUNS: Final = 100
_CANCEL_SECONDS: Final = 10.0
_NO_ANSWER: Final = (httpx.TransportError, PrefectHTTPStatusError, TimeoutError)


@dataclass(frozen=True)
class Alone:
    """A take that this run goes on with by itself, and why."""

    why: str


Conclusion: TypeAlias = Generated | KlingError | Alone
"""What became of a take elsewhere: it is made, or it failed as it would have here, or nobody there will tell."""


@dataclass(eq=False)
class _Watched:
    """A take that is being made elsewhere.

    Attributes:
        errand: what was asked.
        run: that was asked; of shots that are one purchase it is the same.
        row, state: as last seen.
        heard: when something last changed, on the monotonic clock.
    """

    errand: Errand
    run: UUID
    row: Purchase | None = None
    state: State[Any] | None = None
    heard: float = field(default_factory=time.monotonic)
    moved: asyncio.Event = field(default_factory=asyncio.Event)


def concluded(row: Purchase | None, state: State[Any] | None, unheard: float, patient: float) -> Conclusion | None:
    """What has become of a take; None while there is reason to wait. Pure.

    Args:
        row: its newest row in the ledger since it was asked for.
        state: of its run.
        unheard: seconds since one of them last changed.
        patient: seconds that this is put up with.
    """
    if row is not None and row.state is states.State.STORED:
        return Generated(purchase=row.id, task_id=str(row.task_id))
    if row is not None and row.state in (states.State.FAILED, states.State.REFUSED):
        return as_before(row)
    if state is not None and state.is_final():
        kind = getattr(errors, state.name or "", None)
        if isinstance(kind, type) and issubclass(kind, KlingError):
            return kind(state.message or f"the run elsewhere ended as {state.name}")
        return Alone(f"ended as {state.name}{f' ({state.message})' if state.message else ''}")
    return Alone(f"has not been heard of for {unheard:.0f} s") if unheard > patient else None


def patience(row: Purchase | None, state: State[Any] | None, *, workers: bool) -> float:
    """How many seconds a take elsewhere may go without news. Pure.

    Args:
        row, state: as for `concluded`.
        workers: whether the pool has a worker that could begin it.
    """
    if row is not None:
        return CALLED_UNHEARD_SECONDS if row.callback else UNHEARD_SECONDS
    begun = state is not None and state.type is not StateType.SCHEDULED
    return BUSY_SECONDS if begun or workers else UNHEARD_SECONDS


class Elsewhere:
    """The takes of one run that are made elsewhere; see `found`.

    Args:
        desk: of this run.
        deployment: that makes a take.
        studio: the parameters that name the studio to it.
        attempt: of this run, as its server counts them.
    """

    def __init__(self, desk: Desk, deployment: DeploymentResponse, studio: Mapping[str, Any], attempt: int) -> None:
        self.desk, self._deployment, self._studio, self._attempt = desk, deployment, studio, attempt
        self._pool = deployment.work_pool_name
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)
        self._watched: list[_Watched] = []
        self._watching: asyncio.Task[None] | None = None
        self._workers = True

    @classmethod
    async def found(cls, desk: Desk, studio: KlingStudio | None) -> Elsewhere:
        """Where takes can be made, looked up before anything is bought.

        Args:
            desk: of this run.
            studio: as the flow was given it; None for the environment's, which is then the worker's as well.

        Raises:
            StoryboardError: there is no such deployment, or the studio cannot be named to another machine.
        """
        if studio is None:
            named: dict[str, Any] = {}
        elif studio._block_document_id is not None:  # noqa: SLF001 - Prefect has no other name for it
            named = {"studio": {"$ref": {"block_document_id": str(studio._block_document_id)}}}  # noqa: SLF001
        else:
            raise StoryboardError(
                "where: work-pool needs a studio that other machines can load, and this one is saved nowhere; a run's "
                "parameters would show its key, or hide it from the workers too. Save it as a block and name that, or "
                "leave studio empty for the workers' environment. Nothing was bought"
            )
        async with get_client() as client:
            try:
                deployment = await client.read_deployment_by_name(DEPLOYMENT)
            except ObjectNotFound:
                raise StoryboardError(
                    f"where: work-pool needs the deployment {DEPLOYMENT}, and this Prefect server has none. "
                    "`prefect-kling init` writes a prefect.yaml that has it, and `prefect --no-prompt deploy --all` "
                    "deploys it. Nothing was bought"
                ) from None
            # The count that a run knows of itself is of its beginning; a pause that was ended counts as well.
            run = run_id()
            attempt = (await client.read_flow_run(UUID(run))).run_count if run else 1
            there = cls(desk, deployment, named, attempt)
            if not await there._has_workers(client):
                get_run_logger().warning(
                    "No worker of the work pool %s is online: a take that none has begun after %.0f s is made here. "
                    "`prefect worker start --pool %s` starts one",
                    there._pool,
                    UNHEARD_SECONDS,
                    there._pool,
                )
            return there

    async def made(self, name: str, order: Order, limits: Limits, request: dict[str, Any]) -> Conclusion:
        """Has a take made, and waits for what becomes of it.

        Args:
            name: of the take, for people.
            order: of the take.
            limits: of this run.
            request: the body to send for it.
        """
        row = (await newest(self.desk, [order])).get(order.key)
        # What had ended before says nothing; another shot of this run may have begun to buy just this.
        before = row.id if row is not None and row.state not in states.LIVE else 0
        errand = Errand.of(self.desk, order, limits, before=before, attempt=self._attempt)
        run = await self._started(errand, request)
        if isinstance(run, Alone):
            return run
        get_run_logger().info("%s is made by the run %s, on %s", name, errand.name, self._pool)
        watched = _Watched(errand, run)
        self._watched.append(watched)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        try:
            return await self._conclusion(name, watched)
        finally:
            self._watched.remove(watched)
            begun = watched.state is not None and watched.state.type not in (StateType.SCHEDULED, StateType.PENDING)
            if watched.row is None and not begun and all(other.run != run for other in self._watched):
                await self._unasked(run)

    async def _conclusion(self, name: str, watched: _Watched) -> Conclusion:
        said = ""
        async with live_state("Queued", f"Waits for a worker of {self._pool}") as live:
            while True:
                unheard = time.monotonic() - watched.heard
                row, state = watched.row, watched.state
                patient = patience(row, state, workers=self._workers)
                conclusion = concluded(row, state, unheard, patient)
                if conclusion is not None:
                    return conclusion
                step = _step(row)
                if step != said:
                    self._say(name, step, row, live)
                said = step
                assert self._watching is not None  # noqa: S101 - begun before anybody waits
                moved = asyncio.ensure_future(watched.moved.wait())
                try:
                    await asyncio.wait([moved, self._watching], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    moved.cancel()
                if self._watching.done():
                    self._watching.result()
                watched.moved.clear()

    def _say(self, name: str, step: str, row: Purchase | None, live: Live | None) -> None:
        if live is not None:
            live.say(step, f"Made by a run of its own on {self._pool}")
        if step == "Queued" or row is None:
            return
        if step == "Generating":
            get_run_logger().info("Bought %s: task %s, %s", row.named, row.task_id, row.order.described)
        tell(name, "generating" if step == "Generating" else "downloading", f"on {self._pool}")

    async def _started(self, errand: Errand, request: dict[str, Any]) -> UUID | Alone:
        """Starts a run, again where the server did not answer: of one key there is one run."""
        order = errand.order
        wording = order.key.rpartition("#")[0][-12:]
        begun, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            try:
                async with self._starts:
                    run = await arun_deployment(
                        self._deployment.id,
                        parameters={
                            "request": request,
                            "edition": order.edition,
                            "errand": errand.model_dump(mode="json"),
                            **self._studio,
                        },
                        flow_run_name=errand.name,
                        timeout=0,
                        as_subflow=True,
                        idempotency_key=f"{order.run}:{order.shot}:{order.take}:{wording}:{errand.attempt}",
                    )
            except ObjectNotFound:
                return Alone(f"cannot be begun: there is no deployment {DEPLOYMENT} any more")
            except _NO_ANSWER as error:
                left = SERVER_PATIENCE - (time.monotonic() - begun)
                if _is_refusal(error) or left <= 0:
                    return Alone(f"could not be begun ({type(error).__name__}: {error})")
                get_run_logger().warning(
                    "Prefect's server does not answer (%s); it is asked again to start %s", error, errand.name
                )
                await asyncio.sleep(min(backoff(attempt, random.random), left))
            else:
                return run.id

    async def _watch(self) -> None:
        """Looks at all takes at once, again and again; both the ledger and the server may be away for a while."""
        silent = False
        while self._watched:
            try:
                rows = await newest(self.desk, [watched.errand.order for watched in self._watched])
                for watched in self._watched:
                    _heard(watched, rows.get(watched.errand.order.key), watched.state)
                    watched.moved.set()
            except LedgerUnavailable as error:
                get_run_logger().warning("%s", error)
            try:
                async with asyncio.timeout(ANSWER_SECONDS), get_client() as client:
                    found = await _states(client, list({watched.run for watched in self._watched}))
                    self._workers = await self._has_workers(client)
                for watched in self._watched:
                    _heard(watched, watched.row, found.get(watched.run))
                silent = False
            except _NO_ANSWER as error:
                if not silent:
                    said = f": {error}" if str(error) else ""
                    get_run_logger().warning("Prefect's server does not answer%s. It is asked again", said)
                silent = True
            for watched in self._watched:
                watched.moved.set()
            await asyncio.sleep(LOOK_EVERY)

    async def _has_workers(self, client: PrefectClient) -> bool:
        if self._pool is None:
            return True  # whoever serves the deployment looks for runs; Prefect does not know of it
        try:
            pool = await client.read_work_pool(self._pool)
        except ObjectNotFound:
            return False
        return pool.status is not WorkPoolStatus.NOT_READY and not pool.is_paused

    async def _unasked(self, run: UUID) -> None:
        """Cancels a run that nothing has begun, as nobody waits for it any more; one that was begun only joins."""
        state: State[Any] = Cancelled(message="The film's run does not wait for it any more")
        try:
            async with asyncio.timeout(_CANCEL_SECONDS), get_client() as client:
                await client.set_flow_run_state(run, state)
        except (*_NO_ANSWER, ObjectNotFound) as error:
            get_run_logger().warning("A run that is not needed could not be cancelled: %s", error)


@task(name="make elsewhere", cache_policy=NO_CACHE)
async def make_elsewhere(
    elsewhere: Elsewhere, name: str, request: dict[str, Any], order: Order, limits: Limits
) -> Generated | None:
    """Has one take made on another machine; see `Elsewhere.made` for the arguments.

    Returns:
        The take, in storage; None where this run has to make it.

    Raises:
        KlingError: as the run there ended.
    """
    found = await elsewhere.made(name, order, limits, request)
    if isinstance(found, KlingError):
        raise found
    if isinstance(found, Generated):
        get_run_logger().info("%s is kept, as task %s", name, found.task_id)
        return found
    get_run_logger().warning(
        "The run that makes %s elsewhere %s. This run goes on with it; what is bought already is not bought again",
        name,
        found.why,
    )
    return None


async def _states(client: PrefectClient, runs: list[UUID]) -> Mapping[UUID, State[Any] | None]:
    found: dict[UUID, State[Any] | None] = {}
    for start in range(0, len(runs), _MOST_RUNS):
        some = FlowRunFilter(id=FlowRunFilterId(any_=runs[start : start + _MOST_RUNS]))
        found |= {run.id: run.state for run in await client.read_flow_runs(flow_run_filter=some, limit=_MOST_RUNS)}
    return found


def _heard(watched: _Watched, row: Purchase | None, state: State[Any] | None) -> None:
    """Takes in what is seen of a take; a row that was there before says nothing."""
    row = row if row is not None and row.id > watched.errand.before else None
    if (row, state and state.id) != (watched.row, watched.state and watched.state.id):
        watched.row, watched.state, watched.heard = row, state, time.monotonic()


def _step(row: Purchase | None) -> str:
    if row is None or row.task_id is None:
        return "Queued"
    return "Generating" if row.state is states.State.SUBMITTED else "Downloading"


def _is_refusal(error: Exception) -> bool:
    """Whether the server has answered, and asking again would change nothing."""
    return isinstance(error, PrefectHTTPStatusError) and 400 <= error.response.status_code < 500
