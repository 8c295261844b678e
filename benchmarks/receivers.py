"""`prefect-kling receive` as a process of its own, which can be killed and started again at the same address."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

__all__ = ["ReceiverProcess", "clean_environment", "free_port", "receiving"]

STARTS_WITHIN: Final = 60.0


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without anybody's studio or Prefect server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("APIMODELS_", "PREFECT_"))}
    return kept | more


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


class ReceiverProcess:
    """A receiver on loopback.

    Args:
        folder: for what it says, and for a home of its own.
        ledger_url: where it writes calls down.
        environment: more of it, such as a Prefect server's address.
        before: put before its command, such as `taskset`.

    Attributes:
        base: its address, `/kling` included; the same for each start.
    """

    def __init__(
        self, folder: Path, ledger_url: str, environment: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> None:
        self._port = free_port()
        self.base = f"http://127.0.0.1:{self._port}/kling"
        self._log, self._before = folder / "receiver.log", before
        self._environment = clean_environment(
            PREFECT_HOME=str(folder / "receiver"),
            PREFECT_INTEGRATIONS_KLING_LEDGER_URL=ledger_url,
            **(environment or {}),
        )
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it; returns when it answers.

        Raises:
            RuntimeError: it has ended instead.
        """
        program = str(Path(sys.executable).with_name("prefect-kling"))
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._before, program, "receive", "--port", str(self._port),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment,
            )  # fmt: skip
        async with asyncio.timeout(STARTS_WITHIN), httpx.AsyncClient(trust_env=False) as client:
            while True:
                if self._process.returncode is not None:
                    raise RuntimeError(f"the receiver has ended: {self.said()[-2000:]}")
                try:
                    if (await client.get(f"{self.base}/health")).is_success:
                        return
                except httpx.TransportError:
                    await asyncio.sleep(0.05)

    async def end(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Ends it by a signal, SIGKILL for a crash.

        Returns:
            Its exit status; minus the signal's number where that ended it. 0 where it was never started.
        """
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(signum)
        return await self._process.wait()

    def cpu_seconds(self) -> float:
        """Processor time that it has used since it was started."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def said(self) -> str:
        """What it has said so far, in all its lives."""
        return self._log.read_text("utf-8") if self._log.exists() else ""


@asynccontextmanager
async def receiving(
    folder: Path, ledger_url: str, environment: Mapping[str, str] | None = None, before: Sequence[str] = ()
) -> AsyncIterator[ReceiverProcess]:
    """A receiver that has started; it is ended with the block."""
    receiver = ReceiverProcess(folder, ledger_url, environment, before)
    try:
        await receiver.start()
        yield receiver
    finally:
        await receiver.end()
