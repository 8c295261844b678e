"""What runs are called in the Prefect UI, and their tags.

Decoration: what Prefect's server does not take is told at debug.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from coolname.data import config
from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger

from prefect_kling.flows.runs import run_id

__all__ = ["name_run", "run_name"]

CALL_SECONDS: Final = 30.0
_OF_THE_FORM: Final = re.compile(r"[A-Z][a-z]+-[A-Z][a-z]+")
"""The UI's form proposes such names, of words of its own."""


async def name_run(name: str, *tags: str) -> None:
    """Names the run that this is called in, unless somebody has named it, and tags it with `kling` and these."""
    run = run_id()
    if not run:
        return
    try:
        async with asyncio.timeout(CALL_SECONDS), get_client() as client:
            # As it is now: somebody may have named it since it began.
            there = await client.read_flow_run(UUID(run))
            kept = name if _is_given_by_prefect(there.name) else there.name
            await client.update_flow_run(there.id, name=kept, tags=sorted({*there.tags, "kling", *tags}))
    except Exception as error:  # noqa: BLE001 - see the module: decoration
        get_run_logger().debug("The run could not be named: %s: %s", type(error).__name__, error)


def run_name(title: str, edition: str) -> str:
    """What a run is called: its film, and its edition, or for "main" the day."""
    return f"{title} · {datetime.now(UTC).date() if edition == 'main' else edition}"


def _is_given_by_prefect(name: str) -> bool:
    """Whether Prefect has made a name up, of two words."""
    words = name.split("-")
    return bool(_OF_THE_FORM.fullmatch(name)) or (len(words) == 2 and _words().issuperset(words))


@functools.cache
def _words() -> frozenset[str]:
    rules: Mapping[str, Any] = config
    return frozenset(word for rule in rules.values() if rule["type"] == "words" for word in rule["words"])
