"""About how long a plan takes."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.media.transitions import HARD, Transition
from prefect_kling.storyboard.cutting import FilmCut, ShotCut
from prefect_kling.storyboard.order import ordered
from prefect_kling.storyboard.plan import Plan, PlannedShot
from prefect_kling.storyboard.timing import ARRIVAL_SECONDS, Expected, expected_seconds

REQUEST = OmniVideoRequest(model="kling-v3-omni", mode="std", prompt="x", aspect_ratio="16:9", duration="5")
MADE = 100 + ARRIVAL_SECONDS
JOIN = 5


def planned(needs: dict[str, str], *, in_cut: bool = False, transition: Transition = HARD) -> Plan:
    """A plan of shots with what each needs, a letter each; joining shots that the film does not show takes `JOIN`."""
    film = FilmCut(shots=tuple(ShotCut(name, seconds=Fraction(5), transition=transition) for name in needs))
    shots = {
        name: PlannedShot(name, tuple(wanted), REQUEST, (), 5, Decimal(0), Decimal(0), (), in_cut)
        for name, wanted in needs.items()
    }
    return Plan(tuple(shots.values()), tuple(shots[name] for name in ordered(needs)), film=film)


CHAIN = {"a": "", "b": "a", "c": "b"}
FAN = {"a": "", "b": "a", "c": "a", "d": "a", "e": "bcd"}
FREE = dict.fromkeys("abcdefg", "")


@pytest.mark.parametrize(
    ("needs", "to_make", "in_flight", "seconds"),
    [
        pytest.param(CHAIN, {"a": 1, "b": 1, "c": 1}, 20, 3 * MADE, id="a chain, one after another"),
        pytest.param(CHAIN, {"c": 1}, 20, MADE, id="what is kept takes no time"),
        pytest.param(CHAIN, {}, 20, 0, id="all is kept"),
        pytest.param(FAN, dict.fromkeys("abcde", 1), 20, 3 * MADE, id="a fan, at once"),
        pytest.param(FAN, dict.fromkeys("abcde", 1), 2, 3 * MADE + 100, id="a fan wider than the slots"),
        pytest.param(FREE, dict.fromkeys(FREE, 1), 20, MADE, id="slots for all"),
        pytest.param(FREE, dict.fromkeys(FREE, 1), 3, 200 + MADE, id="slots for three"),
        pytest.param(FREE, dict.fromkeys(FREE, 1), 1, 600 + MADE, id="one slot is free again before the download"),
        pytest.param({"a": ""}, {"a": 3}, 20, MADE, id="takes at once"),
        pytest.param({"a": ""}, {"a": 3}, 2, 100 + MADE, id="takes in turn"),
        pytest.param({"a": "", "b": "a"}, {"a": 3, "b": 1}, 4, 2 * MADE, id="the first take is enough for the next"),
        pytest.param({"a": "", "b": "", "c": "ab"}, {"a": 1, "c": 1}, 20, 2 * MADE, id="the later need decides"),
        pytest.param({"a": "b", "b": ""}, {"a": 1, "b": 1}, 20, 2 * MADE, id="needs may come later in the document"),
    ],
)
def test_shots_are_made_as_slots_and_needs_allow(
    needs: dict[str, str], to_make: dict[str, int], in_flight: int, seconds: float
) -> None:
    found = expected_seconds(planned(needs), to_make, in_flight, 100, 200)
    assert found.seconds == JOIN + seconds


def test_joining_takes_longer_the_longer_the_film() -> None:
    short, long = (expected_seconds(planned(needs, in_cut=True), {}, 1) for needs in (CHAIN, FREE))
    assert JOIN < short.seconds < long.seconds < JOIN + 2
    assert short.seconds == short.slow_seconds


def test_a_film_with_transitions_is_shorter_and_takes_longer_as_it_is_encoded() -> None:
    fade = Transition("crossfade", Fraction(1))
    hard, faded = (planned(FREE, in_cut=True, transition=transition) for transition in (HARD, fade))
    assert (float(hard.film_seconds), float(faded.film_seconds)) == (35.0, 29.0)
    assert expected_seconds(faded, {}, 1).seconds > expected_seconds(hard, {}, 1).seconds + 10


def test_the_gateways_median_and_its_slow_tenth_are_what_is_reckoned_with() -> None:
    found = expected_seconds(planned({"a": ""}), {"a": 1}, 20)
    assert found == Expected(JOIN + 142 + ARRIVAL_SECONDS, JOIN + 486 + ARRIVAL_SECONDS)


@pytest.mark.parametrize(
    ("seconds", "slow", "said"),
    [
        (3, 3, "about 10 s, 10 s if slow"),
        (84, 95, "about 80 s, 2 min if slow"),
        (700, 2400, "about 12 min, 40 min if slow"),
        (5340, 7200, "about 89 min, 2 h if slow"),
        (5400, 12_000, "about 1 h 30 min, 3 h 20 min if slow"),
    ],
)
def test_it_is_told_no_finer_than_it_is_known(seconds: float, slow: float, said: str) -> None:
    assert str(Expected(seconds, slow)) == said
