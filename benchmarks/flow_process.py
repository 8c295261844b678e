"""A storyboard's flow run in a process of its own: its job is a line of JSON on standard input, its answer on output.

The job has `shots`, `title`, `base_url`, `folder`, `ledger_url`, `in_flight` and `poll_interval`; the answer says how
long it took, how much memory it had at most, and how it ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from typing import Any

__all__ = ["storyboard_of"]


def storyboard_of(title: str, shots: int) -> dict[str, Any]:
    """A document of so many shots that do not depend on each other; the film shows the first ten."""
    return {
        "title": title,
        "defaults": {"aspect_ratio": "16:9", "duration": 3},
        "shots": [{"id": f"s{n}", "prompt": f"Shot {n}"} | ({"in_cut": False} if n > 9 else {}) for n in range(shots)],
    }


async def _run(job: dict[str, Any]) -> dict[str, Any]:
    from prefect_kling import KlingCredentials, KlingStudio, Storyboard
    from prefect_kling.flows import render_storyboard

    studio = KlingStudio(
        credentials=KlingCredentials(api_key="bench-key-0", base_url=job["base_url"]),
        storage_url=f"{job['folder']}/storage",
        ledger_url=job["ledger_url"],
        max_in_flight=job["in_flight"],
        poll_interval=job["poll_interval"],
        receive_on="127.0.0.1:0",
    )
    board = Storyboard.model_validate(storyboard_of(job["title"], job["shots"]))
    begun = time.perf_counter()
    state = await render_storyboard(board, studio, return_state=True)
    taken = time.perf_counter() - begun
    rendering = await state.aresult(raise_on_failure=False)
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": taken,
        "state": state.name,
        "said": state.message,
        "stored": len([shot for shot in rendering.shots if shot.clip is not None]),
        "megabytes": own.ru_maxrss / 1024,
        "cpu": own.ru_utime + own.ru_stime,
        "cpu_children": children.ru_utime + children.ru_stime,
        "run": str(state.state_details.flow_run_id),
    }


if __name__ == "__main__":
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    print(json.dumps(asyncio.run(_run(json.loads(sys.stdin.readline())))), flush=True)
