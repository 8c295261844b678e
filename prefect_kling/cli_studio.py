"""What commands share: which studio they work for, the environment's or a saved block, and the variables given.

Messages name commands as they are typed for the environment's studio; `told` and `typed` add what the saved one needs,
so that they work as printed.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter
from pydantic import SecretStr

from prefect_kling.gateway.errors import KlingError, StoryboardError

# Prefect and the blocks are imported where they are used: every command of `prefect-kling` imports this module.
if TYPE_CHECKING:
    from prefect_kling.blocks import KlingStudio

__all__ = [
    "StudioName",
    "reachable_server",
    "reference_to",
    "set_up_prefect",
    "studio_at_work",
    "studio_named",
    "told",
    "typed",
    "variables_of",
]

StudioName = Annotated[
    str | None,
    Parameter(help="Name of a saved Kling Studio block; the studio of the environment where it is not given."),
]

ANSWER_SECONDS: Final = 30.0
SERVER_STARTS_WITHIN: Final = 120
_COMMAND: Final = re.compile(r"`(prefect-kling (?:ledger|sweep|plan|render|series)\b[^`]*)`")


async def studio_named(name: str | None) -> KlingStudio:
    """The studio saved under a name on the Prefect server of the settings; without a name the environment's.

    To be called before anything imports Prefect, whose log would come between.

    Raises:
        KlingError: there is no such block, or the server does not give it.
    """
    if name is not None:
        return await _loaded(name)
    from prefect_kling.blocks import KlingStudio

    return KlingStudio.from_environment()


async def _loaded(name: str) -> KlingStudio:
    set_up_prefect()
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import get_current_settings

    from prefect_kling.blocks import KlingStudio

    url = get_current_settings().api.url
    where = f"the Prefect server at {url} (PREFECT_API_URL)" if url else "this machine (PREFECT_API_URL is not set)"
    try:
        # Where there is no address, Prefect starts a server, and bounds that itself.
        async with asyncio.timeout(ANSWER_SECONDS if url else None):
            return await KlingStudio.aload(name)
    except Exception as error:
        # Prefect has no error of its own for this: connections, answers and documents fail in as many ways.
        if isinstance(error.__cause__, ObjectNotFound):
            said = f"There is no Kling Studio block '{name}' on {where}"
        else:
            silent = f"no answer within {ANSWER_SECONDS:g} s" if isinstance(error, TimeoutError) else ""
            reason = silent or str(error).partition("\n")[0].rstrip(".") or type(error).__name__
            said = f"The Kling Studio block '{name}' cannot be read from {where}: {reason}"
        raise KlingError(f"{said}; nothing was bought or changed") from error


async def reachable_server() -> None:
    """Makes sure of the Prefect server that the settings name; where they name none, Prefect starts one."""
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None:
        return
    async with get_client() as client:
        error = await client.api_healthcheck()
    if error is not None:
        said = str(error).partition("\n")[0] or type(error).__name__
        raise KlingError(f"The Prefect server at {url} (PREFECT_API_URL) does not answer: {said}; nothing was bought")


@asynccontextmanager
async def studio_at_work(name: str | None, *, simulate: bool) -> AsyncIterator[tuple[KlingStudio, Any]]:
    """The studio that a command renders with, and what its flow is given for it.

    Prefect keeps what a flow is given for its retries, with keys masked. So the flow reads the same environment, or
    gets a reference to the same block.
    """
    if not simulate:
        studio = await studio_named(name)
        yield studio, None if name is None else reference_to(studio)
        return
    from prefect_kling.simulator.child import simulator_child

    async with simulator_child() as base_url:
        from prefect.settings import get_current_settings

        from prefect_kling.blocks import KlingCredentials, KlingStudio

        simulated = KlingStudio(
            credentials=KlingCredentials(api_key=SecretStr("simulator"), base_url=base_url, account="simulated"),
            storage_url=str(get_current_settings().home / "kling" / "simulated"),
            ledger_url=SecretStr(f"sqlite:///{get_current_settings().home / 'kling' / 'simulated.db'}"),
            receive_on="127.0.0.1:0",
            poll_interval=0.1,
        )
        yield simulated, simulated


def reference_to(studio: KlingStudio) -> dict[str, Any]:
    """A saved studio as a flow's parameter.

    Prefect stores what it is given, so that a retry finds the block again. Of the block itself it would store the
    fields, with the key masked.
    """
    return {"$ref": {"block_document_id": str(studio._block_document_id)}}  # noqa: SLF001 - Prefect has no public name


def set_up_prefect() -> None:
    """Keeps Prefect's log off the console, where commands write; its lines still reach the UI.

    And gives a server that Prefect starts for a command the time that it takes on a busy machine, where Prefect's 20 s
    would end it with a traceback. Prefect reads both when it is first imported.
    """
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", str(SERVER_STARTS_WITHIN))


def typed(command: str, studio: str | None) -> str:
    """A command as it is typed for a studio."""
    return command if studio is None else f"{command} --studio {shlex.quote(studio)}"


def told(text: str, studio: str | None) -> str:
    """A message with the commands between backticks as they are typed for a studio."""
    return _COMMAND.sub(lambda found: f"`{typed(found[1], studio)}`", text)


def variables_of(pairs: Sequence[str]) -> dict[str, str]:
    """The variables of `--set name=value`.

    Raises:
        StoryboardError: one is not written so.
    """
    variables = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise StoryboardError(f"--set takes name=value, not {pair!r}")
        variables[name.strip()] = value
    return variables
