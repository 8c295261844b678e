"""A storyboard's flow run in a process of its own: its job is a line of JSON on standard input, its answer on output.

Once it has imported what it needs it says `ready`, and begins with the next line that it reads.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.receivers import clean_environment

__all__ = ["Ended", "FlowProcess", "Job"]

_ROOT: Final = Path(__file__).resolve().parent.parent
POLL_SECONDS: Final = 5.0
CUT: Final = 10
"""Shots that the film shows: what is measured is how they come about."""


@dataclass(frozen=True)
class Job:
    """What is rendered: so many shots that do not need each other, in a document of that title."""

    title: str
    shots: int
    in_flight: int
    base_url: str
    folder: str
    ledger_url: str


@dataclass(frozen=True)
class Ended:
    """How it ended.

    Attributes:
        seconds: of the flow run.
        state: its final state's name.
        stored: shots that have a clip.
        megabytes: of memory, at most.
        cpu: seconds of processor time of the process; `cpu_children`: of the children that looked at clips.
    """

    seconds: float
    state: str
    stored: int
    megabytes: float
    cpu: float
    cpu_children: float


class FlowProcess:
    """The process; `begin` begins, `ended` waits for its answer."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, job: Job, api: str) -> Self:
        """A process that is ready to begin, at a Prefect server."""
        home = Path(job.folder) / "home"
        await asyncio.to_thread(home.mkdir, parents=True, exist_ok=True)
        environment = clean_environment(PREFECT_API_URL=api, PREFECT_HOME=str(home))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.flow_process", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, cwd=_ROOT, env=environment,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("the flow's process did not begin")
        return cls(process)

    def begin(self) -> None:
        """Lets it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def ended(self) -> Ended:
        """Its answer."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if await self._process.wait():
            raise RuntimeError("the flow's process has failed")
        return Ended(**json.loads(line))


async def _run(job: Job) -> Ended:
    from prefect_kling import KlingCredentials, KlingStudio
    from prefect_kling.flows import render_storyboard

    shots: list[dict[str, Any]] = [
        {"id": f"s{n}", "prompt": f"Shot {n} of {job.title}"} | ({"in_cut": False} if n >= CUT else {})
        for n in range(job.shots)
    ]
    document = {"title": job.title, "defaults": {"aspect_ratio": "16:9", "duration": 3}, "shots": shots}
    studio = KlingStudio(
        credentials=KlingCredentials(api_key="bench-key-0", base_url=job.base_url),
        storage_url=f"{job.folder}/storage",
        ledger_url=job.ledger_url,
        max_in_flight=job.in_flight,
        poll_interval=POLL_SECONDS,
        receive_on="127.0.0.1:0",
    )
    # By its path: a thousand shots are more than Prefect takes as a parameter.
    board = Path(job.folder) / "board.yaml"
    board.write_text(json.dumps(document))  # JSON is YAML
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    begun = time.perf_counter()
    state = await render_storyboard(str(board), studio, return_state=True)
    seconds = time.perf_counter() - begun
    rendering: Any = await state.aresult(raise_on_failure=False)
    if isinstance(rendering, Exception):
        raise rendering
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return Ended(
        seconds=seconds,
        state=str(state.name),
        stored=len([shot for shot in rendering.shots if shot.clip is not None]),
        megabytes=own.ru_maxrss / 1024,
        cpu=own.ru_utime + own.ru_stime,
        cpu_children=children.ru_utime + children.ru_stime,
    )


if __name__ == "__main__":
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    print(json.dumps(asdict(asyncio.run(_run(Job(**json.loads(sys.stdin.readline())))))), flush=True)
