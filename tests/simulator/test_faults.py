"""The language of faults."""

from __future__ import annotations

import pytest

from prefect_kling.simulator import faults as module
from prefect_kling.simulator.faults import FAULTS, Fault, Faults, parse_faults, strikes


def test_a_spec_is_read_into_faults() -> None:
    assert parse_faults(" lost-answer=@2, 429=0.1,,502=1 ") == (
        Fault("lost-answer", nth=2),
        Fault("429", probability=0.1),
        Fault("502", probability=1.0),
    )
    assert parse_faults("") == ()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("lost=0.1", "'lost' is unknown"),
        ("429", "needs a probability or @n"),
        ("429=1.5", "from 0 to 1"),
        ("429=-0.1", "from 0 to 1"),
        ("429=@0", "n from 1"),
        ("429=nan", "from 0 to 1"),
        ("429=", "from 0 to 1"),
    ],
)
def test_what_cannot_be_read_is_named(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match="faults: ") as caught:
        parse_faults(spec)
    assert said in str(caught.value)


def test_the_nth_opportunity_is_struck_and_no_other() -> None:
    faults = parse_faults("failed=@2,failed=@4")
    assert [n for n in range(1, 7) if strikes(faults, "failed", n, seed=1)] == [2, 4]


def test_a_probability_is_kept_over_many_opportunities_and_the_seed_decides() -> None:
    faults = parse_faults("html=0.3")
    struck = [n for n in range(1, 2001) if strikes(faults, "html", n, seed=5)]
    assert 500 < len(struck) < 700
    assert struck == [n for n in range(1, 2001) if strikes(faults, "html", n, seed=5)]
    assert struck != [n for n in range(1, 2001) if strikes(faults, "html", n, seed=6)]


def test_one_fault_does_not_move_another() -> None:
    """Adding a fault to a spec leaves the others where they struck before."""
    alone, together = Faults("500=0.4", 3), Faults("429=0.4,500=0.4", 3)
    alone_at = {n for n in range(200) if alone.first(("429", "500")) == "500"}
    together_at = {n: together.first(("429", "500")) for n in range(200)}
    assert {n for n, fault in together_at.items() if fault == "500"} <= alone_at
    assert all(together_at[n] in ("429", "500") for n in alone_at)


def test_what_struck_is_counted() -> None:
    faults = Faults("failed=@1,moderation=@1,expired=@2", 0)
    assert faults.first(("failed", "moderation", "expired")) == "failed"
    assert faults.first(("failed", "moderation", "expired")) == "expired"
    assert faults.injected == {"failed": 1, "expired": 1}


def test_every_fault_is_documented() -> None:
    text = module.__doc__ or ""
    assert [name for name in FAULTS if f"`{name}`" not in text and not name.startswith("accepted-")] == []
