"""The back room: cancellation does not reach into it, and the interpreter's end waits for work, not for an idle one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from prefect_kling.ledger.backroom import backroom, in_backroom

PROMPT = 10.0


async def test_work_runs_in_a_loop_of_its_own() -> None:
    async def where() -> asyncio.AbstractEventLoop:
        assert threading.current_thread().name == "kling-ledger"
        return asyncio.get_running_loop()

    async def nested() -> asyncio.AbstractEventLoop:
        return await in_backroom(where())

    assert await in_backroom(nested()) is backroom()
    assert backroom() is not asyncio.get_running_loop()


async def test_what_is_raised_comes_out() -> None:
    async def work() -> None:
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        await in_backroom(work())


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_whoever_is_cancelled_waits_for_the_end(times: int, fails: bool) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        while not go.is_set():  # noqa: ASYNC110 - set in another loop
            await asyncio.sleep(0.005)
        ended.set()
        if fails:
            raise KeyError

    task = asyncio.create_task(in_backroom(work()))
    assert await asyncio.to_thread(begun.wait, 10)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert ended.is_set()


async def test_a_timeout_comes_after_the_end() -> None:
    ended = threading.Event()

    async def work() -> None:
        await asyncio.sleep(0.1)
        ended.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await in_backroom(work())
    assert ended.is_set()


async def test_many_loops_share_it() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0)
        return number

    def elsewhere(number: int) -> int:
        return asyncio.run(in_backroom(work(number)))

    assert await asyncio.gather(*(asyncio.to_thread(elsewhere, n) for n in range(8))) == list(range(8))


def test_without_a_loop_nothing_is_begun() -> None:
    async def work() -> None:
        raise AssertionError("begun")

    with pytest.raises(RuntimeError, match="no running event loop"):
        in_backroom(work()).send(None)


# The interpreter's end. Each is a process of its own, where warnings that are off by default are on.


def run(script: str, *arguments: object) -> tuple[str, float]:
    """What a script says, and how many seconds it took to end after its last word, which is a time.

    It says nothing on stderr, not even about things left open.
    """
    warnings = ("-W", "always::ResourceWarning", "-W", "always::RuntimeWarning")
    done = subprocess.run(
        [sys.executable, *warnings, "-c", HEAD + textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ended = time.time()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *said, last = done.stdout.splitlines()
    return "\n".join(said), ended - float(last)


HEAD = """
import asyncio, os, sys, time
from pathlib import Path
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.ledger import Ledger

async def use(url, answers):
    ledger = await Ledger.open(url, answers=Path(answers))
    await ledger.time()
    return ledger

def now():
    print(time.time(), flush=True)
"""


def test_an_idle_room_keeps_nobody() -> None:
    said, seconds = run("""
        async def work():
            return "done"
        print(asyncio.run(in_backroom(work())))
        now()
    """)
    assert said == "done"
    assert seconds < PROMPT


@pytest.mark.parametrize("kept", ["ledger = ", ""], ids=["in a variable", "nowhere"])
def test_a_ledger_that_was_left_open_keeps_nobody(kept: str, ledger_url: str, tmp_path: Path) -> None:
    _, seconds = run(
        f"""
        {kept}asyncio.run(use(*sys.argv[1:]))
        now()
        """,
        ledger_url,
        tmp_path / "answers.jsonl",
    )
    assert seconds < PROMPT


def test_a_fork_has_a_room_of_its_own(ledger_url: str, tmp_path: Path) -> None:
    said, seconds = run(
        """
        ledger = asyncio.run(use(*sys.argv[1:]))
        child = os.fork()
        mine = asyncio.run(use(*sys.argv[1:]))
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            asyncio.run(ledger.close())
            asyncio.run(mine.close())
            now()
        """,
        ledger_url,
        tmp_path / "answers.jsonl",
    )
    assert said == "0"
    assert seconds < PROMPT


def test_the_end_waits_for_work(tmp_path: Path) -> None:
    # Started by a thread that nobody waits for; a signal's handler that raises leaves it behind as well.
    said, _ = run("""
        import threading
        begun = threading.Event()

        async def work():
            begun.set()
            await asyncio.sleep(0.5)
            # As a reconnecting database driver does it.
            await asyncio.get_running_loop().getaddrinfo("localhost", 80)
            print("ended")
            now()

        threading.Thread(target=lambda: asyncio.run(in_backroom(work())), daemon=True).start()
        begun.wait(10)
    """)
    assert said == "ended"


def test_the_end_does_not_wait_for_ever() -> None:
    said, seconds = run("""
        import logging, threading
        from prefect_kling.ledger import backroom
        backroom.DRAIN_SECONDS = 1.5
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        begun = threading.Event()

        async def work():
            begun.set()
            await asyncio.Event().wait()

        threading.Thread(target=lambda: asyncio.run(in_backroom(work())), daemon=True).start()
        begun.wait(10)
        import atexit
        atexit.register(now)
    """)
    assert said == "A purchase is on its way; the process ends once its answer is written down"
    assert seconds < PROMPT
