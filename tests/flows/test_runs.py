"""What a flow run's edition is: given, its schedule's time, or main."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from prefect_kling.flows.runs import edition_of_run, run_id

SIX = datetime(2026, 11, 22, 6, tzinfo=UTC)


@contextmanager
def within(**fields: object) -> Iterator[FlowRun]:
    run = FlowRun.model_validate({"flow_id": uuid4(), "name": "quick-otter", **fields})
    with FlowRunContext.model_construct(flow_run=run):  # type: ignore[call-arg] # nothing else is looked at
        yield run


def test_outside_of_a_run_there_is_only_main() -> None:
    assert (edition_of_run(None), edition_of_run("x"), run_id()) == ("main", "x", "")


@pytest.mark.parametrize(
    ("at", "scheduled", "edition"),
    [
        (SIX, True, "2026-11-22T06-00-00Z"),
        (SIX.astimezone(timezone(timedelta(hours=9))), True, "2026-11-22T06-00-00Z"),
        (SIX + timedelta(days=1), True, "2026-11-23T06-00-00Z"),
        # A run that somebody starts has a start time too, and is meant to use what is there.
        (SIX, False, "main"),
        (None, True, "main"),
    ],
)
def test_only_a_schedule_makes_an_edition(at: datetime | None, scheduled: bool, edition: str) -> None:
    with within(expected_start_time=at, auto_scheduled=scheduled) as run:
        assert edition_of_run(None) == edition
        assert edition_of_run("given") == "given"
        assert run_id() == str(run.id)


def test_a_slot_that_is_fired_twice_and_its_retries_are_one_edition() -> None:
    editions = set()
    for run_count in (1, 2, 1):
        with within(expected_start_time=SIX, auto_scheduled=True, run_count=run_count):
            editions.add(edition_of_run(None))
    assert len(editions) == 1
