"""The HTTP client of the gateway: five calls, and no repeat that could pay twice.

GETs are repeated after trouble. The POST that buys is repeated only where it surely never arrived, or was surely turned
away for now (429); everything else after its first byte left is `PurchaseUncertain` (gateway.md: no idempotency key).
"""

from __future__ import annotations

import asyncio
import functools
import html
import logging
import random
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
from pydantic import SecretStr

from prefect_kling.gateway.addresses import is_loopback_url
from prefect_kling.gateway.answers import Task, read_data, read_task
from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    InvalidRequest,
    KlingError,
    PurchaseUncertain,
    RateLimited,
)
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.gateway.sharing import SharedClient

__all__ = ["CREATE_SECONDS", "DEFAULT_BASE_URL", "Balance", "KlingClient", "backoff", "never_sent", "tls"]

DEFAULT_BASE_URL: Final = "https://apimodels.app/api/v1"
CREATE_SECONDS: Final = 60.0
"""A create is over after this, whatever happens; the ledger's lease is longer."""

_TIMEOUT: Final = httpx.Timeout(connect=10.0, pool=10.0, write=30.0, read=50.0)
_UPLOAD_TIMEOUT: Final = httpx.Timeout(connect=10.0, pool=10.0, write=120.0, read=120.0)
_LOST: Final = (
    "The answer to a create was lost ({}). The gateway may have accepted it, and then bills for it. It is not sent "
    "again by itself: look at the account's tasks before buying this video once more."
)
_logger = logging.getLogger(__name__)


class Balance:
    """Credits of the account in USD: `balance` can be spent, `frozen` is held for running tasks, `total` is both."""

    def __init__(self, balance: Decimal, total: Decimal, frozen: Decimal) -> None:
        self.balance, self.total, self.frozen = balance, total, frozen


def backoff(attempt: int, rand: Callable[[], float]) -> float:
    """Seconds to wait before repeat number `attempt` (from 1): 0.5, 1, 2 … up to 30, give or take a quarter."""
    return float(min(0.5 * 2 ** (attempt - 1), 30.0) * (0.75 + 0.5 * rand()))


def never_sent(error: httpx.TransportError) -> bool:
    """Whether a request that ended in `error` surely never left this machine: no connection was there to carry it."""
    return isinstance(
        error,
        httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError | httpx.UnsupportedProtocol,
    )


