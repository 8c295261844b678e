"""Purchases taken through their whole life in a ledger, by a process of its own; its answer is how long that took."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Final, Self

from benchmarks.ledger import life
from benchmarks.receivers import clean_environment
from prefect_kling.ledger.ledger import Ledger

__all__ = ["LedgerProcess"]

_ROOT: Final = Path(__file__).resolve().parent.parent
AT_ONCE: Final = 20


class LedgerProcess:
    """The process; `begin` begins, `ended` gives its seconds."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, folder: Path, ledger_url: str, lives: int) -> Self:
        """A process with the ledger open, ready to begin."""
        await asyncio.to_thread(folder.mkdir, parents=True)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.ledger_process", str(folder), ledger_url, str(lives),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=_ROOT, env=clean_environment(),
        )  # fmt: skip
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("the ledger's process did not begin")
        return cls(process)

    def begin(self) -> None:
        """Lets it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def ended(self) -> float:
        """Seconds that it took."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if await self._process.wait():
            raise RuntimeError("the ledger's process has failed")
        return float(line)


async def _run(folder: Path, ledger_url: str, lives: int) -> float:
    async with await Ledger.open(ledger_url, answers=folder / "answers.jsonl") as ledger:
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with turns:
                await life(ledger, folder.name, number)

        await one(lives)  # opens what is opened but once
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begun = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(lives)))
        return time.perf_counter() - begun


if __name__ == "__main__":
    print(asyncio.run(_run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))), flush=True)
