"""That a Prefect server with our dependencies plans the runs of a schedule at all: its own scheduler's insert."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.schedules import IntervalSchedule

from prefect_kling.flows import sweep


@pytest.mark.usefixtures("prefect_server")
async def test_a_schedule_has_runs() -> None:
    hourly = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(hours=1)))
    async with get_client() as client:
        flow = await client.create_flow(sweep)
        deployment = await client.create_deployment(flow_id=flow, name=f"hourly-{uuid4()}", schedules=[hourly])
        try:
            await client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment})
            mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
            runs = await client.read_flow_runs(flow_run_filter=mine)
        finally:
            await client.delete_deployment(deployment)
    assert runs
    assert all(run.auto_scheduled for run in runs)
