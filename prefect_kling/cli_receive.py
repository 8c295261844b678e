"""`prefect-kling receive`: takes the gateway's calls and writes them into the ledger, until interrupted."""

from __future__ import annotations

import asyncio

from prefect_kling.cli_studio import StudioName, set_up_prefect, studio_named
from prefect_kling.gateway.errors import KlingError
from prefect_kling.terminal import announce

__all__ = ["receive"]


def receive(*, host: str = "127.0.0.1", port: int = 8787, studio: StudioName = None) -> int:
    """Take the gateway's calls and write them into the ledger, until interrupted; runs are woken by them.

    It needs the ledger's address and no API key. A proxy with TLS belongs in front of it: docs/callbacks.md.

    Parameters
    ----------
    host
        The address of this machine to listen on.
    port
        To listen on; 0 picks a free one.
    """
    # The system's own resolver takes larger ones, and means other ports by them.
    if not 0 <= port < 2**16:
        raise KlingError(f"--port has to be from 0 to 65535, not {port}")
    set_up_prefect()
    from prefect_kling.callbacks.serving import serve

    settings = asyncio.run(studio_named(studio)).settings()
    try:
        serve(settings, host, port, announce=announce)
    except OSError as error:
        raise KlingError(f"Nothing can be received on {host}:{port}: {error.strerror or error}") from error
    return 0
