"""What a run needs, looked at piece by piece before there is a run: all at once, each for a bounded time.

Nothing is bought, and what is written is removed again; only a ledger that is not there yet is made, as a run would.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import httpx

from prefect_kling.clips import ClipStorage, without_password
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import AuthenticationFailed, KlingError, LedgerUnavailable, TaskNotFound
from prefect_kling.settings import StudioSettings

__all__ = ["Finding", "examine", "kept_apart", "money_finding"]

SECONDS: Final = 12.0
"""All looks are over after so long, which with a process's start and end makes 15 s."""
LOW_USD: Final = Decimal(1)
_ENCODERS: Final = ("libx264", "aac")
_FILTERS: Final = ("blackdetect", "freezedetect")
_SETTING: Final = "PREFECT_INTEGRATIONS_KLING_"
_SHORTEST_SECRET: Final = 4
_PATIENCE: Final = 3.0


@dataclass(frozen=True)
class Finding:
    """What a look gave.

    Attributes:
        name: of what was looked at.
        state: a run goes well with it, goes with it for now, or fails on it.
        said: what was found, for an operator.
        do: what to do about it; empty where it is ok.
        cause: what a failure is about, where an exit code tells it from others.
    """

    name: str
    state: Literal["ok", "warning", "failed"]
    said: str
    do: str = ""
    cause: Literal["", "key", "credits"] = ""


Look = tuple[tuple[str, ...], str, Callable[[], Awaitable[list[Finding]]]]
"""The names of its findings, what to do where it gives none, and the look itself."""


async def examine(settings: StudioSettings | None, *, seconds: float = SECONDS) -> list[Finding]:
    """Looks at all that a run needs.

    Args:
        settings: of the studio; None where they cannot be had, and then only at what does not depend on them.
        seconds: after which what has not answered is given up.
    """
    # What hangs in a driver cannot be ended, and must not keep this process from its end.
    asyncio.get_running_loop().set_default_executor(_Daemons())
    looks: list[Look] = [
        (("ffmpeg",), "install it anew: pip install --force-reinstall imageio-ffmpeg", _ffmpeg),
        (("av",), "install it anew: pip install --force-reinstall av", _av),
        (("server",), "see whether the Prefect server at PREFECT_API_URL is well", _server),
    ]
    if settings is not None:
        at_hand = settings
        looks = [
            (("key", "balance"), "see whether this machine reaches the gateway", lambda: _account(at_hand)),
            (("ledger",), "see whether the database is well and can be reached", lambda: _ledger(at_hand)),
            (("storage",), "see whether the storage is well and can be reached", lambda: _storage(at_hand)),
            (("journal",), "see whether the disk of PREFECT_HOME is well", lambda: _journal(at_hand.home)),
            *looks,
            (("receiver",), "see whether the callback address is right", lambda: _receiver(at_hand)),
        ]
    found = await asyncio.gather(*(_looked(*look, seconds) for look in looks))
    secrets = () if settings is None else _secrets(settings)
    return [kept_apart(finding, secrets) for findings in found for finding in findings]


async def _looked(
    names: tuple[str, ...], do: str, look: Callable[[], Awaitable[list[Finding]]], seconds: float
) -> list[Finding]:
    try:
        async with asyncio.timeout(seconds):
            return await look()
    except TimeoutError:
        said = f"no answer within {seconds:g} s"
    except Exception as error:  # noqa: BLE001 - drivers raise what they like, and the other looks go on
        said = f"{type(error).__name__}: {error}"
    return [Finding(name, "failed", said, do) for name in names]


# The account.


async def _account(settings: StudioSettings) -> list[Finding]:
    try:
        client = KlingClient(settings.api_key, base_url=settings.base_url, attempts=1)
    except KlingError as error:
        if not isinstance(error, AuthenticationFailed):
            return [Finding("key", "failed", str(error), "set APIMODELS_BASE_URL right"), _not_known("nobody is asked")]
        do = "set APIMODELS_API_KEY, or fill in the credentials block"
        said = str(error) if settings.api_key.get_secret_value().strip() else "there is no API key"
        return [Finding("key", "failed", said, do, "key"), _not_known("there is no key that could ask for it")]
    async with client:
        try:
            balance = await client.balance()
        except AuthenticationFailed as error:
            do = "put a key in its place that the gateway knows, or ask the gateway what this one may do"
            return [
                Finding("key", "failed", str(error), do, "key"),
                _not_known("the gateway tells it to those with a key"),
            ]
        except TaskNotFound as error:
            # Not every gateway has to have this call; runs go without it.
            do = "a run will show it: the gateway has no call that would"
            return [Finding("key", "warning", f"it could not be tried: {error}", do), _not_known(str(error))]
        except KlingError as error:
            # An answer that says nothing was given to a key that was accepted; any other tells nothing of the key.
            if error.status == 200:
                return [_accepted(client), _not_known(str(error))]
            do = "see whether this machine reaches the gateway, and whether APIMODELS_BASE_URL is right"
            return [Finding("key", "failed", str(error), do), _not_known("the gateway gives no answer")]
    return [_accepted(client), money_finding(balance.balance, balance.frozen)]


