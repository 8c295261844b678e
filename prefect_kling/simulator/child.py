"""A simulator as a child process that never outlives its parent, also not one that was killed.

The child reads its standard input and ends when that ends: the kernel closes the pipe whatever became of the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

from prefect_kling.simulator.config import SimulatorConfig

__all__ = ["SimulatorFailed", "simulator_child"]

START_SECONDS = 60.0
STOP_SECONDS = 10.0


class SimulatorFailed(RuntimeError):
    """The child process did not come up; the text carries what it said."""


@contextlib.asynccontextmanager
async def simulator_child(config: SimulatorConfig | None = None, *, port: int = 0, **fields: Any) -> AsyncIterator[str]:
    """Starts a simulator in a process of its own and ends it with the block.

    Args:
        config: what it is like; None for the defaults.
        port: 0 for any free one.
        fields: of `SimulatorConfig`, in place of what `config` says: `simulator_child(seed=1, faults="429=0.1")`.

    Yields:
        The base URL, such as `http://127.0.0.1:8123/api/v1`.

    Raises:
        SimulatorFailed: it did not come up.
        pydantic.ValidationError: a field is wrong.
    """
    settings = SimulatorConfig.model_validate({**(config or SimulatorConfig()).model_dump(), **fields})
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "prefect_kling.simulator",
        "--port",
        str(port),
        "--config",
        settings.model_dump_json(),
        "--end-with-stdin",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Else Ctrl-C would take the simulator away from a parent that is still finishing what it bought.
        start_new_session=True,
    )
    try:
        yield await _base_url(child)
    finally:
        await _end(child)


async def _base_url(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None  # noqa: S101 - asked for above
    try:
        line = await asyncio.wait_for(child.stdout.readline(), START_SECONDS)
    except TimeoutError as error:
        raise SimulatorFailed(f"the simulator did not come up within {START_SECONDS:g} s") from error
    if not line:
        raise SimulatorFailed(f"the simulator ended with exit code {await child.wait()} before it served")
    return line.decode().strip()


async def _end(child: asyncio.subprocess.Process) -> None:
    assert child.stdin is not None  # noqa: S101 - asked for above
    child.stdin.close()
    try:
        await asyncio.wait_for(asyncio.shield(child.communicate()), STOP_SECONDS)
    except TimeoutError:
        child.kill()
        await child.wait()
