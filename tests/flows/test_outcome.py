"""What a run's final state says about shots that went wrong."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect_kling.flows.outcome import Rendering, ShotOutcome
from prefect_kling.gateway.errors import AuthenticationFailed, InvalidMedia, KlingError, PurchaseUncertain
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.states import State

BOUGHT = Purchase(
    id=1,
    token="0" * 32,
    state=State.SUBMITTED,
    order=Order("main", "k1:0#1", {}, "kling-v3-omni", 3, 189_900),
    counted=189_900,
    owner="",
    lease_until=None,
    spare=False,
    task_id="7f3a",
    result_url=None,
    expires_at=None,
    reason=None,
    error=None,
    clip=None,
    created_at=datetime(2026, 11, 22, tzinfo=UTC),
    sent_at=None,
    answered_at=None,
    polled_at=None,
    missing_since=None,
    ended_at=None,
    stored_at=None,
)


def said(*errors: Exception, bought: Purchase | None = None) -> str:
    shots = tuple(ShotOutcome.failed(f"s{n}", error, bought) for n, error in enumerate(errors))
    return Rendering(title="T", film=None, shots=shots).sentence()


def test_a_reason_that_stops_several_shots_is_told_once() -> None:
    sentence = said(*[AuthenticationFailed("The gateway refuses the key")] * 3, KlingError("Something else"))
    assert "s0, s1, s2: The gateway refuses the key; s3: Something else." in sentence


def test_of_a_thousand_shots_ten_are_named() -> None:
    sentence = said(*[AuthenticationFailed("The gateway refuses the key")] * 1000)
    assert "s8, s9 and 990 more: The gateway refuses the key." in sentence


def test_no_sentence_ends_twice() -> None:
    assert ".." not in said(PurchaseUncertain("The answer was lost."), InvalidMedia("clip.mp4 is no video."))


def test_what_was_bought_before_the_failure_is_named_once() -> None:
    assert "OSError: disk full (bought as task 7f3a)." in said(OSError("disk full"), bought=BOUGHT)
    assert said(KlingError("Task 7f3a did not end"), bought=BOUGHT).count("7f3a") == 1
