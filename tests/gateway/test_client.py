"""The client over a mocked transport: what is sent how often, what comes of every answer, and where the key goes."""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr

from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.client import DEFAULT_BASE_URL, KlingClient, backoff, never_sent
from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    InsufficientCredits,
    InvalidRequest,
    KlingError,
    PurchaseUncertain,
    RateLimited,
    TaskNotFound,
)
from prefect_kling.gateway.requests import OmniVideoRequest

KEY = "sk-0123456789abcdef"
BODY = {"model": "kling-v3-omni", "prompt": "A fox", "aspect_ratio": "16:9"}
ACCEPTED = {"code": 200, "msg": "success", "data": {"taskId": "t1", "state": "pending"}}


class Wire:
    """A transport that plays a script (answers, or errors to raise; the last repeats) on a clock that sleeps move."""

    def __init__(self, *script: Any) -> None:
        self.script = script or (ok(),)
        self.sent: list[httpx.Request] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        step = self.script[min(len(self.sent), len(self.script)) - 1]
        if isinstance(step, Exception):
            raise step
        status, headers, content = step
        return httpx.Response(status, headers=headers, content=content)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def client(self, key: str | SecretStr = KEY, **options: Any) -> KlingClient:
        return KlingClient(
            key,
            transport=httpx.MockTransport(self),
            **{"sleep": self.sleep, "rand": lambda: 0.5, "clock": lambda: sum(self.slept), **options},
        )


def said(status: int, body: object, **headers: str) -> tuple[int, dict[str, str], bytes]:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, content