class KlingClient:
    """Talks to the gateway (gateway.md). Use it as `async with KlingClient(key) as client`.

    Args:
        api_key: sent as a bearer token; appears in no text this class makes.
        base_url: as `APIMODELS_BASE_URL`; a loopback address permits loopback URLs in requests.
        transport: an httpx transport in place of the network, for tests.
        attempts: how often a call is tried that can safely be repeated.
        patience: seconds during which a create that meets 429 is repeated.
        logger: where a request's warnings go, each once.
        sleep, rand, clock: time and chance, for tests; `clock` counts seconds.

    Raises:
        AuthenticationFailed: the key is empty or cannot be an HTTP header.
    """

    def __init__(
        self,
        api_key: str | SecretStr,
        *,
        base_url: str = DEFAULT_BASE_URL,
        transport: httpx.AsyncBaseTransport | None = None,
        attempts: int = 4,
        patience: float = 60.0,
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = _logger,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key = (api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key).strip()
        if not self._key:
            raise AuthenticationFailed("There is no API key: set APIMODELS_API_KEY or fill in the credentials block")
        if set(self._key) == {"*"}:
            raise AuthenticationFailed(
                "The API key is masked: what Prefect stored of a studio given by value has no key. Give the flow a "
                "saved block by reference, or no studio at all, and run it anew; or its block was edited in Prefect's "
                "form: open it, pick the credentials again, and save"
            )
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise AuthenticationFailed("The API key has characters that no key has; was something else pasted?")
        self._echo = _echo(self._key)
        self.base_url = _checked_base(base_url)
        self.loopback = is_loopback_url(self.base_url)
        self._attempts = attempts
        self._patience = patience
        self._logger = logger
        self._sleep, self._rand, self._clock = sleep, rand, clock
        self._warned: set[str] = set()
        self._closed = False
        self._common: dict[str, Any] = {
            "transport": transport,
            "timeout": _TIMEOUT,
            "headers": {"Authorization": f"Bearer {self._key}", "Accept": "application/json"},
            # A proxy for the world outside has no way to this machine's own loopback.
            "trust_env": not self.loopback,
            "verify": tls(),
        }

    # Each is made when it is first needed: that takes longer than a call.
    @functools.cached_property
    def _calls(self) -> SharedClient:
        self._check_open()
        return SharedClient.borrow((self.base_url, self._key, self._common["transport"]), self._common)

    @functools.cached_property
    def _creates(self) -> httpx.AsyncClient:
        self._check_open()
        # A kept connection may be dead, and a POST written to it would leave us guessing: creates connect anew.
        return httpx.AsyncClient(**self._common, limits=httpx.Limits(max_keepalive_connections=0))

    def get_ready(self) -> None:
        """Makes what a create needs. Whoever writes down that one is about to be sent does this before.

        Raises:
            ValueError, ImportError, OSError: no connection can be made as the environment says, such as by its proxy.
        """
        self._creates  # noqa: B018 - a cached property, made now

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    def __repr__(self) -> str:
        return f"KlingClient(base_url={self.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes its connections."""
        self._closed = True
        if "_calls" in vars(self):
            await vars(self).pop("_calls").give_back()
        if "_creates" in vars(self):
            await vars(self).pop("_creates").aclose()

    def validate(self, body: Mapping[str, Any] | OmniVideoRequest) -> OmniVideoRequest:
        """The request that `body` says, checked for this gateway: loopback URLs pass only where it is on loopback.

        Raises:
            InvalidRequest: with every rule that the body breaks.
        """
        from pydantic import ValidationError

        fields = body.model_dump(exclude_none=True) if isinstance(body, OmniVideoRequest) else dict(body)
        try:
            return OmniVideoRequest.model_validate(fields, context={"loopback": self.loopback})
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ") for e in error.errors())
            raise InvalidRequest(f"The request was not sent, since the gateway would refuse it: {said}") from None

    async def create(self, request: OmniVideoRequest | Mapping[str, Any]) -> Task:
        """Buys one video: `POST /video/generations`.

        Every call of this method may cost money. Inside one call the POST is repeated only after a 429 or where the
        connection could not be made.

        Raises:
            InvalidRequest, AuthenticationFailed, InsufficientCredits: the gateway said no; nothing was bought.
            RateLimited, GatewayUnavailable: it surely bought nothing and may be called again.
            PurchaseUncertain: the task may exist; do not simply call again.
        """
        checked = self.validate(request)
        for warning in checked.warnings():
            if warning not in self._warned:
                self._warned.add(warning)
                self._logger.warning("%s", warning)
        body = checked.body()
        begun, attempt = self._clock(), 0
        while True:
            attempt += 1
            try:
                return await self._create_once(body)
            except RateLimited as error:
                delay = self._pause(attempt, error)
                if self._clock() - begun + delay > self._patience:
                    raise
            except GatewayUnavailable:
                if attempt >= self._attempts:
                    raise
                delay = self._pause(attempt)
            await self._sleep(delay)

    async def _create_once(self, body: dict[str, Any]) -> Task:
        try:
            async with asyncio.timeout(CREATE_SECONDS):
                response = await self._creates.post(f"{self.base_url}/video/generations", json=body)
        except httpx.TransportError as error:
            self._hide_in(error)
            if never_sent(error):
                raise GatewayUnavailable(
                    f"The gateway at {self.base_url} cannot be reached ({_said(error)}); nothing was bought"
                ) from error
            raise PurchaseUncertain(_LOST.format(_said(error))) from error
        except (httpx.DecodingError, TimeoutError) as error:
            raise PurchaseUncertain(_LOST.format(_said(error))) from error
        try:
            return read_task(self._read(response))
        except GatewayUnavailable as error:
            raise PurchaseUncertain(_LOST.format(error), status=response.status_code, code=error.code) from error

    async def get(self, task_id: str) -> Task:
        """How a task stands: `GET /video/generations?task_id=`.

        Raises:
            TaskNotFound: the gateway does not know it.
            KlingError: as the tree in `errors` says, after repeating what can be repeated.
        """
        return read_task(await self._get("/video/generations", task_id=task_id))

    async def upload(self, file: Path, *, media_type: str) -> str:
        """Hosts a local file for 7 days: `POST /files`; costs nothing, so it is repeated after trouble.

        Returns:
            Its public URL.
        """

        async def send() -> dict[str, Any]:
            with file.open("rb") as stream:
                return self._read(
                    await self._calls.client.post(
                        f"{self.base_url}/files",
                        files={"file": (file.name, stream, media_type)},
                        timeout=_UPLOAD_TIMEOUT,
                    )
                )

        data = await self._repeat(send)
        url = data.get("publicUrl")
        if not isinstance(url, str) or not url:
            raise GatewayUnavailable(f"The gateway took {file.name} but named no URL for it")
        return url

    async def balance(self) -> Balance:
        """What the account has: `GET /balance`."""
        data = await self._get("/balance")
        try:
            amounts = [Decimal(str(data.get(name))) for name in ("balance", "total", "frozen")]
        except InvalidOperation as error:
            raise GatewayUnavailable("The gateway's balance is no number", status=200) from error
        if not all(amount.is_finite() for amount in amounts):
            raise GatewayUnavailable("The gateway's balance is no number", status=200)
        return Balance(*amounts)

    async def models(self) -> tuple[str, ...]:
        """The ids of the models it offers: `GET /models`."""
        entries = (await self._get("/models")).get("data")
        listed = entries if isinstance(entries, list) else []
        return tuple(str(entry["id"]) for entry in listed if isinstance(entry, dict) and "id" in entry)

    async def _get(self, path: str, **params: str) -> dict[str, Any]:
        async def send() -> dict[str, Any]:
            return self._read(await self._calls.client.get(f"{self.base_url}{path}", params=params))

        return await self._repeat(send)

    async def _repeat(self, send: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await send()
            except (httpx.TransportError, httpx.DecodingError) as error:
                self._hide_in(error)
                failure: KlingError = GatewayUnavailable(
                    f"The gateway at {self.base_url} cannot be reached ({_said(error)})"
                )
                failure.__cause__ = error
            except (RateLimited, GatewayUnavailable) as error:
                failure = error
            if attempt >= self._attempts:
                raise failure
            await self._sleep(self._pause(attempt, failure))

    def _pause(self, attempt: int, failure: KlingError | None = None) -> float:
        asked = failure.retry_after if isinstance(failure, RateLimited) else None
        # Never less than the backoff: `Retry-After: 0` is no leave to knock without a pause.
        return max(backoff(attempt, self._rand), asked or 0.0)

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        # The gateway may echo what it was sent; the key leaves here before anything can quote it.
        text = self._hide(response.content.decode("utf-8", "replace"))  # JSON is UTF-8, whatever the headers claim
        headers = {name: self._hide(value) for name, value in response.headers.items()}
        return read_data(response.status_code, headers, text, now=datetime.now(UTC))

    def _hide(self, text: str) -> str:
        return self._echo.sub("***", text) if self._echo else text

    def _hide_in(self, error: BaseException | None) -> None:
        """A broken answer is quoted by the errors about it, down to the parser's."""
        while error is not None:
            error.args = tuple(self._hide(part) if isinstance(part, str) else part for part in error.args)
            error = error.__cause__ or error.__context__


def _echo(key: str) -> re.Pattern[str] | None:
    """What the key looks like where it is quoted: plain, or with signs escaped as JSON, URLs and HTML do.

    What is shorter than eight signs is no secret, and hiding it would garble task ids and field names.
    """
    if len(key) < 8:
        return None
    signs = []
    for sign in key:
        code = f"{ord(sign):02x}"
        # Any number of backslashes: JSON is quoted inside JSON (`param`, `resultJson`).
        forms = [r"\\+" if sign == "\\" else rf"\\*{re.escape(sign)}", rf"(?i:\\+u00{code})", f"(?i:%{code})"]
        if html.escape(sign) != sign:
            forms.append(re.escape(html.escape(sign)))
        signs.append(f"(?:{'|'.join(forms)})")
    return re.compile("".join(signs))


@functools.lru_cache(maxsize=16)
def _checked_base(url: str) -> str:
    base = url.strip().rstrip("/")
    try:
        parts = httpx.URL(base)
        whole = parts.host and 0 < (parts.port or 1) < 65536 and not any(sign.isspace() for sign in base)
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidRequest(f"The gateway's base URL is no URL: {error}") from None
    if parts.userinfo:
        raise InvalidRequest("The gateway's base URL may hold no user name and password: the key is what it asks for")
    if parts.scheme not in ("http", "https") or not whole or parts.query or parts.fragment:
        raise InvalidRequest(f"The gateway's base URL has to look like {DEFAULT_BASE_URL}, not {base[:80]!r}")
    return base


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@functools.cache
def tls() -> ssl.SSLContext:
    """Reading the certificates takes tens of milliseconds: once a process, not once a client."""
    return httpx.create_ssl_context()
