"""Asking whoever looks after a run, on its page in the Prefect UI: one question after the other, each answered once.

A question is a form. The run pauses until it is filled in; where a worker would be held by that, it is suspended, and
starts again from the top. So each question has a key of its own, and what was asked and answered before is read back.
Prefect forgets the keys of a run that is retried, but not what was written under them; so that is what is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.flow_runs import apause_flow_run, asuspend_flow_run
from prefect.input import RunInput, acreate_flow_run_input, aread_flow_run_input, keyset_from_base_key
from prefect.logging import get_run_logger
from prefect.utilities.urls import url_for

from prefect_kling.gateway.errors import KlingError

__all__ = ["Asked", "NotAnswered", "Questions"]

POLL_SECONDS: Final = 2
"""Between looks of a paused run at whether it is resumed; Prefect's own 10 are long for somebody who waits."""
GRACE_SECONDS: Final = 120


class NotAnswered(KlingError):
    """Nobody answered in time."""


@dataclass(frozen=True)
class Asked:
    """A question that was asked.

    Attributes:
        key: by which Prefect knows it.
        number: of the question, from 1.
        facts: what the question was about.
        said: what the form says; None where it was never filled in.
        is_used_up: whether the answer has done what it was for.
    """

    key: str
    number: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, Any] | None = None
    is_used_up: bool = False


class Questions:
    """The questions of one kind in the flow run that this is made in.

    Args:
        first: key of the first question.
        following: that of every further one, with `{}` for its number.
        wait_seconds: how long each may stay unanswered.
    """

    def __init__(self, first: str, following: str, wait_seconds: float) -> None:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            raise KlingError("Only a flow run can ask for an approval: there is no page to answer on without one")
        self._run: FlowRun = context.flow_run
        self._first, self._following, self._wait_seconds = first, following, max(1, round(wait_seconds))

    @property
    def suspends(self) -> bool:
        """Whether the run ends its process while it waits: a worker has more to do. Prefect cannot suspend subflows."""
        return self._run.work_pool_name is not None and self._run.parent_task_run_id is None

    async def last(self) -> Asked | None:
        """The last question that was asked in this run, in whichever attempt; None before the first."""
        number, found = 1, None
        while (asked := await self._asked(number)) is not None:
            number, found = number + 1, asked
        if found is None:
            return None
        said = None
        for how in ("paused", "suspended"):
            said = said or await aread_flow_run_input(keyset_from_base_key(f"{how}-{found.key}")["response"])
        used = await aread_flow_run_input(_used_key(found.key))
        return Asked(found.key, found.number, found.facts, said, is_used_up=bool(used))

    async def ask(self, form: type[RunInput], facts: Mapping[str, Any], what: str, otherwise: str) -> Asked:
        """Asks the next question, and waits for its answer.

        Args:
            form: what is to be filled in, with what is to be known as its description.
            facts: what the question is about, JSON-native.
            what: is asked, for the log: "The plan of Lighthouse".
            otherwise: what it means if nobody answers, and what to do then.

        Returns:
            The question with its answer.

        Raises:
            NotAnswered: nobody answered in time.
            Pause: the run is suspended; Prefect's engine ends its process, and `last` has the answer when it is back.
        """
        before = await self.last()
        number = 1 if before is None else before.number + 1
        key, until = self._key(number), datetime.now(UTC) + timedelta(seconds=self._wait_seconds)
        page = url_for("flow-run", obj_id=self._run.id)
        get_run_logger().warning(
            "%s waits for you until %s UTC (question %s): ⋮ → Resume on the page of this run%s. %s",
            what,
            f"{until:%Y-%m-%d %H:%M}",
            key,
            f", {page}" if page else "",
            "This worker is free meanwhile" if self.suspends else "This process waits",
        )
        await acreate_flow_run_input(key=_asked_key(key), value=dict(facts))
        if self.suspends:
            get_run_logger().info("If nobody answers, the run fails. %s", otherwise)
            await asuspend_flow_run(wait_for_input=form, timeout=self._wait_seconds, key=key)
        try:
            # Prefect itself waits a little longer: its server would fail the run without a word of what that means.
            async with asyncio.timeout(self._wait_seconds):
                longer = self._wait_seconds + GRACE_SECONDS
                await apause_flow_run(wait_for_input=form, timeout=longer, poll_interval=POLL_SECONDS, key=key)
        except TimeoutError:
            pass  # it may have been answered since the last look
        asked = await self.last()
        if asked is None or asked.said is None:
            raise NotAnswered(f"{what} was not approved by {until:%Y-%m-%d %H:%M} UTC. {otherwise}")
        return asked

    async def use_up(self, asked: Asked) -> None:
        """Writes down that an answer has done what it was for: a later attempt asks again."""
        if not asked.is_used_up:
            await acreate_flow_run_input(key=_used_key(asked.key), value=True)

    async def _asked(self, number: int) -> Asked | None:
        key = self._key(number)
        facts = await aread_flow_run_input(_asked_key(key))
        return None if facts is None else Asked(key, number, facts)

    def _key(self, number: int) -> str:
        return self._first if number == 1 else self._following.format(number)


def _asked_key(key: str) -> str:
    return f"{key}-asked"


def _used_key(key: str) -> str:
    return f"{key}-used"
