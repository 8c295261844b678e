"""What a flow run is: its id, and the edition that it stands for."""

from __future__ import annotations

from datetime import UTC

from prefect.context import FlowRunContext
from prefect.utilities.urls import url_for

__all__ = ["edition_of_run", "is_repeated_by_prefect", "run_id", "run_page"]


def run_id() -> str:
    """The id of the flow run that this is called in, which its retries share; empty outside of one."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context is not None and context.flow_run is not None else ""


def run_page() -> str:
    """The address of that run's page in Prefect's UI; empty outside of one, and where no UI is known."""
    run = run_id()
    return (url_for("flow-run", obj_id=run) or "") if run else ""


def is_repeated_by_prefect() -> bool:
    """Whether the flow that this is called in has `retries`: in its process Prefect repeats only what raises."""
    context = FlowRunContext.get()
    return context is not None and context.flow is not None and bool(context.flow.retries)


def edition_of_run(given: str | None) -> str:
    """The edition of a run: as given, else the time that a schedule meant it for, else "main".

    A daily film is new each day, while its retry, and the same slot fired twice, are not. `expected_start_time` is set
    on every run, so it counts only on those that a schedule made.
    """
    if given:
        return given
    context = FlowRunContext.get()
    flow_run = None if context is None else context.flow_run
    if flow_run is None or not flow_run.auto_scheduled or flow_run.expected_start_time is None:
        return "main"
    return f"{flow_run.expected_start_time.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}"
