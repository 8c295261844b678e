"""Fetching results: all of it or nothing, whatever the server does."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from prefect_kling.gateway import results
from prefect_kling.gateway.errors import GatewayUnavailable, InvalidMedia, KlingError, TaskNotFound
from prefect_kling.gateway.results import Fetched, fetch

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve

CLIP = bytes(range(256)) * 40  # 10,240 bytes, no two pages alike in place
OTHER = bytes(reversed(CLIP))
URL = "https://cdn.example.com/clips/a.mp4?signature=abc"
WHOLE = Fetched(len(CLIP), hashlib.sha256(CLIP).hexdigest())


class Body(httpx.AsyncByteStream):
    """A body that arrives in pieces and may break off after them."""

    def __init__(self, content: bytes, breaks: Exception | None = None) -> None:
        self.content, self.breaks = content, breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.content), 1000):
            yield self.content[start : start + 1000]
        if self.breaks is not None:
            raise self.breaks


class Origin:
    """A server of one clip. `cuts[n]`: how many bytes of answer n arrive before the line breaks; None: all of them."""

    def __init__(
        self,
        *cuts: int | None,
        content: bytes = CLIP,
        etag: str | None = '"v1"',
        ranges: bool = True,
        length: bool = True,
        breaks: type[httpx.TransportError] = httpx.ReadError,
    ) -> None:
        self.cuts, self.content, self.etag, self.ranges, self.length = cuts, content, etag, ranges, length
        self.breaks = breaks
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request, len(self.requests) - 1)

    def answer(self, request: httpx.Request, n: int) -> httpx.Response:
        status, start, headers = 200, 0, {}
        if self.etag:
            headers["etag"] = self.etag
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if asked and self.ranges and request.headers.get("if-range") == self.etag:
            status, start = 206, int(asked[1])
            headers["content-range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        part = self.content[start:]
        if self.length:
            headers["content-length"] = str(len(part))
        cut = self.cuts[min(n, len(self.cuts) - 1)] if self.cuts else None
        if cut is None:
            return httpx.Response(status, headers=headers, stream=Body(part))
        return httpx.Response(status, headers=headers, stream=Body(part[:cut], self.breaks("line cut")))

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)

    async def fetch(self, to: Path, url: str = URL, **options: Any) -> Fetched:
        return await fetch(url, to, transport=httpx.MockTransport(self), sleep=self.sleep, rand=lambda: 0.5, **options)

    @property
    def ranges_asked(self) -> list[str | None]:
        return [request.headers.get("range") for request in self.requests]


class Says(Origin):
    """A server that plays a script of responses, made anew each time; the last repeats."""

    def __init__(self, *script: Callable[[httpx.Request], httpx.Response]) -> None:
        super().__init__()
        self.script = script

    def answer(self, request: httpx.Request, n: int) -> httpx.Response:
        return self.script[min(n, len(self.script) - 1)](request)


def says(status: int, content: bytes = b"", **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: httpx.Response(status, headers=named, stream=Body(content))


def cut_after(count: int) -> Callable[[httpx.Request], httpx.Response]:
    """A whole answer of version 1, of which so many bytes arrive."""
    headers = {"etag": '"v1"', "content-length": str(len(CLIP))}
    return lambda request: httpx.Response(200, headers=headers, stream=Body(CLIP[:count], httpx.ReadError("cut")))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.mp4"


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("content", [CLIP, b"x", b""], ids=len)
async def test_a_whole_answer_is_the_file(file: Path, length: bool, content: bytes) -> None:
    origin = Origin(content=content, length=length)
    assert await origin.fetch(file) == Fetched(len(content), hashlib.sha256(content).hexdigest())
    assert file.read_bytes() == content
    assert len(origin.requests) == 1
    assert origin.slept == []


async def test_the_key_and_other_credentials_are_not_sent_along(file: Path) -> None:
    origin = Origin()
    await origin.fetch(file)
    headers = origin.requests[0].headers
    assert "authorization" not in headers
    assert "cookie" not in headers
    assert str(origin.requests[0].url) == URL
    assert headers["accept-encoding"] == "identity"


async def test_an_old_file_is_written_over(file: Path) -> None:
    file.write_bytes(b"old" * 100_000)
    assert await Origin().fetch(file) == WHOLE
    assert file.read_bytes() == CLIP


@pytest.mark.parametrize(
    "cuts", [(3000, None), (3000, 10, 5000, None), (1, 1, 1, None), (10_239, None), (3000, 0, 0, None)]
)
@pytest.mark.parametrize("breaks", [httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError])
async def test_a_broken_transfer_goes_on_where_it_stopped(
    file: Path, cuts: tuple[int | None, ...], breaks: type[httpx.TransportError]
) -> None:
    origin = Origin(*cuts, breaks=breaks)
    assert await origin.fetch(file) == WHOLE
    assert file.read_bytes() == CLIP
    have, asked = 0, []
    for cut in cuts:
        asked.append(f"bytes={have}-" if have else None)
        have += cut or 0
    assert origin.ranges_asked == asked
    assert [request.headers.get("if-range") for request in origin.requests] == [range_ and '"v1"' for range_ in asked]
    assert len(origin.slept) == len(cuts) - 1


@pytest.mark.parametrize("options", [{"ranges": False}, {"etag": None}, {"etag": 'W/"v1"'}], ids=str)
async def test_a_server_that_cannot_resume_begins_again(file: Path, options: dict[str, Any]) -> None:
    origin = Origin(3000, 2000, None, **options)
    assert await origin.fetch(file) == WHOLE
    assert file.read_bytes() == CLIP


async def test_two_versions_are_never_mixed_where_the_server_honours_if_range(file: Path) -> None:
    origin = Says(cut_after(5000), says(200, OTHER, etag='"v2"', content_length=str(len(OTHER))))
    assert (await origin.fetch(file)).sha256 == hashlib.sha256(OTHER).hexdigest()
    assert file.read_bytes() == OTHER
    assert origin.ranges_asked == [None, "bytes=5000-"]


async def test_two_versions_are_never_mixed_where_it_does_not(file: Path) -> None:
    mixed = says(206, OTHER[5000:], etag='"v2"', content_range=f"bytes 5000-{len(CLIP) - 1}/{len(CLIP)}")
    origin = Says(cut_after(5000), mixed, says(200, OTHER, etag='"v2"', content_length=str(len(OTHER))))
    await origin.fetch(file)
    assert file.read_bytes() == OTHER
    assert origin.ranges_asked == [None, "bytes=5000-", None]


async def test_a_second_break_resumes_the_newer_version(file: Path) -> None:
    newer = {"etag": '"v2"', "content-length": str(len(OTHER))}
    origin = Says(
        cut_after(5000),
        lambda request: httpx.Response(200, headers=newer, stream=Body(OTHER[:2000], httpx.ReadError("cut"))),
        says(206, OTHER[2000:], etag='"v2"', content_range=f"bytes 2000-{len(CLIP) - 1}/{len(CLIP)}"),
    )
    await origin.fetch(file)
    assert file.read_bytes() == OTHER
    assert origin.requests[2].headers["if-range"] == '"v2"'


def part(start: int, end: int, whole: str = str(len(CLIP))) -> Callable[[httpx.Request], httpx.Response]:
    return says(
        206,
        CLIP[start : end + 1],
        etag='"v1"',
        content_range=f"bytes {start}-{end}/{whole}",
        content_length=str(end + 1 - start),
    )


async def test_a_part_that_ends_before_the_whole_does_is_not_taken_for_it(file: Path) -> None:
    origin = Says(cut_after(2000), part(2000, 3999), part(4000, 10_239))
    assert await origin.fetch(file) == WHOLE
    assert origin.ranges_asked == [None, "bytes=2000-", "bytes=4000-"]


async def test_a_part_that_nobody_asked_for_is_not_taken_for_the_whole(file: Path) -> None:
    origin = Says(part(0, 4999), part(5000, 10_239))
    assert await origin.fetch(file) == WHOLE


@pytest.mark.parametrize(
    "odd",
    [
        part(4000, 10_239),
        part(100, 5000),
        part(0, 999),
        says(206, CLIP[2000:], etag='"v1"'),
        says(206, CLIP[2000:], etag='"v1"', content_range="pages 2-3/4"),
        says(206, CLIP[2000:], etag='"v1"', content_range="bytes */10240"),
        says(206, b"--x\r\n", etag='"v1"', content_type="multipart/byteranges; boundary=x"),
        says(416, etag='"v1"', content_range="bytes */100"),
    ],
)
async def test_a_part_of_another_place_is_never_joined_on(
    file: Path, odd: Callable[[httpx.Request], httpx.Response]
) -> None:
    origin = Says(cut_after(2000), odd, Origin())
    assert await origin.fetch(file) == WHOLE
    assert file.read_bytes() == CLIP


async def test_a_place_that_the_server_does_not_have_is_not_asked_for_again(file: Path) -> None:
    origin = Says(cut_after(2000), says(416, etag='"v1"'), Origin())
    assert await origin.fetch(file) == WHOLE
    assert origin.ranges_asked == [None, "bytes=2000-", None]


async def test_a_part_of_a_whole_of_unknown_length_reaches_to_its_end(file: Path) -> None:
    assert await Says(cut_after(2000), part(2000, 10_239, "*")).fetch(file) == WHOLE


async def test_an_encoded_answer_is_decoded_and_never_resumed(file: Path) -> None:
    packed = gzip.compress(CLIP)
    headers = {"etag": '"v1"', "content-encoding": "gzip", "content-length": str(len(packed))}
    origin = Says(
        lambda request: httpx.Response(200, headers=headers, stream=Body(packed[:300], httpx.ReadError("cut"))),
        lambda request: httpx.Response(200, headers=headers, stream=Body(packed)),
    )
    assert await origin.fetch(file) == WHOLE
    assert origin.ranges_asked == [None, None]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408, 400, 204 + 100])
async def test_a_server_in_trouble_is_asked_again(file: Path, status: int) -> None:
    origin = Says(says(status, b"trouble"), says(status, b"trouble"), Origin())
    assert await origin.fetch(file) == WHOLE
    assert origin.slept == [0.5, 1.0]


async def test_trouble_in_the_middle_keeps_what_has_arrived(file: Path) -> None:
    origin = Says(cut_after(5000), says(503, b"a page that is no clip"), part(5000, 10_239))
    assert await origin.fetch(file) == WHOLE
    assert origin.ranges_asked == [None, "bytes=5000-", "bytes=5000-"]


async def test_more_bytes_than_were_said_are_not_resumed_from(file: Path) -> None:
    origin = Says(says(200, CLIP, etag='"v1"', content_length="5000"), Origin())
    assert await origin.fetch(file) == WHOLE
    assert origin.ranges_asked == [None, None]


async def test_a_redirect_is_followed(file: Path) -> None:
    origin = Says(says(302, location="https://mirror.example.com/b.mp4"), Origin())
    assert await origin.fetch(file) == WHOLE
    assert [request.url.host for request in origin.requests] == ["cdn.example.com", "mirror.example.com"]
    assert all("authorization" not in request.headers for request in origin.requests)


HOPELESS: dict[str, Callable[[], Origin]] = {
    "never a byte": lambda: Origin(0),
    "always the same part, no ranges": lambda: Origin(5000, ranges=False),
    "now less, now more, no ranges": lambda: Origin(*[5000, 4000] * 50, ranges=False),
    "no connection": lambda: Origin(0, breaks=httpx.ConnectError),
    "an outage": lambda: Says(says(503)),
    "an answer shorter than it says": lambda: Says(says(200, CLIP[:5000], content_length=str(len(CLIP)))),
    "an answer longer than it says": lambda: Says(says(200, CLIP, content_length="5000")),
    "a part of another place for ever": lambda: Says(cut_after(2000), part(4000, 10_239)),
    "parts without place": lambda: Says(says(206, CLIP)),
    "a redirect to itself": lambda: Says(says(302, location=URL)),
    "a redirect to nowhere": lambda: Says(says(302, location="gopher://example.com/")),
    "a broken redirect": lambda: Says(says(302, location="http://[::1")),
    "broken gzip": lambda: Says(says(200, CLIP, content_encoding="gzip")),
    "not modified": lambda: Says(says(304)),
}


@pytest.mark.parametrize("kind", HOPELESS)
async def test_a_transfer_that_gets_nowhere_is_given_up_and_leaves_nothing(file: Path, kind: str) -> None:
    origin = HOPELESS[kind]()
    with pytest.raises(GatewayUnavailable) as caught:
        await origin.fetch(file, attempts=4)
    assert caught.value.retryable
    assert 3 <= len(origin.slept) <= 4
    assert list(file.parent.iterdir()) == []
    assert "signature" not in str(caught.value)


@pytest.mark.parametrize("attempts", [1, 2, 6])
async def test_it_is_given_up_after_so_many_fruitless_attempts(file: Path, attempts: int) -> None:
    origin = Origin(0)
    with pytest.raises(GatewayUnavailable):
        await origin.fetch(file, attempts=attempts)
    assert len(origin.requests) == attempts
    assert origin.slept == [0.5, 1.0, 2.0, 4.0, 8.0][: attempts - 1]


async def test_attempts_are_counted_anew_after_each_new_byte(file: Path) -> None:
    origin = Origin(*[500] * 20, None)
    assert await origin.fetch(file, attempts=2) == WHOLE


@pytest.mark.parametrize("status", [401, 403, 404, 410])
@pytest.mark.parametrize("begun", [False, True])
async def test_what_is_gone_is_not_asked_for_again_and_leaves_nothing(file: Path, status: int, begun: bool) -> None:
    origin = Says(*([cut_after(5000)] if begun else []), says(status, b"gone"))
    with pytest.raises(TaskNotFound) as caught:
        await origin.fetch(file)
    assert (caught.value.status, caught.value.retryable) == (status, False)
    assert len(origin.requests) == 1 + begun
    assert list(file.parent.iterdir()) == []


async def test_what_says_it_is_too_large_is_not_even_begun(file: Path) -> None:
    origin = Says(says(200, b"x", content_length=str(3 * 1024**3)))
    with pytest.raises(InvalidMedia, match="larger than 2 GiB"):
        await origin.fetch(file)
    assert len(origin.requests) == 1
    assert list(file.parent.iterdir()) == []


async def test_what_turns_out_too_large_is_dropped(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_RESULT_BYTES", 5000)
    with pytest.raises(InvalidMedia):
        await Origin(length=False).fetch(file)
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize("url", ["http://[::1", "https://exa\x00mple.com/", "http://example.com:abc/", "https://xn--/"])
async def test_a_url_that_is_none_is_a_kling_error_and_leaves_nothing(file: Path, url: str) -> None:
    with pytest.raises(KlingError):
        await Origin().fetch(file, url)
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize("url", ["", "/srv/a.mp4", "file:///etc/hostname", "ftp://example.com/a.mp4"])
async def test_a_url_of_another_kind_is_a_kling_error_and_leaves_nothing(file: Path, url: str) -> None:
    with pytest.raises(GatewayUnavailable):
        await fetch(url, file, sleep=Origin().sleep)
    assert list(file.parent.iterdir()) == []


async def test_a_missing_folder_is_the_callers_error_before_anything_is_asked(tmp_path: Path) -> None:
    origin = Origin()
    with pytest.raises(FileNotFoundError):
        await origin.fetch(tmp_path / "none" / "a.mp4")
    assert origin.requests == []


async def test_a_place_that_cannot_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "a.mp4"
    folder.mkdir()
    origin = Origin()
    with pytest.raises(IsADirectoryError):
        await origin.fetch(folder)
    assert folder.is_dir()
    assert origin.requests == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
async def test_a_full_disk_is_an_os_error_and_is_not_tried_again(file: Path) -> None:
    file.symlink_to("/dev/full")
    origin = Origin()
    with pytest.raises(OSError, match="No space left"):
        await origin.fetch(file)
    assert len(origin.requests) == 1
    assert list(file.parent.iterdir()) == []


async def test_a_cancelled_transfer_leaves_nothing(file: Path) -> None:
    begun = asyncio.Event()

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield CLIP
            begun.set()
            await asyncio.Event().wait()

    fetching = asyncio.ensure_future(Says(lambda request: httpx.Response(200, stream=Endless())).fetch(file))
    await begun.wait()
    assert file.stat().st_size == len(CLIP)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert list(file.parent.iterdir()) == []


async def test_a_transfer_cancelled_between_attempts_leaves_nothing(file: Path) -> None:
    async def cancelled(seconds: float) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await fetch(URL, file, transport=httpx.MockTransport(Origin(5000)), sleep=cancelled)
    assert list(file.parent.iterdir()) == []


async def test_a_line_cut_anywhere_over_a_real_connection_loses_no_byte(
    file: Path, serve: Serve, answer: Callable[..., bytes]
) -> None:
    whole = answer(CLIP, etag='"v1"')
    head = len(whole) - len(CLIP)
    rest = answer(CLIP[7777:], 206, etag='"v1"', content_range=f"bytes 7777-{len(CLIP) - 1}/{len(CLIP)}")
    server = await serve((whole[: head + 7777], "close"), (rest,))
    assert await fetch(f"{server.url}/a.mp4", file, sleep=Origin().sleep) == WHOLE
    assert b"Range: bytes=7777-\r\n" in server.requests[1]
    assert all(b"uthorization" not in request for request in server.requests)
