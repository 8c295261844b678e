"""Finishing what nobody waits for, on a schedule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from prefect_kling.blocks import KlingStudio
from prefect_kling.flows.form import Studio
from prefect_kling.flows.naming import name_run
from prefect_kling.gateway.errors import KlingError
from prefect_kling.ledger.desk import desk
from prefect_kling.ledger.sweeping import Swept
from prefect_kling.ledger.sweeping import sweep as sweep_once

__all__ = ["sweep"]


@flow(name="sweep")
async def sweep(studio: Studio = None) -> State[dict[str, Any]]:
    """Brings home what was bought and nobody waits for, and says what waits for a decision.

    Answers that a crash left on this machine's disk are written into the ledger, running generations are asked about,
    and finished ones are downloaded before they expire. Nothing is bought. Several sweeps at once do no harm.

    Args:
        studio: Whose purchases. Empty: those of the worker's environment.

    Returns:
        `Swept`, with what was done by short tokens; `Partial` (failed) where something went wrong that does not pass by
        itself, such as a wrong key.

    Raises:
        LedgerUnavailable: the ledger cannot be used.
        AuthenticationFailed: there is no key.
    """
    logger = get_run_logger()
    await name_run(f"Sweep · {datetime.now(UTC):%Y-%m-%d %H:%M}")
    there = await desk((studio or KlingStudio.from_environment()).settings())
    async with there.keeper(logger) as keeper:
        swept = await sweep_once(keeper, logger=logger)
    return _final_state(swept)


def _final_state(swept: Swept) -> State[Any]:
    said = ". ".join(filter(None, (swept.sentence(), swept.what_to_do())))
    if any(not (isinstance(error, KlingError) and error.retryable) for error in swept.raised):
        return Failed(name="Partial", message=said, data=swept.as_dict())
    return Completed(name="Swept", message=said, data=swept.as_dict())
