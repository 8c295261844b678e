"""`prefect-kling doctor`: whether a run would find all it needs, a line for each piece, and what to do."""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from prefect_kling.cli_codes import MONEY, REFUSED, USAGE
from prefect_kling.cli_studio import StudioName, set_up_prefect, studio_named
from prefect_kling.gateway.errors import KlingError
from prefect_kling.terminal import announce

# What is looked at, and with what, is imported when there is something to look at.
if TYPE_CHECKING:
    from prefect_kling.checkup import Finding
    from prefect_kling.settings import StudioSettings

__all__ = ["doctor", "worst_code"]

STUDIO_SECONDS: Final = 5.0
"""A saved studio is read before the rest can be looked at, and has its part of the time."""
_CODES: Final = {"credits": MONEY, "key": REFUSED}


def doctor(*, studio: StudioName = None, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Look at all that a run needs: key, balance, ledger, storage, journal, ffmpeg, av, Prefect server, receiver.

    Nothing is bought. Exit code: 0 where nothing failed, 3 for a refused key, 4 for an account without credits, else 2.

    Parameters
    ----------
    json
        Print one JSON document to stdout.
    """
    set_up_prefect()
    findings = asyncio.run(_findings(studio))
    if json:
        checks = [{"name": found.name, "state": found.state, "said": found.said, "do": found.do} for found in findings]
        document = {"checks": checks, "ok": worst_code(findings) == 0}
        print(jsonlib.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201 - what --json is for
    else:
        for found in findings:
            do = f"; {found.do}" if found.do else ""
            print(f"{found.state:<8} {found.name:<9} {found.said}{do}")  # noqa: T201 - this command's output
    failed = [found.name for found in findings if found.state == "failed"]
    announce(f"Failed: {', '.join(failed)}" if failed else "A run finds what it needs")
    return worst_code(findings)


async def _findings(name: str | None) -> list[Finding]:
    from prefect_kling.checkup import SECONDS, Finding, examine, kept_apart

    try:
        settings = await _settings(name)
    except KlingError as error:
        do = "set it right; what belongs to a studio was not looked at"
        studio = Finding("studio", "failed", str(error), do)
        return [kept_apart(studio, ()), *await examine(None, seconds=SECONDS - STUDIO_SECONDS)]
    which = "the environment's" if name is None else f"the saved studio {name}"
    studio = Finding("studio", "ok", f"{which}, account {settings.account}")
    return [kept_apart(studio, ()), *await examine(settings)]


async def _settings(name: str | None) -> StudioSettings:
    from prefect.settings import get_current_settings

    try:
        # Where there is no address, Prefect starts a server, and bounds that itself.
        async with asyncio.timeout(STUDIO_SECONDS if get_current_settings().api.url else None):
            return (await studio_named(name)).settings()
    except TimeoutError as error:
        raise KlingError(
            f"The Prefect server gave no Kling Studio block '{name}' within {STUDIO_SECONDS:g} s"
        ) from error


def worst_code(findings: Iterable[Finding]) -> int:
    """The exit code: 0 where nothing failed, else that of the worst failure."""
    causes = {found.cause for found in findings if found.state == "failed"}
    return next((code for cause, code in _CODES.items() if cause in causes), USAGE if causes else 0)
