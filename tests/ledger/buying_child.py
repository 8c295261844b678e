"""A process that buys one video and is interrupted: run by `test_signals`, which holds back the gateway's answer.

`python buying_child.py MODE LEDGER_URL FOLDER BASE_URL`; the modes are the functions below.
Says `outcome …` at its end.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.buying import Buyer
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account, Order

REQUEST = OmniVideoRequest(model="kling-v3-omni", prompt="A lighthouse", aspect_ratio="16:9", duration="3")
ORDER = Order("main", "k1:dawn#1", REQUEST.body(), REQUEST.model, 3, 189_900, shot="dawn", run="run")


class Terminated(BaseException):
    """What a signal's handler raises, as Prefect's does."""


async def buy(url: str, folder: str, base_url: str) -> None:
    """Buys, and leaves the ledger open."""
    ledger = await Ledger.open(url, answers=Path(folder) / "answers.jsonl")

    def client() -> KlingClient:
        return KlingClient("sk-test-child", base_url=base_url, attempts=1, patience=0.0)

    purchase = await Buyer(ledger, Account(base_url), client).buy(ORDER, REQUEST)
    sys.stdout.write(f"outcome {purchase.state}\n")


def interrupted(*arguments: str) -> None:
    """As `asyncio.run` does it: the first SIGINT cancels, the second raises wherever the main thread is."""
    asyncio.run(buy(*arguments))


def cancelled(*arguments: str) -> None:
    """As services do it: each SIGINT and SIGTERM cancels."""

    async def main() -> None:
        work = asyncio.ensure_future(buy(*arguments))
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, work.cancel)
        await work

    asyncio.run(main())


def raising(*arguments: str) -> None:
    """As Prefect does it, bluntly: each SIGINT and SIGTERM raises wherever the main thread is."""

    def stop(number: int, _frame: Any) -> None:
        raise Terminated(signal.Signals(number).name)

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    asyncio.run(buy(*arguments))


def in_prefect(*arguments: str) -> None:
    """Under Prefect's own handler of SIGTERM."""
    from prefect.utilities.engine import capture_sigterm

    async def main() -> None:
        with capture_sigterm():
            await buy(*arguments)

    asyncio.run(main())


if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    {"interrupted": interrupted, "cancelled": cancelled, "raising": raising, "in_prefect": in_prefect}[mode](*rest)
