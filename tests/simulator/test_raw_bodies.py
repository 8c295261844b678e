"""The table of raw bodies, written from gateway.md by hand, over HTTP: the simulator gives the verdicts it names."""

from __future__ import annotations

from typing import Any

import httpx

from prefect_kling.simulator.config import MediaSpec, SimulatorConfig
from prefect_kling.simulator.server import running


async def test_each_body_gets_the_verdict_of_the_table(raw_bodies: list[dict[str, Any]]) -> None:
    # One frame a second: it is the answers that matter here.
    config = SimulatorConfig(
        seed=1, balance=10_000, generation_seconds=3600, shrink=8, workers=1, media=MediaSpec(fps=1), draw=False
    )
    wrong, accepted, refused = [], 0, 0
    async with (
        running(config) as server,
        httpx.AsyncClient(base_url=server.base_url, headers={"Authorization": "Bearer any"}, trust_env=False) as client,
    ):
        for row in raw_bodies:
            answer = await client.post("/video/generations", json=row["body"], timeout=30)
            accepted += answer.status_code == 200
            refused += answer.status_code == 400
            if "loopback" in row:
                # A gateway on loopback may take the address, but nothing is there.
                good = answer.status_code in (200, 400)
            elif "refused" in row:
                good = answer.status_code == 400 and row["field"] in answer.json()["msg"]
            else:
                good = answer.status_code == 200
            if not good:
                wrong.append((row["name"], answer.status_code, answer.text[:200]))
        assert server.service.stats()["creates"] == accepted
    assert wrong == []
    assert accepted + refused == len(raw_bodies)
    assert min(accepted, refused) > 60
