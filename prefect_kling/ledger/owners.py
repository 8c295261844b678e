"""Who is sending a purchase, and whether that process is surely gone.

A process is surely gone where this kernel says so: same boot, same process namespace, and no process of that id with
that start. About anything else nobody can be sure, and the lease decides.
"""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path

__all__ = ["is_surely_gone", "this_process"]

_SEPARATOR = "|"


def this_process() -> str:
    """This process, as it is written into the ledger: host, boot, process namespace, pid, start."""
    return _described(os.getpid())


@functools.lru_cache(maxsize=4)
def _described(pid: int) -> str:
    # Asked for the pid, as a fork has another one.
    return _SEPARATOR.join((socket.gethostname()[:64], _boot(), _namespace(), str(pid), _start(pid) or "?"))


def is_surely_gone(owner: str) -> bool:
    """Whether the process that `this_process` described has ended. False wherever that cannot be proved."""
    parts = owner.split(_SEPARATOR)
    if len(parts) != 5:
        return False
    _host, boot, namespace, pid, start = parts
    provable = boot and namespace and start != "?" and pid.isascii() and pid.isdigit()
    if not provable or boot != _boot() or namespace != _namespace():
        return False
    found = _start(int(pid))
    return found != start if found is not None else not _exists(int(pid))


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).replace(_SEPARATOR, "")
    except OSError:
        return ""


def _exists(pid: int) -> bool:
    """Whether there is a process that may not be looked at, as under `hidepid`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start(pid: int) -> str | None:
    """When a process started, in the kernel's ticks since boot; empty for a corpse, None where none is to be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; the fields after it are numbers but for the first, the state.
    fields = stat.rpartition(b")")[2].split()
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")
