"""Waiting by polling, on a clock that only the sleeps move."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    GenerationFailed,
    GenerationTimeout,
    InvalidRequest,
    KlingError,
    TaskNotFound,
)
from prefect_kling.gateway.waiting import poll_delays, wait_for

URL = "https://example.com/a.mp4"
DONE = {"state": "completed", "resultUrls": [URL]}
FAILED = {"state": "failed", "failMsg": "the prompt was refused", "failCode": "1301"}


def says(state: str, **fields: Any) -> dict[str, Any]:
    return {"state": state, **fields}


class Gateway:
    """Answers polls by a script of task fields, statuses or exceptions; the last goes on for ever. Knows the time."""

    def __init__(self, *script: Any) -> None:
        self.script: Iterator[Any] = itertools.chain(script, itertools.repeat(script[-1]))
        self.now = 0.0
        self.looks: list[float] = []
        self.states: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.looks.append(round(self.now, 6))
        said = next(self.script)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, int):
            return httpx.Response(said, json={"code": said, "msg": "trouble"})
        return httpx.Response(200, json={"code": 200, "msg": "success", "data": {"taskId": "t1", **said}})

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    async def on_state(self, task: Task) -> None:
        self.states.append(task.state)

    async def wait(self, **options: Any) -> Task:
        async with KlingClient(
            "sk-0123456789", transport=httpx.MockTransport(self.answer), attempts=1, sleep=self.sleep
        ) as client:
            return await wait_for(
                client,
                "t1",
                **{"on_state": self.on_state, **options},
                sleep=self.sleep,
                rand=lambda: 0.5,
                clock=lambda: self.now,
            )


@pytest.mark.parametrize(("chance", "factor"), [(0.0, 0.9), (0.5, 1.0), (1.0, 1.1)])
def test_polls_come_after_twice_the_interval_then_once_growing_to_twice(chance: float, factor: float) -> None:
    delays = list(itertools.islice(poll_delays(5.0, lambda: chance), 30))
    assert delays[0] == pytest.approx(10 * factor)
    assert delays[1] == pytest.approx(5 * factor)
    assert delays[1:] == sorted(delays[1:])
    assert delays[-1] == pytest.approx(10 * factor)
    assert all(4.5 <= delay <= 11 for delay in delays)


def test_polls_of_many_tasks_do_not_keep_step() -> None:
    one, other = (
        list(itertools.islice(poll_delays(5.0, iter(chances).__next__), 9)) for chances in ([0.1] * 9, [0.9] * 9)
    )
    assert all(a < b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "before", [[], ["pending"], ["pending", "processing"], ["pending"] * 30 + ["processing"] * 30], ids=len
)
async def test_a_task_that_completes_is_given_back_at_once(before: list[str]) -> None:
    gateway = Gateway(*map(says, before), DONE)
    task = await gateway.wait()
    assert (task.state, task.result_urls) == ("completed", (URL,))
    assert len(gateway.looks) == len(before) + 1
    assert gateway.now == pytest.approx(gateway.looks[-1])  # no sleep after the last look


async def test_the_first_look_is_not_at_once() -> None:
    gateway = Gateway(DONE)
    await gateway.wait(poll_interval=5.0)
    assert gateway.looks == [10.0]


async def test_a_task_that_fails_says_why_and_what_it_cost() -> None:
    gateway = Gateway(says("processing"), FAILED)
    with pytest.raises(GenerationFailed) as caught:
        await gateway.wait()
    error = caught.value
    assert "the prompt was refused" in str(error)
    assert "not billed" in str(error)
    assert (error.code, error.task_id, error.retryable) == ("1301", "t1", False)
    assert gateway.now == pytest.approx(gateway.looks[-1])
    assert gateway.states == ["processing", "failed"]


@pytest.mark.parametrize(("said", "retryable"), [(True, True), (False, False), (None, False), ("yes", False)])
async def test_a_failure_is_retryable_where_the_gateway_says_so(said: object, retryable: bool) -> None:
    with pytest.raises(GenerationFailed) as caught:
        await Gateway({**FAILED, "retryable": said}).wait()
    assert caught.value.retryable is retryable


async def test_a_failure_without_words_is_still_one() -> None:
    with pytest.raises(GenerationFailed, match="no reason given"):
        await Gateway(says("failed")).wait()


@pytest.mark.parametrize("max_wait", [0.0, 1.0, 10.0, 12.5, 61.0, 3600.0])
@pytest.mark.parametrize("state", ["pending", "processing"])
async def test_time_runs_out_with_one_last_look_exactly_at_the_deadline(max_wait: float, state: str) -> None:
    gateway = Gateway(says(state))
    with pytest.raises(GenerationTimeout) as caught:
        await gateway.wait(max_wait=max_wait)
    assert gateway.looks[-1] == gateway.now == pytest.approx(max_wait)
    assert gateway.looks == sorted(set(gateway.looks))
    assert state in str(caught.value)
    assert caught.value.task_id == "t1"
    assert not caught.value.retryable


@pytest.mark.parametrize("last", [DONE, FAILED])
async def test_what_is_found_at_the_deadline_counts(last: dict[str, Any]) -> None:
    gateway = Gateway(says("processing"), says("processing"), last)
    ended = None
    try:
        ended = (await gateway.wait(max_wait=16.0)).state
    except GenerationFailed:
        ended = "failed"
    assert ended == last["state"]
    assert gateway.looks[-1] == gateway.now == 16.0


async def test_an_unknown_task_is_believed_after_five_minutes() -> None:
    gateway = Gateway(404)
    with pytest.raises(TaskNotFound):
        await gateway.wait()
    assert 300 <= gateway.now <= 311
    assert gateway.states == []


async def test_a_task_that_turns_up_late_is_waited_for() -> None:
    gateway = Gateway(*[404] * 20, says("processing"), DONE)
    assert (await gateway.wait()).state == "completed"


async def test_a_single_404_late_in_the_wait_is_not_believed() -> None:
    gateway = Gateway(*[says("processing")] * 60, 404, 404, says("processing"), DONE)
    assert (await gateway.wait()).state == "completed"
    assert gateway.now > 310


async def test_a_task_that_vanishes_is_believed_gone_after_five_minutes_of_404() -> None:
    gateway = Gateway(*[says("processing")] * 60, 404)
    with pytest.raises(TaskNotFound):
        await gateway.wait()
    assert 299.99 <= gateway.now - gateway.looks[60] <= 311


async def test_a_wait_shorter_than_five_minutes_does_not_call_a_task_unknown() -> None:
    with pytest.raises(GenerationTimeout):
        await Gateway(404).wait(max_wait=60.0)


TROUBLE = [
    500,
    502,
    503,
    504,
    408,
    429,
    204,
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    httpx.RemoteProtocolError("gone"),
]


@pytest.mark.parametrize("trouble", TROUBLE, ids=repr)
async def test_trouble_on_the_way_is_no_news_about_the_task(trouble: Any, caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(says("processing"), *[trouble] * 40, says("processing"), DONE)
    with caplog.at_level(logging.WARNING):
        assert (await gateway.wait()).state == "completed"
    assert gateway.states == ["processing", "completed"]
    assert "t1" in caplog.text


@pytest.mark.parametrize("trouble", TROUBLE, ids=repr)
async def test_an_outage_to_the_end_is_a_timeout_not_a_failure(trouble: Any) -> None:
    with pytest.raises(GenerationTimeout, match="unknown"):
        await Gateway(trouble).wait(max_wait=100.0)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, InvalidRequest), (401, AuthenticationFailed), (403, AuthenticationFailed)]
)
async def test_a_refusal_ends_the_wait(status: int, kind: type[KlingError]) -> None:
    gateway = Gateway(says("processing"), status)
    with pytest.raises(kind):
        await gateway.wait()
    assert len(gateway.looks) == 2


@pytest.mark.parametrize("odd", [says("paused"), says("completed"), says("completed", resultUrls=[])], ids=str)
async def test_an_odd_answer_is_reported_not_polled_for_ever(
    odd: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    gateway = Gateway(says("processing"), odd)
    with caplog.at_level(logging.WARNING), pytest.raises(GatewayUnavailable) as caught:
        await gateway.wait()
    assert len(gateway.looks) == 4
    assert repr(odd["state"]) in str(caught.value)
    assert caught.value.task_id == "t1"
    assert not caught.value.retryable
    assert gateway.states == ["processing", odd["state"]]
    assert len(caplog.records) >= 2


@pytest.mark.parametrize("odd", [says("paused"), says("completed")], ids=str)
async def test_an_odd_answer_or_two_are_forgiven(odd: dict[str, Any]) -> None:
    gateway = Gateway(odd, odd, says("processing"), odd, odd, DONE)
    assert (await gateway.wait()).result_urls == (URL,)


async def test_a_callers_word_on_states_comes_once_a_change() -> None:
    gateway = Gateway(says("pending"), says("pending"), says("processing"), 500, says("processing"), DONE)
    await gateway.wait()
    assert gateway.states == ["pending", "processing", "completed"]


async def test_nobody_has_to_listen() -> None:
    gateway = Gateway(says("pending"), DONE)
    assert (await gateway.wait(on_state=None)).ended


async def test_an_error_of_the_listener_is_the_callers() -> None:
    async def angry(task: Task) -> None:
        raise LookupError(task.state)

    with pytest.raises(LookupError, match="pending"):
        await Gateway(says("pending")).wait(on_state=angry)


@pytest.mark.parametrize(
    "make", [lambda: logging.getLogger("shot"), lambda: logging.LoggerAdapter(logging.getLogger("shot"), {})]
)
async def test_trouble_goes_to_the_callers_logger(make: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> None:
    await Gateway(500, DONE).wait(logger=make())
    assert [record.name for record in caplog.records if record.levelno == logging.WARNING] == ["shot"]


# --- callbacks ---


class Bell:
    """An alarm that rings at these moments of the gateway's time, and takes the time that it is waited for."""

    def __init__(self, gateway: Gateway, *rings: float) -> None:
        self.gateway, self.rings = gateway, list(rings)

    async def wait(self, seconds: float) -> bool:
        assert seconds >= 0
        until = self.gateway.now + seconds
        if self.rings and self.rings[0] <= until:
            self.gateway.now = max(self.gateway.now, self.rings.pop(0))
            return True
        self.gateway.now = until
        return False


