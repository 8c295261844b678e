"""A PostgreSQL server of one's own: from Debian's packages, in a folder of its own, on a port of its own.

Tests and benchmarks start it, stop it, and take it away in the middle of things.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["PostgreSQL"]


class PostgreSQL:
    """A server on loopback, for as long as the `with` block lasts.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """

    def __init__(self) -> None:
        self._programs = _programs()
        self.port = _free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="kling-postgresql-"))

    def __enter__(self) -> Self:
        # The server refuses to run as root; Debian's packages make a user for it.
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user:
            found = pwd.getpwnam(self._user)
            os.chown(self._folder, found.pw_uid, found.pw_gid)
        self._watch = self._watched()
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "kling", "--no-sync", "--encoding=UTF8")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Its end is the watch's work, so that it is the same when this process is killed.
        self._watch.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _watched(self) -> subprocess.Popen[bytes]:
        """A process that stops the server when its input ends, which it does with this process, however that ends."""
        work = 'read _; "$0" -D "$1/data" -m immediate -w stop; rm -rf "$1"'
        return subprocess.Popen(
            ["/bin/sh", "-c", work, str(self._programs / "pg_ctl"), str(self._folder)],
            user=self._user,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            start_new_session=True,
        )

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def url(self, database: str = "postgres") -> str:
        """The address of one of its databases."""
        return f"postgresql://kling@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Makes an empty database, and returns its address."""
        name = f"kling_{uuid.uuid4().hex[:12]}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "kling", name)
        return self.url(name)

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200"
        self._run("pg_ctl", "-D", self._data, "-l", str(self._folder / "log"), "-o", options, "-w", "start")

    def stop(self, *, mode: str = "immediate") -> None:
        """Stops it: `immediate` as a crash would, `fast` in order."""
        self._run("pg_ctl", "-D", self._data, "-m", mode, "-w", "stop")

    def is_running(self) -> bool:
        """Whether it runs."""
        return self._call("pg_ctl", "-D", self._data, "status").returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        done = self._call(program, *arguments)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}{done.stdout}")

    def _call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Into a file: the server keeps its parent's pipes open for as long as it lives.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                [str(self._programs / program), *arguments],
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=self._folder,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                check=False,
            )
            said.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, said.read(), "")


def _programs() -> Path:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    if found is None:
        raise FileNotFoundError("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    return Path(found).parent


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
