"""What a run's final state says about shots that went wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from prefect_kling import Clip, cli
from prefect_kling.flows.outcome import Rendering, ShotOutcome, TakeOutcome
from prefect_kling.gateway.errors import AuthenticationFailed, CheckFailed, InvalidMedia, KlingError, PurchaseUncertain
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

CLIP = Clip(
    path="/srv/films/a.mp4",
    sha256="ab" * 32,
    bytes=9,
    seconds=5.04,
    frames=121,
    width=1280,
    height=720,
    task_id="t-1",
    url="https://gateway.example.com/t-1.mp4",
    url_expires_at=datetime(2026, 11, 29, tzinfo=UTC),
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


def test_a_generation_that_failed_beside_a_clip_is_told_and_is_no_error() -> None:
    def further(kind: str) -> TakeOutcome:
        return TakeOutcome(take=1, error_type=kind, error="The gateway made no clip")

    missing = (further("GenerationFailed"), further("PurchaseUncertain"))
    shot = ShotOutcome.stored("a", CLIP, None, kept=False, take=3).model_copy(update={"further": missing})
    failed = ShotOutcome.failed("b", CheckFailed("b, take 2, failed its checks: black"), None).model_copy(
        update={"further": (*missing, TakeOutcome(take=2, faults="black"))}
    )
    rendering = Rendering(title="T", film=None, shots=(shot, failed))
    assert rendering.error_types == ("CheckFailed", "PurchaseUncertain", "GenerationFailed", "PurchaseUncertain")
    assert "a, take 1: a further take is missing: The gateway made no clip" in rendering.sentence()
    assert rendering.sentence().count("black") == 1


def test_a_further_take_is_printed_in_the_shape_of_a_shot() -> None:
    take = TakeOutcome(take=2, usd=Decimal("0.1899"), clip=CLIP)
    shot = ShotOutcome.stored("a", CLIP, None, kept=True, take=1).model_copy(update={"further": (take,)})
    printed = cli._shot_json(shot)
    (further,) = printed["further_takes"]
    assert (further["usd"], further["clip"], further["sha256"]) == (0.1899, CLIP.path, CLIP.sha256)
    assert {name: type(further[name]) for name in ("usd", "clip")} == {
        name: type(printed[name]) for name in ("usd", "clip")
    }