def _accepted(client: KlingClient) -> Finding:
    return Finding("key", "ok", f"accepted by the gateway at {client.base_url}")


def _not_known(why: str) -> Finding:
    return Finding("balance", "warning", f"it is not known: {why}", "look at the account's page at the gateway")


def money_finding(balance: Decimal, frozen: Decimal) -> Finding:
    """What an account's money means for a run.

    Args:
        balance: USD that can be spent.
        frozen: USD held for what runs.
    """
    said = f"{balance:.2f} USD can be spent" + (f", {frozen:.2f} USD are held for running tasks" if frozen else "")
    if balance <= 0:
        return Finding("balance", "failed", said, "top the account up; until then nothing is sold to it", "credits")
    if balance < LOW_USD:
        return Finding("balance", "warning", said, "top the account up; that is a few clips at most")
    return Finding("balance", "ok", said)


# What a studio keeps.


async def _ledger(settings: StudioSettings) -> list[Finding]:
    from sqlalchemy import select, update
    from sqlalchemy.ext.asyncio import AsyncConnection

    from prefect_kling.ledger.database import Database
    from prefect_kling.ledger.schema import HEAD, this_ledger
    from prefect_kling.ledger.upgrade import up_to_date

    async def reach(connection: AsyncConnection) -> None:
        await connection.execute(select(db.now))

    async def write(connection: AsyncConnection) -> None:
        await connection.execute(update(this_ledger).values(id=this_ledger.c.id))

    do = f"set {_SETTING}LEDGER_URL, or the studio's Ledger URL, to a database that can be reached and written"
    try:
        db = Database(settings.ledger_url.get_secret_value())
        try:
            # A run waits two minutes for a ledger; who asks what is wrong has less time.
            await db.read(reach, patience=_PATIENCE)
            await up_to_date(db)
            await db.write(write, patience=_PATIENCE)
        finally:
            await db.close()
    except KlingError as error:
        return [Finding("ledger", "failed", str(error), do)]
    return [Finding("ledger", "ok", f"{db.shown} can be read and written; its tables are at version {HEAD}")]


async def _storage(settings: StudioSettings) -> list[Finding]:
    shown = without_password(settings.storage_url)
    try:
        storage = await asyncio.to_thread(ClipStorage, settings.storage_url, settings.storage_options)
        await storage.check()
    except (KlingError, OSError) as error:
        do = f"make it writable, or set {_SETTING}STORAGE_URL, or the studio's Storage URL and its options, right"
        said = str(error) if shown in str(error) else f"{shown} cannot be written: {error}"
        return [Finding("storage", "failed", said, do)]
    return [Finding("storage", "ok", f"a file could be written to {shown} and removed")]


async def _journal(home: Path) -> list[Finding]:
    def write() -> None:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home, prefix=".check-"):
            pass
        answers = home / "answers.jsonl"
        if answers.exists():
            with answers.open("ab"):
                pass

    try:
        await asyncio.to_thread(write)
    except OSError as error:
        do = (
            "make the folder writable, or set PREFECT_HOME to one that is: what the gateway answers is kept there first"
        )
        return [Finding("journal", "failed", f"{home} cannot be written: {error}", do)]
    return [Finding("journal", "ok", f"{home} can be written")]


async def _receiver(settings: StudioSettings) -> list[Finding]:
    from prefect_kling.callbacks.addresses import binding_of, callback_base

    try:
        base, binding = callback_base(settings), binding_of(settings)
    except KlingError as error:
        do = f"set {_SETTING}CALLBACK_BASE_URL and {_SETTING}RECEIVE_ON, or the studio's fields, right"
        return [Finding("receiver", "failed", str(error), do)]
    if not base:
        said = "no callback address is set: shots are polled" if binding is None else "a run receives its calls itself"
        return [Finding("receiver", "ok", said)]
    if binding is not None:
        said = f"a run receives its calls itself, on {settings.receive_on}, as a proxy passes them on from {base}"
        return [Finding("receiver", "ok", said)]
    until = "; until then shots are polled, see docs/callbacks.md"
    try:
        async with httpx.AsyncClient(timeout=_PATIENCE) as client:
            answer = await client.get(f"{base}/health")
    except httpx.HTTPError as error:
        said = f"{base} does not answer from here: {str(error) or type(error).__name__}"
        return [Finding("receiver", "warning", said, f"start it (prefect-kling receive){until}")]
    mark = _mark_in(answer)
    if mark is None:
        said = f"{base}/health answers {answer.status_code}, and not as a receiver in good health"
        do = "see whether the receiver runs and can use its ledger, and whether the address ends with its /kling path"
        return [Finding("receiver", "warning", said, do + until)]
    try:
        ours = await _mark_of_ledger(settings)
    except LedgerUnavailable:
        said = f"{base} answers; whether it writes to the ledger of runs is not known while that cannot be used"
        return [Finding("receiver", "warning", said, "see what is said of the ledger")]
    if mark != ours:
        said = f"{base} answers, and writes to another ledger than runs do"
        return [Finding("receiver", "warning", said, f"give the receiver the ledger URL that runs have{until}")]
    return [Finding("receiver", "ok", f"{base} answers, and writes to the same ledger")]


