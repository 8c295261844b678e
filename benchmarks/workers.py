"""Several workers on one machine, one PostgreSQL: does each do what it does alone, and where does the machine end?

A worker is a process with a flow run of its own; they share the ledger, its account and its slots, the Prefect server
and the gateway. Beside it the ledger alone, from 1, 2 and 4 processes.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.flow_process import Ended, FlowProcess, Job
from benchmarks.gateway_process import gateway_process
from benchmarks.ledger_process import LedgerProcess
from benchmarks.postgresql import PostgreSQL
from benchmarks.prefect_server import MANY_RUNS, PrefectServer, prefect_server
from benchmarks.row import Row

__all__ = ["measure"]

WORKERS: Final = 4
SHOTS, EACH_IN_FLIGHT, GENERATION_SECONDS = 60, 6, 10.0
"""A worker's shots, its share of the slots, and how long each takes: 0.6 shots a second and worker at most."""
LEAST_SHARE: Final = 0.85
LIVES: Final = 400
"""Purchases that the ledger alone takes through their life, for each process."""


def measure() -> list[Row]:
    """Shots a second of four workers beside four times one worker's, and purchases a second of the ledger alone."""
    with tempfile.TemporaryDirectory(prefix="kling-workers-") as folder, PostgreSQL() as server:
        return asyncio.run(_measured(Path(folder), server))


async def _measured(folder: Path, server: PostgreSQL) -> list[Row]:
    rows = []
    async with (
        gateway_process(GENERATION_SECONDS) as base_url,
        prefect_server(folder / "server", server.new_database(), settings=MANY_RUNS) as prefect,
    ):
        one, _ = await _rate(folder / "1", server.new_database(), base_url, prefect, 1)
        before = _cpu(prefect.pid)
        many, ended = await _rate(folder / "4", server.new_database(), base_url, prefect, WORKERS)
        served = _cpu(prefect.pid) - before
    shots = WORKERS * SHOTS
    own = sum(run.cpu + run.cpu_children for run in ended)
    cores = len(os.sched_getaffinity(0))
    rows += [
        Row(f"{WORKERS} workers, shots a second", many, "", f"{WORKERS} times one worker", WORKERS * one),
        Row(f"{WORKERS} workers, their share of that", many / (WORKERS * one), "", "bound, at least", LEAST_SHARE),
        Row("processor time a shot, worker and children", 1000 * own / shots, "ms", "server", 1000 * served / shots),
        Row("shots a second that these cores could do", cores * shots / (own + served), "", "asked of them", many),
    ]
    alone = 0.0
    for processes in (1, 2, 4):
        rate = await _ledger_rate(folder / f"ledger{processes}", server.new_database(), processes)
        alone = alone or rate
        rows.append(Row(f"ledger alone, purchases a second, {processes} processes", rate, "", "one process", alone))
    return rows


async def _rate(
    folder: Path, ledger_url: str, base_url: str, prefect: PrefectServer, workers: int
) -> tuple[float, list[Ended]]:
    jobs = [
        Job(f"Worker {n}", SHOTS, workers * EACH_IN_FLIGHT, base_url, str(folder / str(n)), ledger_url)
        for n in range(workers)
    ]
    runs = [await FlowProcess.start(job, prefect.api) for job in jobs]
    for run in runs:
        run.begin()
    ended = await asyncio.gather(*(run.ended() for run in runs))
    assert all(run.stored == SHOTS for run in ended), ended
    return workers * SHOTS / max(run.seconds for run in ended), list(ended)


async def _ledger_rate(folder: Path, ledger_url: str, processes: int) -> float:
    started = [await LedgerProcess.start(folder / str(n), ledger_url, LIVES) for n in range(processes)]
    for process in started:
        process.begin()
    seconds = await asyncio.gather(*(process.ended() for process in started))
    return processes * LIVES / max(seconds)


def _cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
