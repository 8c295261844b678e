"""The journal of answers: task ids on this machine's disk, before the ledger has them.

Between the gateway's answer and the ledger's commit lies a network, perhaps, and a database that may be away. So a task
id is first appended to a local file and synced; whoever comes next replays what the ledger does not know yet.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Answer", "Journal"]

COMPACT_ABOVE: Final = 256 * 1024


@dataclass(frozen=True)
class Answer:
    """A purchase's token and the task id that the gateway gave for it; `ledger` is the id of the ledger it is in."""

    ledger: str
    token: str
    task_id: str


class Journal:
    """A file of answers, one JSON object a line, shared by every process of this machine.

    Args:
        path: of the file; made, with its folder, for this user alone, as tokens are secrets.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, answer: Answer) -> None:
        """Writes an answer and syncs it to the disk.

        Raises:
            OSError: it cannot be written.
        """
        line = json.dumps({"ledger": answer.ledger, "token": answer.token, "task_id": answer.task_id}) + "\n"
        descriptor, new = self._locked()
        try:
            # A line that a crash cut short must not swallow this one.
            left = memoryview((b"" if self._ends_whole(descriptor) else b"\n") + line.encode())
            while left:  # a disk that is nearly full takes a part, and says so only of the next
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            _sync_folder(self.path.parent)

    def answers(self) -> tuple[Answer, ...]:
        """Every answer in the file, the oldest first; lines that a crash cut short are passed over."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return ()
        return tuple(answer for line in lines if (answer := _read(line)) is not None)

    def drop(self, settled: Collection[str], *, ledger: str) -> None:
        """Removes one ledger's answers with these tokens, once the file has grown large enough to care."""
        with suppress(FileNotFoundError):
            if self.path.stat().st_size < COMPACT_ABOVE:
                return
            self._rewrite(lambda answer: answer.ledger != ledger or answer.token not in settled)

    def _rewrite(self, keep: Callable[[Answer], bool]) -> None:
        descriptor, _ = self._locked()
        try:
            kept = [answer for answer in self.answers() if keep(answer)]
            new = self.path.with_suffix(".new")
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
                file.writelines(json.dumps(vars(answer)) + "\n" for answer in kept)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
            _sync_folder(self.path.parent)
        finally:
            os.close(descriptor)

    def _locked(self) -> tuple[int, bool]:
        """The open file, locked against other processes, and whether it was made just now."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            new = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Whoever held the lock may have put another file in its place.
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                        return descriptor, new
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    @staticmethod
    def _ends_whole(descriptor: int) -> bool:
        size = os.fstat(descriptor).st_size
        return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _read(line: bytes) -> Answer | None:
    try:
        found = json.loads(line)
        return Answer(str(found["ledger"]), str(found["token"]), str(found["task_id"]))
    except (ValueError, KeyError, TypeError):
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