def _mark_in(answer: httpx.Response) -> str | None:
    """Which ledger a receiver in good health writes to; None where it is none."""
    try:
        health = answer.json() if answer.status_code == httpx.codes.OK else None
    except ValueError:
        return None
    mark = health.get("ledger") if isinstance(health, dict) else None
    return mark if isinstance(mark, str) else None


async def _mark_of_ledger(settings: StudioSettings) -> str:
    from prefect_kling.callbacks.marks import ledger_mark
    from prefect_kling.ledger.database import Database
    from prefect_kling.ledger.upgrade import up_to_date

    db = Database(settings.ledger_url.get_secret_value())
    try:
        return ledger_mark(await up_to_date(db))
    finally:
        await db.close()


# What this machine has.


async def _ffmpeg() -> list[Finding]:
    import imageio_ffmpeg

    from prefect_kling.media.processes import run

    do = "install it anew: pip install --force-reinstall imageio-ffmpeg; IMAGEIO_FFMPEG_EXE, where set, names another"
    lines: list[str] = []
    try:
        program = await asyncio.to_thread(imageio_ffmpeg.get_ffmpeg_exe)
        for what in ("-version", "-encoders", "-filters"):
            ended = await run([program, "-hide_banner", what], timeout=SECONDS, on_line=lines.append)
            if ended.status != 0:
                return [Finding("ffmpeg", "failed", f"{program} {what} {ended.why}", do)]
    except (RuntimeError, OSError) as error:
        return [Finding("ffmpeg", "failed", f"it cannot be run: {error}", do)]
    # A line of either list is: flags, a name, what it is for.
    names = {line.split()[1] for line in lines if len(line.split()) > 1}
    missing = [name for name in (*_ENCODERS, *_FILTERS) if name not in names]
    version = lines[0].partition(" Copyright")[0]
    if missing:
        return [Finding("ffmpeg", "failed", f"{version} lacks {', '.join(missing)}", do)]
    return [Finding("ffmpeg", "ok", f"{version}, with {', '.join((*_ENCODERS, *_FILTERS))}")]


async def _av() -> list[Finding]:
    def version() -> str:
        import av

        return str(av.__version__)

    try:
        return [Finding("av", "ok", f"av {await asyncio.to_thread(version)}")]
    except ImportError as error:
        do = "install it anew: pip install --force-reinstall av"
        return [Finding("av", "failed", f"it cannot be imported: {error}", do)]


async def _server() -> list[Finding]:
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None:
        return [Finding("server", "ok", "PREFECT_API_URL is not set: a run starts a temporary Prefect server")]
    shown = without_password(url)
    async with get_client() as client:
        error = await client.api_healthcheck()
    if error is None:
        return [Finding("server", "ok", f"the Prefect server at {shown} answers")]
    said = str(error).partition("\n")[0] or type(error).__name__
    do = "start it (prefect server start), or set PREFECT_API_URL right; without it no run begins"
    return [Finding("server", "failed", f"the Prefect server at {shown} does not answer: {said}", do)]


# What nobody is to see.


def _secrets(settings: StudioSettings) -> tuple[str, ...]:
    found = [settings.api_key.get_secret_value().strip(), *_texts(settings.storage_options)]
    for url in (settings.ledger_url.get_secret_value(), settings.callback_base_url):
        with suppress(ValueError):
            password = urlsplit(url).password or ""
            found += [password, unquote(password)]
    return tuple(text for text in found if len(text) >= _SHORTEST_SECRET)


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def kept_apart(finding: Finding, secrets: Iterable[str]) -> Finding:
    """A finding without secrets, which drivers quote, and in one line of signs that can be seen."""

    def clean(text: str) -> str:
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))

    return replace(finding, said=clean(finding.said), do=clean(finding.do))


class _Daemons(ThreadPoolExecutor):
    """A thread for each call, which nobody waits for at the end."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # whoever gives up waiting leaves it to its end

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - who waits for the call gets it
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future
