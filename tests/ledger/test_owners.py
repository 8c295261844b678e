"""Owners: real processes that live, die, leave a corpse, or only look like each other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from prefect_kling.ledger import owners
from prefect_kling.ledger.owners import is_surely_gone, this_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who is gone")

SAYS_WHO = "from prefect_kling.ledger.owners import this_process; print(this_process(), flush=True); input()"


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that waits, and how it describes itself."""
    with subprocess.Popen(
        [sys.executable, "-c", SAYS_WHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def changed(owner: str, **parts: str) -> str:
    """The same description with something else in a part."""
    names = ("host", "boot", "namespace", "pid", "start")
    return "|".join(parts.get(name, value) for name, value in zip(names, owner.split("|"), strict=True))


def test_this_process_is_alive_and_fits_into_its_column() -> None:
    assert not is_surely_gone(this_process())
    assert this_process() == this_process()
    assert this_process().split("|")[3] == str(os.getpid())
    assert len(this_process()) <= 255


def test_a_process_is_gone_when_it_has_ended(child: tuple[subprocess.Popen[str], str]) -> None:
    process, owner = child
    assert owner.split("|")[3] == str(process.pid)
    assert owner != this_process()
    assert not is_surely_gone(owner)
    process.kill()
    process.wait()
    assert is_surely_gone(owner)


def test_a_corpse_that_nobody_has_buried_is_gone(child: tuple[subprocess.Popen[str], str]) -> None:
    process, owner = child
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_surely_gone(owner)


def test_another_process_with_its_number_is_not_it(child: tuple[subprocess.Popen[str], str]) -> None:
    _, owner = child
    start = int(owner.split("|")[4])
    assert is_surely_gone(changed(owner, start=str(start - 1)))


def test_a_stopped_process_is_alive(child: tuple[subprocess.Popen[str], str]) -> None:
    import signal

    process, owner = child
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert not is_surely_gone(owner)


@pytest.mark.parametrize(
    "other",
    [
        {"boot": "00000000-0000-0000-0000-000000000000"},
        {"boot": ""},
        {"namespace": "pid:[1]"},
        {"namespace": ""},
        {"start": "?"},
        {"pid": "-1"},
        {"pid": "²"},
        {"pid": ""},
    ],
    ids=repr,
)
def test_of_what_this_kernel_does_not_know_nothing_is_sure(
    child: tuple[subprocess.Popen[str], str], other: dict[str, str]
) -> None:
    process, owner = child
    process.kill()
    process.wait()
    assert not is_surely_gone(changed(owner, **other))


def test_a_host_may_be_renamed(child: tuple[subprocess.Popen[str], str]) -> None:
    process, owner = child
    assert not is_surely_gone(changed(owner, host="another"))
    process.kill()
    process.wait()
    assert is_surely_gone(changed(owner, host="another"))


@pytest.mark.parametrize("owner", ["", "?", "|", "||||", "a|b|c|d|e", "a|b|c|1", "a|b|c|1|2|3"])
def test_what_describes_no_process_is_not_gone(owner: str) -> None:
    assert not is_surely_gone(owner)


def test_a_fork_is_another_process() -> None:
    code = (
        "import os, sys\n"
        "from prefect_kling.ledger.owners import is_surely_gone, this_process\n"
        "parent = this_process()\n"
        "if os.fork() == 0:\n"
        "    os._exit(0 if this_process() != parent and not is_surely_gone(parent) else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_process_that_may_not_be_looked_at_is_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    here = this_process()
    monkeypatch.setattr(owners, "_start", lambda _: None)  # as under hidepid=2
    assert not is_surely_gone(here)
    host, boot, namespace, _, start = here.split("|")
    assert is_surely_gone("|".join((host, boot, namespace, str(2**22 + 1), start)))