def ok(data: object = None) -> tuple[int, dict[str, str], bytes]:
    return said(200, ACCEPTED if data is None else {"code": 200, "msg": "success", "data": data})


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and everything a traceback would show with it."""
    while error is not None:
        yield error
        if error.__cause__ is not None and error.__context__ not in (None, error.__cause__):
            yield from chain(error.__context__)
        error = error.__cause__ or error.__context__


# --- what is sent ---


async def test_a_create_posts_the_body_once_with_the_key_as_bearer() -> None:
    wire = Wire()
    async with wire.client() as client:
        task = await client.create(BODY)
    assert task == Task("t1", "pending")
    (request,) = wire.sent
    assert (request.method, str(request.url)) == ("POST", "https://apimodels.app/api/v1/video/generations")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == OmniVideoRequest.model_validate(BODY).body()
    assert wire.slept == []


async def test_a_poll_asks_by_task_id() -> None:
    wire = Wire()
    async with wire.client() as client:
        assert (await client.get("a/b c&d")).task_id == "t1"
    (request,) = wire.sent
    assert request.method == "GET"
    assert request.url.path == "/api/v1/video/generations"
    assert dict(request.url.params) == {"task_id": "a/b c&d"}
    assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_a_request_already_checked_is_sent_as_it_is() -> None:
    wire = Wire()
    request = OmniVideoRequest.model_validate({**BODY, "duration": "7"})
    async with wire.client() as client:
        await client.create(request)
    assert json.loads(wire.sent[0].content) == request.body()


async def test_a_refused_request_is_never_sent_and_names_every_rule() -> None:
    wire = Wire()
    body = {"model": "kling-v3-omni", "sound": "on", "video_list": [{"video_url": "https://example.com/a.mp4"}] * 1}
    body["image_list"] = [{"image_url": "https://example.com/a.png", "type": "end_frame"}]
    async with wire.client() as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.create(body)
    assert wire.sent == []
    for broken in ("'on' cannot go with", "'end_frame' cannot go with", "an end_frame needs a first_frame"):
        assert broken in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:8000/api/v1", "http://localhost:8000", "http://[::1]:8000/x/"])
async def test_a_gateway_on_loopback_takes_loopback_urls(base_url: str) -> None:
    wire = Wire()
    local = {**BODY, "image_list": [{"image_url": "http://127.0.0.1:9/a.png"}], "callback_url": "http://localhost:9/k"}
    async with wire.client(base_url=base_url) as client:
        assert client.loopback
        await client.create(local)
    assert len(wire.sent) == 1


@pytest.mark.parametrize("base_url", [DEFAULT_BASE_URL, "https://gateway.example.com", "http://10.0.0.1:8000"])
async def test_any_other_gateway_does_not_even_where_they_were_checked_for_one_on_loopback(base_url: str) -> None:
    wire = Wire()
    local = {**BODY, "callback_url": "http://127.0.0.1:9/k"}
    checked = OmniVideoRequest.model_validate(local, context={"loopback": True})
    async with wire.client(base_url=base_url) as client:
        assert not client.loopback
        for body in (local, checked):
            with pytest.raises(InvalidRequest, match="callback_url"):
                await client.create(body)
    assert wire.sent == []


@pytest.mark.parametrize("base_url", ["https://gateway.example.com/api/v1/", " https://gateway.example.com/api/v1\n"])
async def test_a_base_url_may_end_in_a_slash_or_a_line_break(base_url: str) -> None:
    wire = Wire()
    async with wire.client(base_url=base_url) as client:
        await client.get("t1")
    assert str(wire.sent[0].url) == "https://gateway.example.com/api/v1/video/generations?task_id=t1"


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "apimodels.app",
        "//apimodels.app",
        "ftp://apimodels.app",
        "https://",
        "https:///api",
        "http://[::1",
        "http://apimodels.app:abc",
        "https://apimodels.app:99999",
        "https://api models.app",
        "https://apimodels.app/\x00",
        "https://xn--",
        "https://apimodels.app?x=1",
        "https://apimodels.app#x",
        "https://me:secret-word@apimodels.app",
    ],
)
def test_a_base_url_that_is_none_is_refused_in_words(base_url: str) -> None:
    with pytest.raises(InvalidRequest, match="base URL") as caught:
        KlingClient(KEY, base_url=base_url)
    assert "secret-word" not in repr(list(chain(caught.value)))


async def test_warnings_are_logged_once_a_client(caplog: pytest.LogCaptureFixture) -> None:
    odd = {"model": "kling-video-o1", "prompt": "<<<image_3>>>", "aspect_ratio": "16:9", "duration": "7", "sound": "on"}
    expected = OmniVideoRequest.model_validate(odd).warnings()
    assert len(expected) == 3
    with caplog.at_level(logging.WARNING):
        async with Wire().client(logger=logging.getLogger("shot")) as client:
            await client.create(odd)
            await client.create(odd)
            await client.create({**odd, "duration": "8"})
    told = [record.getMessage() for record in caplog.records if record.name == "shot"]
    assert told[:3] == list(expected)
    assert len(told) == 4
    assert "'8'" in told[3]


# --- how often it is sent ---

SURELY_NOT_SENT = {
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
}
MAY_HAVE_LEFT = {
    httpx.TransportError,
    httpx.TimeoutException,
    httpx.ReadTimeout,
    httpx.WriteTimeout,
    httpx.NetworkError,
    httpx.ReadError,
    httpx.WriteError,
    httpx.CloseError,
    httpx.ProtocolError,
    httpx.LocalProtocolError,
    httpx.RemoteProtocolError,
}


def family(kind: type[httpx.TransportError]) -> set[type[httpx.TransportError]]:
    return {kind}.union(*(family(child) for child in kind.__subclasses__()))


TRANSPORT_ERRORS = sorted(family(httpx.TransportError), key=lambda kind: kind.__name__)


def test_every_transport_error_httpx_knows_is_judged() -> None:
    assert not SURELY_NOT_SENT & MAY_HAVE_LEFT
    assert set(TRANSPORT_ERRORS) == SURELY_NOT_SENT | MAY_HAVE_LEFT


@pytest.mark.parametrize("kind", TRANSPORT_ERRORS)
@pytest.mark.parametrize("call", ["create", "get"])
async def test_a_post_that_may_have_left_is_never_repeated(kind: type[httpx.TransportError], call: str) -> None:
    wire = Wire(kind("broken"))
    expected: tuple[type[KlingError], int] = (GatewayUnavailable, 4)
    if call == "create" and kind in MAY_HAVE_LEFT:
        expected = (PurchaseUncertain, 1)
    async with wire.client() as client:
        with pytest.raises(KlingError) as caught:
            await (client.create(BODY) if call == "create" else client.get("t1"))
    assert (type(caught.value), len(wire.sent)) == expected
    assert type(caught.value.__cause__) is kind
    assert kind.__name__ in str(caught.value)
    assert caught.value.retryable is (expected[0] is GatewayUnavailable)
    assert never_sent(kind("broken")) is (kind in SURELY_NOT_SENT)
    assert len(wire.slept) == len(wire.sent) - 1


@pytest.mark.parametrize("call", ["create", "get"])
async def test_an_answer_that_cannot_be_decoded_is_no_answer(call: str) -> None:
    wire = Wire((200, {"content-encoding": "gzip"}, b"not gzip"))
    async with wire.client() as client:
        with pytest.raises(PurchaseUncertain if call == "create" else GatewayUnavailable):
            await (client.create(BODY) if call == "create" else client.get("t1"))
    assert len(wire.sent) == (1 if call == "create" else 4)


SURELY_REFUSED: dict[int, type[KlingError]] = {
    **dict.fromkeys(range(400, 500), InvalidRequest),
    401: AuthenticationFailed,
    402: InsufficientCredits,
    403: AuthenticationFailed,
    404: TaskNotFound,
    410: TaskNotFound,
}
del SURELY_REFUSED[408], SURELY_REFUSED[429]


@pytest.mark.parametrize("status", [s for s in range(100, 600) if s != 429])
async def test_a_create_is_sent_once_whatever_the_answer(status: int) -> None:
    for body in ("", "<html>", {"code": status, "msg": "no"}, {"code": 200, "data": None}, {"code": 200, "data": {}}):
        wire = Wire(said(status, body))
        async with wire.client() as client:
            with pytest.raises(KlingError) as caught:
                await client.create(BODY)
        assert len(wire.sent) == 1
        assert wire.slept == []
        if not 200 <= status < 300:
            assert type(caught.value) is SURELY_REFUSED.get(status, PurchaseUncertain)
            assert caught.value.status == status
        else:  # the code in the envelope is this status too, and no refusal
            assert type(caught.value) is PurchaseUncertain
        assert not caught.value.retryable


@pytest.mark.parametrize("status", range(200, 300))
async def test_any_2xx_that_names_a_task_bought_it(status: int) -> None:
    wire = Wire(said(status, ACCEPTED))
    async with wire.client() as client:
        assert (await client.create(BODY)).task_id == "t1"
    assert len(wire.sent) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, InvalidRequest),
        (401, AuthenticationFailed),
        (402, InsufficientCredits),
        (1100, InsufficientCredits),
        (1304, AuthenticationFailed),
        (500, PurchaseUncertain),
        (408, PurchaseUncertain),
        (999, PurchaseUncertain),
    ],
)
async def test_http_200_with_an_error_code_and_no_task_id_is_judged_by_that_code(
    code: int, kind: type[KlingError]
) -> None:
    wire = Wire(said(200, {"code": code, "msg": "no", "data": None}))
    async with wire.client() as client:
        with pytest.raises(KlingError) as caught:
            await client.create(BODY)
    assert (type(caught.value), len(wire.sent)) == (kind, 1)


@pytest.mark.parametrize("charset", ["hex", "rot13", "idna", "undefined", "utf-16", "nonsense"])
async def test_a_charset_that_lies_loses_no_task(charset: str) -> None:
    wire = Wire(said(200, ACCEPTED, content_type=f"application/json; charset={charset}"))
    async with wire.client() as client:
        assert (await client.create(BODY)).task_id == "t1"


async def test_a_redirect_of_a_create_is_not_followed() -> None:
    wire = Wire(said(307, "", location="https://example.com/elsewhere"))
    async with wire.client() as client:
        with pytest.raises(PurchaseUncertain):
            await client.create(BODY)
    assert len(wire.sent) == 1


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 599, 302, 204])
@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_a_get_is_repeated_with_backoff(status: int, attempts: int) -> None:
    wire = Wire(said(status, ""))
    async with wire.client(attempts=attempts) as client:
        with pytest.raises(GatewayUnavailable):
            await client.get("t1")
    assert len(wire.sent) == attempts
    assert wire.slept == [0.5, 1.0, 2.0][: attempts - 1]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 410, 422])
async def test_a_refused_get_is_not_repeated(status: int) -> None:
    wire = Wire(said(status, {"code": status, "msg": "no"}))
    async with wire.client() as client:
        with pytest.raises(SURELY_REFUSED[status]):
            await client.get("t1")
    assert len(wire.sent) == 1


async def test_a_get_that_recovers_gives_its_task() -> None:
    wire = Wire(httpx.ReadTimeout("slow"), said(502, "<html>"), said(429, "", retry_after="3"), ok())
    async with wire.client() as client:
        assert (await client.get("t1")).task_id == "t1"
    assert wire.slept == [0.5, 1.0, 3.0]


@pytest.mark.parametrize("attempt", range(1, 12))
def test_backoff_doubles_up_to_thirty_seconds_give_or_take_a_quarter(attempt: int) -> None:
    middle = min(30.0, 0.5 * 2 ** (attempt - 1))
    assert [backoff(attempt, lambda c=c: c) for c in (0.0, 0.5, 1.0)] == pytest.approx(  # type: ignore[misc]
        [middle * 0.75, middle, middle * 1.25]
    )


SLOW_DOWN = [
    said(429, {"code": 429, "msg": "slow down"}, retry_after="7"),
    said(429, {"code": 429, "msg": "parallel task over resource pack limit 1303"}, retry_after="7"),
    said(200, {"code": 1302, "msg": "slow down", "data": None}, retry_after="7"),
    said(429, "<html>", retry_after="7"),
]


@pytest.mark.parametrize("answer", SLOW_DOWN, ids=repr)
async def test_a_create_told_to_slow_down_waits_as_asked_and_is_sent_again(answer: Any) -> None:
    wire = Wire(answer, answer, ok())
    async with wire.client() as client:
        assert (await client.create(BODY)).task_id == "t1"
    assert wire.slept == [7.0, 7.0]
    assert len({request.content for request in wire.sent}) == 1


@pytest.mark.parametrize("answer", SLOW_DOWN, ids=repr)
@pytest.mark.parametrize("patience", [0.0, 6.9, 7.0, 60.0])
async def test_a_create_gives_up_within_its_patience(answer: Any, patience: float) -> None:
    wire = Wire(answer)
    async with wire.client(patience=patience) as client:
        with pytest.raises(RateLimited) as caught:
            await client.create(BODY)
    assert sum(wire.slept) <= patience
    assert len(wire.sent) == len(wire.slept) + 1
    assert (len(wire.sent) > 1) is (patience >= 7.0)
    assert all(seconds >= 7.0 for seconds in wire.slept)
    assert caught.value.retry_after == 7.0
    assert caught.value.retryable


@pytest.mark.parametrize("headers", [{}, {"retry_after": "0"}, {"retry_after": "-5"}, {"retry_after": "soon"}])
async def test_without_a_time_to_wait_the_waits_grow(headers: dict[str, str]) -> None:
    wire = Wire(said(429, {"code": 429, "msg": "slow"}, **headers))
    async with wire.client() as client:
        with pytest.raises(RateLimited):
            await client.create(BODY)
    assert wire.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]


async def test_a_longer_time_than_the_patience_is_not_waited_for() -> None:
    wire = Wire(said(429, "", retry_after="3600"))
    async with wire.client(patience=59.0) as client:
        with pytest.raises(RateLimited):
            await client.create(BODY)
    assert (len(wire.sent), wire.slept) == (1, [])


@pytest.mark.parametrize("code", [1100, 1101, 1102, 1304])
async def test_a_429_for_good_is_not_repeated(code: int) -> None:
    wire = Wire(said(429, {"code": 429, "msg": f"upstream {code}"}, retry_after="1"))
    async with wire.client() as client:
        with pytest.raises(AuthenticationFailed if code == 1304 else InsufficientCredits):
            await client.create(BODY)
    assert len(wire.sent) == 1


async def test_a_create_that_got_through_at_last_and_lost_its_answer_is_uncertain() -> None:
    wire = Wire(httpx.ConnectError("refused"), said(429, ""), httpx.ReadTimeout("slow"))
    async with wire.client() as client:
        with pytest.raises(PurchaseUncertain, match="may have accepted"):
            await client.create(BODY)
    assert len(wire.sent) == 3


async def test_a_create_without_connection_says_that_nothing_was_bought() -> None:
    async with Wire(httpx.ConnectError("refused")).client() as client:
        with pytest.raises(GatewayUnavailable, match="nothing was bought"):
            await client.create(BODY)


# --- the key ---


@pytest.mark.parametrize(
    "key",
    [
        "",
        " ",
        "\n\t",
        "sk-0123\n456789",
        "sk-0123\r\nX-Other: 1",
        "My key is sk-0123456789",
        "Bearer sk-0123456789",
        "sk-0123456789-é",
        "“sk-0123456789”",
        "sk-\u200b0123456789",
        "sk-\x000123456789",
        "sk-\x7f0123456789",
        "\ud800",
    ],
)
@pytest.mark.parametrize("secret", [False, True])
def test_what_cannot_be_a_key_is_refused_without_repeating_it(key: str, secret: bool) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        KlingClient(SecretStr(key) if secret else key)
    assert "0123" not in repr(list(chain(caught.value)))


@pytest.mark.parametrize("key", [KEY, f" {KEY}\n", f"{KEY}\r\n", SecretStr(KEY)])
async def test_a_key_pasted_with_white_space_around_it_works(key: str | SecretStr) -> None:
    wire = Wire()
    async with wire.client(key) as client:
        await client.get("t1")
    assert wire.sent[0].headers["authorization"] == f"Bearer {KEY}"


KEYS = [
    KEY,
    'sk-"quoted"-key',
    "sk-back\\slash\\\\twice\\",
    "\\leading-backslash",
    "sk/slashed/key",
    "sk-<tag>&amp;'apostrophe'",
    "sk+%41%42%/percent==",
    "sk.(a|b)*[c]{2}^$?",
    "12345678",
]
ECHOES: dict[str, Callable[[str], str]] = {
    "plain": lambda key: json.dumps(key)[1:-1],
    "slashes escaped": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "everything escaped": lambda key: "".join(f"\\u{ord(sign):04x}" for sign in key),
    "everything escaped in capitals": lambda key: "".join(f"\\u{ord(sign):04X}" for sign in key),
    "as in a URL": lambda key: json.dumps(quote(key, safe=""))[1:-1],
    "as in a page": lambda key: json.dumps(html.escape(key))[1:-1],
    "JSON in JSON": lambda key: json.dumps(json.dumps({"key": key}))[1:-1],
    "a long way in": lambda key: "x" * 485 + json.dumps(key)[1:-1],
}
PLACES: dict[str, tuple[int, str]] = {
    "msg": (400, '{"code": 400, "msg": "bad key KEY!"}'),
    "error.message": (401, '{"error": {"message": "bad key KEY!"}}'),
    "msg of an outage": (503, '{"code": 503, "msg": "KEY"}'),
    "msg of HTTP 200": (200, '{"code": 402, "msg": "KEY", "data": null}'),
    "a page": (502, "<html>KEY</html>"),
    "a page that says all is well": (200, "<html>KEY</html>"),
    "failMsg": (200, '{"code": 200, "data": {"taskId": "t1", "state": "failed", "failMsg": "key KEY"}}'),
    "failCode": (200, '{"code": 200, "data": {"taskId": "t1", "state": "failed", "failCode": "KEY"}}'),
    "param": (200, '{"code": 200, "data": {"taskId": "t1", "param": "KEY"}}'),
    "state": (200, '{"code": 200, "data": {"taskId": "t1", "state": "KEY", "model": "KEY"}}'),
    "a field's name": (200, '{"code": 200, "data": {"KEY": "t1"}}'),
    "an amount": (200, '{"code": 200, "data": {"balance": "KEY"}}'),
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("echo", ECHOES)
async def test_the_key_appears_nowhere_when_the_gateway_echoes_it(
    key: str, echo: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    caplog.set_level(logging.DEBUG)
    for status, text in PLACES.values():
        answer = said(status, text.replace("KEY", ECHOES[echo](key)), content_type=f"text/{quote(key, safe='')}")
        wire = Wire(answer)
        async with wire.client(key, attempts=2) as client:
            calls: list[Callable[[], Any]] = [
                lambda client=client: client.create(BODY),  # type: ignore[misc]
                lambda client=client: client.get("t1"),  # type: ignore[misc]
                lambda client=client: client.upload(file, media_type="image/png"),  # type: ignore[misc]
                lambda client=client: client.balance(),  # type: ignore[misc]
                lambda client=client: client.models(),  # type: ignore[misc]
            ]
            shown = [repr(client), str(client)]
            for call in calls:
                try:
                    shown.append(repr(await call()))
                except KlingError as error:
                    for part in chain(error):
                        shown += [str(part), repr(part), repr(part.args), repr(vars(part))]
        for text_ in (*shown, caplog.text, *(repr(record.__dict__) for record in caplog.records)):
            for form in (
                key,
                key[:-1],
                repr(key)[1:-1],
                quote(key, safe=""),
                html.escape(key),
                key.replace("/", "\\/"),
            ):
                assert form not in text_
        caplog.clear()


async def test_a_short_key_garbles_no_task_id() -> None:
    wire = Wire(ok({"taskId": "task-k-1", "state": "completed", "resultUrls": ["https://example.com/k.mp4"]}))
    async with wire.client("k") as client:
        task = await client.get("task-k-1")
    assert (task.task_id, task.result_urls) == ("task-k-1", ("https://example.com/k.mp4",))


async def test_a_broken_answer_that_quotes_the_key_is_told_without_it() -> None:
    parser = ValueError(f"illegal line {KEY!r}")
    error = httpx.RemoteProtocolError(f"illegal line {KEY!r}")
    error.__cause__ = parser
    for call in ("create", "get"):
        async with Wire(error).client() as client:
            with pytest.raises(KlingError) as caught:
                await (client.create(BODY) if call == "create" else client.get("t1"))
        assert KEY not in repr([(part, part.args, str(part)) for part in chain(caught.value)])
        assert "illegal line" in str(caught.value)


# --- the other calls ---


async def test_an_upload_sends_the_file_and_gives_its_public_url(tmp_path: Path) -> None:
    file = tmp_path / "first frame.png"
    file.write_bytes(b"\x89PNG and so on")
    wire = Wire(said(502, ""), ok({"publicUrl": "https://files.example.com/x.png"}))
    async with wire.client() as client:
        assert await client.upload(file, media_type="image/png") == "https://files.example.com/x.png"
    assert len(wire.sent) == 2
    for request in wire.sent:  # whole each time
        assert (request.method, request.url.path) == ("POST", "/api/v1/files")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["content-type"].startswith("multipart/form-data")
        assert b'name="file"; filename="first frame.png"' in request.content
        assert b"Content-Type: image/png\r\n" in request.content
        assert request.content.count(b"\x89PNG and so on") == 1


@pytest.mark.parametrize("data", [{}, {"publicUrl": None}, {"publicUrl": ""}, {"publicUrl": 7}, []])
async def test_an_upload_without_url_is_no_use(tmp_path: Path, data: object) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    async with Wire(ok(data)).client() as client:
        with pytest.raises(GatewayUnavailable, match=r"a\.png"):
            await client.upload(file, media_type="image/png")


async def test_an_upload_of_a_missing_file_sends_nothing(tmp_path: Path) -> None:
    wire = Wire()
    async with wire.client() as client:
        with pytest.raises(FileNotFoundError):
            await client.upload(tmp_path / "none.png", media_type="image/png")
    assert wire.sent == []


@pytest.mark.parametrize("amounts", [('"12.34"', '"20.00"', '"7.66"'), ("12.34", "20", "7.66")])
async def test_the_balance_is_exact(amounts: tuple[str, str, str]) -> None:
    wire = Wire(said(200, '{{"code": 200, "data": {{"balance": {}, "total": {}, "frozen": {}}}}}'.format(*amounts)))
    async with wire.client() as client:
        found = await client.balance()
    assert (found.balance, found.total, found.frozen) == (Decimal("12.34"), Decimal(20), Decimal("7.66"))
    assert wire.sent[0].url.path == "/api/v1/balance"


@pytest.mark.parametrize("value", [None, "much", "NaN", "Infinity", [], {}, True, ""])
async def test_a_balance_that_is_no_number_is_no_use(value: object) -> None:
    async with Wire(ok({"balance": value, "total": 1, "frozen": 0})).client() as client:
        with pytest.raises(GatewayUnavailable, match="balance"):
            await client.balance()


async def test_a_balance_left_out_is_not_nothing() -> None:
    async with Wire(ok({"credits": 5})).client() as client:
        with pytest.raises(GatewayUnavailable, match="balance"):
            await client.balance()


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        ([{"id": "kling-video-o1"}, {"id": "kling-v3-omni", "owned_by": "x"}], ("kling-video-o1", "kling-v3-omni")),
        ([], ()),
        ([{"name": "x"}, "kling-video-o1", None, {"id": 5}], ("5",)),
        ({}, ()),
        ("kling-video-o1", ()),
    ],
)
async def test_models_are_listed_by_id(data: object, ids: tuple[str, ...]) -> None:
    wire = Wire(ok(data))
    async with wire.client() as client:
        assert await client.models() == ids
    assert wire.sent[0].url.path == "/api/v1/models"


async def test_a_closed_client_holds_no_connection() -> None:
    client = Wire().client()
    await client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await client.get("t1")


def test_a_masked_key_is_told_as_such() -> None:
    with pytest.raises(AuthenticationFailed, match=r"masked.*saved block by reference.*pick the credentials again"):
        KlingClient("**********")