def test_with_a_callback_expected_polls_are_the_fallback() -> None:
    assert list(itertools.islice(poll_delays(5.0, lambda: 0.5, called=True), 4)) == pytest.approx([120, 60, 60, 60])


async def test_a_callback_is_followed_by_one_look() -> None:
    gateway = Gateway(says("completed", resultUrls=[URL]))
    await gateway.wait(alarm=Bell(gateway, 42.0))
    assert gateway.looks == [42.0]


async def test_without_the_expected_callback_polling_ends_the_wait() -> None:
    gateway = Gateway(says("processing"), says("processing"), DONE)
    await gateway.wait(alarm=Bell(gateway))
    assert gateway.looks == [120.0, 180.0, 240.0]


async def test_a_callback_that_is_not_borne_out_is_doubted_once_and_then_nobody_is_called_any_more() -> None:
    gateway = Gateway(*[says("processing")] * 5, DONE)
    # Rung for ever after: whoever forges calls does not make us ask more often than without callbacks.
    await gateway.wait(alarm=Bell(gateway, *(20.0 + n / 20 for n in range(10_000))))
    assert gateway.looks[:4] == pytest.approx([20.0, 21.0, 31.0, 36.0])
    assert all(later - earlier >= 5 for earlier, later in itertools.pairwise(gateway.looks[2:]))


async def test_a_callback_that_comes_before_the_gateway_agrees_with_itself_is_believed_a_second_later() -> None:
    gateway = Gateway(says("processing"), DONE)
    await gateway.wait(alarm=Bell(gateway, 20.0))
    assert gateway.looks == [20.0, 21.0]


@pytest.mark.parametrize("trouble", [500, httpx.ConnectError("away"), 404])
async def test_trouble_after_a_callback_is_no_end(trouble: Any) -> None:
    gateway = Gateway(trouble, DONE)
    await gateway.wait(alarm=Bell(gateway, 20.0))
    assert gateway.looks == [20.0, 21.0]


async def test_what_nobody_has_waited_for_is_asked_about_at_once() -> None:
    gateway = Gateway(DONE)
    await gateway.wait(alarm=Bell(gateway), at_once=True)
    assert gateway.looks == [0.0]


async def test_a_wait_with_a_callback_expected_ends_in_time() -> None:
    gateway = Gateway(says("processing"))
    with pytest.raises(GenerationTimeout):
        await gateway.wait(alarm=Bell(gateway), max_wait=100)
    assert gateway.looks == [100.0]
