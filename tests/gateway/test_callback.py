"""Callbacks as the gateway sends them, and all that a stranger may send in their place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prefect_kling.gateway.callback import MAX_CALLBACK_BYTES, NoCallback, read_callback

DATA: dict[str, Any] = {
    "taskId": "t1",
    "model": "kling-video/kling-video-o1",
    "state": "completed",
    "param": '{"prompt": "A fox"}',
    "resultJson": '{"resultUrls": ["https://example.com/a.mp4"], "videoDuration": 5}',
    "failCode": None,
    "failMsg": None,
    "costTime": 12345,
    "completeTime": 1705123500000,
    "createTime": 1705123450000,
}


def body(**data: Any) -> bytes:
    return json.dumps({"code": 200, "msg": "success", "data": {**DATA, **data}}).encode()


def test_a_callback_names_a_task_and_its_end() -> None:
    said = read_callback(body())
    assert (said.taskId, said.state) == ("t1", "completed")


@pytest.mark.parametrize(
    "data", [{"state": "failed", "resultJson": None, "failMsg": "no"}, {"resultJson": None}, {"new": [1]}]
)
def test_what_the_gateway_may_leave_out_or_add_is_no_matter(data: dict[str, Any]) -> None:
    assert read_callback(body(**data)).taskId == "t1"


def test_a_failure_may_have_a_code_of_its_own() -> None:
    assert (
        read_callback(json.dumps({"code": 501, "data": {"taskId": "t", "state": "failed"}}).encode()).state == "failed"
    )


UPSTREAM = {
    "task_id": "t1",
    "task_status": "succeed",
    "task_result": {"videos": [{"url": "https://example.com/a.mp4"}]},
}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"t1"',
        b"\xff\xfe{}",
        b"{}",
        b'{"code": 200}',
        b'{"code": 200, "data": null}',
        b'{"code": "200", "data": {"taskId": "t1", "state": "completed"}}',
        json.dumps(DATA).encode(),
        json.dumps(UPSTREAM).encode(),
        json.dumps({"code": 0, "data": UPSTREAM}).encode(),
        body(taskId=""),
        body(taskId=1),
        body(taskId=None),
        body(taskId=["t1"]),
        body(taskId="t" * 256),
        body(taskId="t\n1"),
        body(taskId="t\0"),
        body(taskId="\ud800"),
        body(state="processing"),
        body(state="succeed"),
        body(state=None),
        body(resultJson={"resultUrls": []}),
        b'{"code": 200, "data": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        body(param="x" * MAX_CALLBACK_BYTES),
    ],
    ids=lambda raw: raw[:24].decode("ascii", "replace") + f" {len(raw)}",
)
def test_anything_else_is_no_callback_and_is_not_quoted(raw: bytes) -> None:
    with pytest.raises(NoCallback) as caught:
        read_callback(raw)
    assert "example.com" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_largest_is_read() -> None:
    spare = MAX_CALLBACK_BYTES - len(body(param=""))
    assert read_callback(body(param="x" * spare)).taskId == "t1"
