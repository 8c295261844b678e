"""What the gateway's answers mean: one class for every status and code, and no traceback for any JSON."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_kling.gateway.answers import Task, error_for, read_data, read_task, retry_after
from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    InsufficientCredits,
    InvalidRequest,
    KlingError,
    RateLimited,
    TaskNotFound,
)

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
GOOD = {"taskId": "t1", "state": "pending", "model": "kling-video/kling-v3-omni"}

# gateway.md, the table under "Answers"; what it does not name is a refusal (4xx) or an answer of no use.
BY_STATUS: dict[int, type[KlingError]] = {
    **dict.fromkeys(range(100, 200), GatewayUnavailable),
    **dict.fromkeys(range(300, 400), GatewayUnavailable),
    **dict.fromkeys(range(400, 500), InvalidRequest),
    **dict.fromkeys(range(500, 600), GatewayUnavailable),
    401: AuthenticationFailed,
    402: InsufficientCredits,
    403: AuthenticationFailed,
    404: TaskNotFound,
    408: GatewayUnavailable,
    410: TaskNotFound,
    429: RateLimited,
}
BY_UPSTREAM_CODE: dict[int, type[KlingError]] = {
    1100: InsufficientCredits,
    1101: InsufficientCredits,
    1102: InsufficientCredits,
    1302: RateLimited,
    1303: RateLimited,
    1304: AuthenticationFailed,
}
RETRYABLE = {RateLimited, GatewayUnavailable}


def error(status: int, body: object, **headers: str) -> KlingError | None:
    text = body if isinstance(body, str) else json.dumps(body)
    return error_for(status, {name.replace("_", "-"): value for name, value in headers.items()}, text, now=NOW)


NO_TASK: list[object] = [None, {}, {"taskId": None}, {"taskId": ""}, []]
BODIES: list[object] = [
    {"code": None, "msg": "no"},
    {"error": {"message": "no"}},
    {"error": "no"},
    {},
    "<html><body>Bad gateway 1302</body></html>",
    "",
    "null",
    "[1]",
    {"code": 200, "msg": "success", "data": GOOD},
]


@pytest.mark.parametrize("status", sorted(BY_STATUS))
def test_every_status_that_is_no_success_is_one_class_whatever_the_body(status: int) -> None:
    for body in BODIES:
        found = error(status, body)
        assert type(found) is BY_STATUS[status]
        assert found.status == status
        assert found.retryable is (type(found) in RETRYABLE)
        assert f"HTTP {status}" in str(found)


@pytest.mark.parametrize("status", range(200, 300))
def test_every_success_with_a_task_is_a_task(status: int) -> None:
    assert error(status, {"code": 200, "msg": "success", "data": GOOD}) is None


@pytest.mark.parametrize(
    "body", ["", "null", "[]", "1", "<html>ok</html>", "{}", '{"code": 200, "data": null}', "{", "\ufeff"]
)
@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_success_without_data_is_no_usable_answer(status: int, body: str) -> None:
    assert type(error(status, body)) is GatewayUnavailable


@pytest.mark.parametrize("code", [*BY_STATUS, *BY_UPSTREAM_CODE])
def test_http_200_with_an_error_code_and_no_task_is_judged_by_that_code(code: int) -> None:
    for data in NO_TASK:
        found = error(200, {"code": code, "msg": "no", "data": data})
        assert type(found) is {**BY_STATUS, **BY_UPSTREAM_CODE}[code]
        assert found.code == code
        assert str(code) in str(found)


@pytest.mark.parametrize("status", [200, 201, 299])
def test_a_success_that_names_a_task_is_a_task_whatever_its_code(status: int) -> None:
    for code in (*BY_STATUS, *BY_UPSTREAM_CODE, 0, None, "402", "x", True, 1.5):
        assert error(status, {"code": code, "msg": "odd", "data": GOOD}) is None


@pytest.mark.parametrize(("code", "kind"), BY_UPSTREAM_CODE.items())
@pytest.mark.parametrize(
    "body",
    [
        {"code": 429, "msg": "upstream error {}"},
        {"code": 429, "msg": "[{}] too many"},
        {"error": {"message": "Kling says: code={}, message=no"}},
        {"error": "code {}."},
        {"code": "{}", "msg": "no"},
    ],
    ids=str,
)
def test_a_429_is_judged_by_the_code_in_its_message(body: Any, code: int, kind: type[KlingError]) -> None:
    found = error(429, json.dumps(body).replace("{}", str(code)))
    assert type(found) is kind
    assert found.code == code


@pytest.mark.parametrize("message", ["", "slow down", "order 11001", "id 21100", "wait 11000 ms", "1301", "1300s"])
def test_a_429_without_a_code_is_a_rate_limit(message: str) -> None:
    assert type(error(429, {"code": 429, "msg": message})) is RateLimited


def test_a_code_in_the_message_of_another_status_changes_nothing() -> None:
    assert type(error(400, {"msg": "prompt 1302 is too long"})) is InvalidRequest
    assert type(error(500, {"msg": "1302"})) is GatewayUnavailable


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"code": 400, "msg": "prompt is required"}, "prompt is required"),
        ({"error": {"message": "bad ratio", "type": "x"}}, "bad ratio"),
        ({"error": "plain words"}, "plain words"),
        ({"msg": "", "error": {"message": "the other place"}}, "the other place"),
        ({"msg": None}, "no message"),
        ({"msg": "two\n lines\t of it"}, "two lines of it"),
        ({"msg": {"en": "nested"}}, "nested"),
        ({"msg": ["a", "b"]}, "'a', 'b'"),
    ],
)
def test_the_gateways_words_are_shown(body: dict[str, Any], shown: str) -> None:
    assert shown in str(error(400, body))


def test_endless_words_are_cut() -> None:
    assert len(str(error(400, {"msg": "x" * 100_000}))) < 700


def test_a_page_of_html_is_described_not_quoted() -> None:
    said = str(error(502, "<html>" + "secret" * 1000, content_type="text/html; charset=utf-8"))
    assert "6,006 characters of text/html" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("2.5", 2.5),
        ("60", 60.0),
        ("61", 60.0),
        ("3600", 60.0),
        ("9" * 5000, 60.0),
        ("-1", None),
        ("", None),
        ("soon", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        (".", None),
        ("\u0667", None),
        ("²", None),
        ("7, 8", None),
        (format_datetime(NOW + timedelta(seconds=20), usegmt=True), 20.0),
        (format_datetime(NOW + timedelta(days=20), usegmt=True), 60.0),
        (format_datetime(NOW - timedelta(seconds=20), usegmt=True), 0.0),
        ("Sun, 22 Nov 2026 12:00:30 -0000", 30.0),
        ("Sun, 22 Nov 2026 14:00:30 +0200", 30.0),
        ("Sunday, 22-Nov-26 12:00:30 GMT", 30.0),
        ("Sun, 99 Nov 2026 12:00:30 GMT", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2020 00:00:00 +99999999999999999", None),
        ("Mon, 01 Jan 0001 00:00:00 +1400", 0.0),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}, now=NOW) == seconds


def test_without_the_header_nothing_is_asked() -> None:
    assert retry_after({}, now=NOW) is None


@pytest.mark.parametrize("status", [429, 200])
def test_a_rate_limit_carries_what_was_asked(status: int) -> None:
    found = error(status, {"code": 1302, "msg": "slow"}, retry_after="9")
    assert isinstance(found, RateLimited)
    assert found.retry_after == 9.0


@given(st.text("0123456789 -+:,.GMTSunNov", max_size=40))
def test_no_header_breaks_retry_after(value: str) -> None:
    seconds = retry_after({"retry-after": value}, now=NOW)
    assert seconds is None or 0 <= seconds <= 60


def test_a_whole_poll_is_read() -> None:
    task = read_task(
        {
            "taskId": "t1",
            "state": "completed",
            "model": "kling-video/kling-video-o1",
            "resultUrls": ["https://example.com/a.mp4"],
            "createTime": 1705123450000,
            "completeTime": 1705123500250,
            "failMsg": "",
            "failCode": None,
            "retryable": False,
            "resultJson": None,
            "param": '{"prompt": "A fox"}',
            "costTime": 12345,
            "something": {"new": True},
        }
    )
    assert task == Task(
        task_id="t1",
        state="completed",
        model="kling-video/kling-video-o1",
        result_urls=("https://example.com/a.mp4",),
        created_at=datetime(2024, 1, 13, 5, 24, 10, tzinfo=UTC),
        completed_at=datetime(2024, 1, 13, 5, 25, 0, 250_000, tzinfo=UTC),
        retryable=False,
        param='{"prompt": "A fox"}',
    )
    assert task.ended
    assert task.known


def test_the_least_a_poll_can_say_is_an_id() -> None:
    assert read_task({"taskId": "t1"}) == Task("t1", "pending")


@pytest.mark.parametrize("value", [None, "", 5, 0, True, ["t1"], {"id": "t1"}])
def test_an_answer_without_a_task_id_is_of_no_use(value: object) -> None:
    with pytest.raises(GatewayUnavailable, match="names no task"):
        read_task({"taskId": value, "state": "completed"})
    with pytest.raises(GatewayUnavailable, match="names no task"):
        read_task({})


@pytest.mark.parametrize(
    ("state", "ended", "known"),
    [
        ("pending", False, True),
        ("processing", False, True),
        ("completed", True, True),
        ("failed", True, True),
        ("paused", False, False),
        ("COMPLETED", False, False),
        ("succeed", False, False),
    ],
)
def test_states(state: str, ended: bool, known: bool) -> None:
    task = read_task({"taskId": "t1", "state": state})
    assert (task.state, task.ended, task.known) == (state, ended, known)


@pytest.mark.parametrize(
    ("field", "value", "attribute", "read"),
    [
        ("state", 7, "state", "7"),
        ("model", 7, "model", "7"),
        ("failMsg", "bad words", "fail_message", "bad words"),
        ("failMsg", None, "fail_message", None),
        ("failCode", 1301, "fail_code", "1301"),
        ("failCode", "1301", "fail_code", "1301"),
        ("failCode", "", "fail_code", None),
        ("retryable", True, "retryable", True),
        ("retryable", "yes", "retryable", None),
        ("retryable", 1, "retryable", None),
        ("createTime", None, "created_at", None),
        ("createTime", "1705123450000", "created_at", None),
        ("createTime", True, "created_at", None),
        ("createTime", [], "created_at", None),
        ("createTime", 10**400, "created_at", None),
        ("createTime", float("nan"), "created_at", None),
        ("createTime", float("inf"), "created_at", None),
        ("createTime", 0, "created_at", datetime(1970, 1, 1, tzinfo=UTC)),
        ("createTime", 1500.0, "created_at", datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)),
        ("completeTime", {}, "completed_at", None),
    ],
)
def test_fields_of_another_type_are_left_out_not_a_traceback(
    field: str, value: object, attribute: str, read: object
) -> None:
    assert getattr(read_task({"taskId": "t1", field: value}), attribute) == read


@pytest.mark.parametrize(
    ("urls", "json_", "found"),
    [
        (["https://a/1.mp4"], None, ("https://a/1.mp4",)),
        (["https://a/1.mp4", "https://a/2.mp4"], None, ("https://a/1.mp4", "https://a/2.mp4")),
        (["https://a/1.mp4"], '{"resultUrls": ["https://b/2.mp4"]}', ("https://a/1.mp4",)),
        (None, '{"resultUrls": ["https://b/2.mp4"], "videoDuration": 5}', ("https://b/2.mp4",)),
        ([], '{"resultUrls": ["https://b/2.mp4"]}', ("https://b/2.mp4",)),
        ([None, ""], '{"resultUrls": ["https://b/2.mp4"]}', ("https://b/2.mp4",)),
        ("https://a/1.mp4", '{"resultUrls": ["https://b/2.mp4"]}', ("https://b/2.mp4",)),
        ([1, {"url": "x"}, "https://a/1.mp4"], None, ("https://a/1.mp4",)),
        (None, None, ()),
        (None, "[]", ()),
        (None, "null", ()),
        (None, "{", ()),
        (None, "", ()),
        (None, '{"resultUrls": []}', ()),
        (None, '{"resultUrls": "https://b/2.mp4"}', ()),
        (None, '"{\\"resultUrls\\": []}"', ()),
        (None, "[" * 100_000, ()),
        (None, 5, ()),
        ({}, None, ()),
    ],
)
def test_result_urls_come_from_the_list_or_else_from_result_json(
    urls: object, json_: object, found: tuple[str, ...]
) -> None:
    task = read_task({"taskId": "t1", "state": "completed", "resultUrls": urls, "resultJson": json_})
    assert task.result_urls == found


@pytest.mark.parametrize(
    ("data", "read"),
    [(GOOD, GOOD), ({}, {}), ([{"id": "a"}], {"data": [{"id": "a"}]}), ("x", {"data": "x"}), (0, {"data": 0})],
)
def test_data_is_what_the_envelope_holds(data: object, read: dict[str, Any]) -> None:
    assert read_data(200, {}, json.dumps({"code": 200, "msg": "success", "data": data}), now=NOW) == read


def test_reading_data_raises_the_error_an_answer_stands_for() -> None:
    with pytest.raises(InsufficientCredits) as caught:
        read_data(402, {}, '{"code": 402, "msg": "balance 0.02"}', now=NOW)
    assert "balance 0.02" in str(caught.value)
    assert (caught.value.status, caught.value.code) == (402, None)


SIGNS = 'at0:1é狐 "\\{}[]'
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(SIGNS, max_size=6)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(SIGNS, max_size=4), inner, max_size=3),
    max_leaves=6,
)
task_fields = st.dictionaries(
    st.sampled_from(
        [
            *("taskId", "state", "model", "resultUrls", "resultJson", "createTime", "completeTime"),
            *("failMsg", "failCode", "retryable", "param"),
        ]
    ),
    values,
)
envelopes = st.fixed_dictionaries(
    {}, optional={"code": values, "msg": values, "error": values, "data": task_fields | values}
)


@settings(max_examples=300)
@given(envelopes | values, st.integers(100, 599))
def test_any_json_is_data_or_a_kling_error(envelope: object, status: int) -> None:
    with contextlib.suppress(KlingError):
        read_task(read_data(status, {}, json.dumps(envelope), now=NOW))


@settings(max_examples=300)
@given(task_fields)
def test_any_fields_are_a_task_or_of_no_use(fields: dict[str, Any]) -> None:
    task = read_task({**fields, "taskId": "t1"})
    assert isinstance(task.state, str)
    assert all(isinstance(url, str) for url in task.result_urls)


@given(st.text('{}[]":,\\u0 \n1e9NaN-é', max_size=40) | st.sampled_from(["[" * 100_000, "9" * 5000, '{"a":' * 5000]))
def test_any_text_is_an_error_or_data(text: str) -> None:
    with contextlib.suppress(KlingError):
        read_data(200, {}, text, now=NOW)
