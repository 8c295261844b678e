"""A small production on this machine, every part a process: what a pipeline of several machines is made of."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr
from ruamel.yaml import YAML

from benchmarks.gateway_process import gateway_process
from benchmarks.postgresql import PostgreSQL
from benchmarks.prefect_server import MANY_RUNS, PrefectServer, prefect_server
from benchmarks.receivers import ReceiverProcess, clean_environment, receiving
from benchmarks.s3_server import S3Server
from prefect_kling import KlingCredentials, KlingStudio

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final = YAML(typ="safe").load((ROOT / "deployments" / "compose.yaml").read_text("utf-8"))["services"]
KEY: Final = "sk-fleet-6f0d3b9a41"


@dataclass
class Fleet:
    """Its parts.

    Attributes:
        folder: for logs and homes; one for each process.
        prefect: the Prefect server, on PostgreSQL.
        gateway: the simulator's address.
        databases: of the ledger and of the Prefect server.
        bucket: where clips and films are kept.
        studio: the id of the saved studio.
        workers: of the work pool `kling`.
    """

    folder: Path
    prefect: PrefectServer
    gateway: str
    databases: tuple[str, str]
    bucket: str
    s3: S3Server
    receiver: ReceiverProcess
    studio: str = ""
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def environment(self, name: str) -> dict[str, str]:
        """Of a process with a home of its own, which knows the Prefect server and nothing else."""
        return clean_environment(
            PREFECT_API_URL=self.prefect.api,
            PREFECT_HOME=str(self.folder / name),
            PREFECT_WORKER_QUERY_SECONDS="1",
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            DO_NOT_TRACK="1",
            NO_COLOR="1",
        )

    async def command(self, *arguments: str, cwd: Path) -> None:
        """Runs a command to its end."""
        environment = self.environment("operator")
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        process = await asyncio.create_subprocess_exec(
            *arguments, env=environment, cwd=cwd, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()

    def start_worker(self) -> subprocess.Popen[bytes]:
        """One more worker of the pool; its runs' logs go into its own."""
        name = f"worker{len(self.workers) + 1}"
        with (self.folder / f"{name}.log").open("wb") as log:
            worker = subprocess.Popen(
                [*_program(COMPOSE["worker"]["command"]), "--name", name],
                env=self.environment(name), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.workers.append(worker)
        return worker

    def kill_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """Takes a worker away with its runs, as a machine that is switched off does."""
        for pid in (worker.pid, *_children_of(worker.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        worker.wait()

    async def stats(self) -> dict[str, Any]:
        """What the gateway has seen."""
        async with httpx.AsyncClient(trust_env=False) as client:
            found: dict[str, Any] = (await client.get(self.gateway.replace("/api/v1", "/_sim/stats"))).json()
        return found

    def logs(self) -> str:
        """What every process has said."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.rglob("*.log")))


def _program(command: list[str]) -> list[str]:
    """A command of the containers, by this Python's program."""
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]


def _children_of(pid: int) -> list[int]:
    """A process's children and theirs."""
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            found += [child, *_children_of(child)]
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory, postgresql: PostgreSQL) -> AsyncIterator[Fleet]:
    """The production, with its studio saved, its deployments deployed, and two workers."""
    folder = tmp_path_factory.mktemp("fleet")
    ledger, database = postgresql.new_database(), postgresql.new_database()
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(gateway_process(2.0, "each"))
        s3 = stack.enter_context(S3Server())
        prefect = await stack.enter_async_context(prefect_server(folder / "server", database, settings=MANY_RUNS))
        receiver = await stack.enter_async_context(receiving(folder, ledger, {"PREFECT_API_URL": prefect.api}))
        made = Fleet(folder, prefect, gateway, (ledger, database), s3.new_bucket(), s3, receiver)
        stack.callback(_end, made)
        with temporary_settings({PREFECT_API_URL: prefect.api}):
            studio = KlingStudio(
                credentials=KlingCredentials(api_key=SecretStr(KEY), base_url=gateway),
                storage_url=f"{made.bucket}/films",
                storage_options=s3.url_options,
                ledger_url=SecretStr(ledger),
                callback_base_url=receiver.base,
                max_in_flight=6,
                poll_interval=1,
            )
            made.studio = str(await studio.asave("fleet"))
        # As the container `setup` does it, in the folder that it finds.
        await made.command("prefect-kling", "init", "pipeline", cwd=folder)
        await made.command(*COMPOSE["setup"]["command"], cwd=folder / "pipeline")
        await _look_at_health(made)
        for _ in range(2):
            made.start_worker()
        yield made


async def _look_at_health(fleet: Fleet) -> None:
    """Asks the parts as their containers do, at the ports that they have here."""
    for service, url in (("prefect", fleet.prefect.api), ("receiver", fleet.receiver.base)):
        port, test = COMPOSE[service]["command"][-1], COMPOSE[service]["healthcheck"]["test"][1:]
        here = [word.replace(f":{port}/", f":{urlsplit(url).port}/") for word in test]
        assert here != test
        await fleet.command(*here, cwd=fleet.folder)
    port = str(urlsplit(fleet.databases[0]).port)
    await fleet.command(*COMPOSE["database"]["healthcheck"]["test"][1:], "--port", port, cwd=fleet.folder)


def _end(fleet: Fleet) -> None:
    for worker in fleet.workers:
        if worker.poll() is None:
            fleet.kill_worker(worker)
