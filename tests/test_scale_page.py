"""docs/scale.md: what it has people set is known to Prefect and is what was measured, and its sums are right."""

from __future__ import annotations

import re
from pathlib import Path

import prefect.settings
import pytest
from prefect.settings import get_current_settings
from prefect.settings.models.root import Settings

from benchmarks.prefect_server import MANY_RUNS
from benchmarks.thousand import GENERATION_SECONDS, IN_FLIGHT, SHOTS

PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text("utf-8")
SET = dict(re.findall(r"^(PREFECT_\w+)=(\S+)$", PAGE, re.MULTILINE))
A_SECOND = 1_000_000 / 86_400


def test_each_setting_is_known_to_prefect_and_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SET) == 7
    before = get_current_settings().model_dump()
    for name, value in SET.items():
        assert hasattr(prefect.settings, name)
        monkeypatch.setenv(name, value)
    assert Settings().model_dump()["server"] != before["server"]


def test_the_servers_settings_are_those_that_were_measured() -> None:
    assert SET.items() >= MANY_RUNS.items()


def test_what_was_measured_is_what_the_benchmark_does() -> None:
    said = f"{SHOTS:,} shots of one storyboard, {IN_FLIGHT} in flight, {GENERATION_SECONDS:g} s each at the gateway"
    assert said in PAGE
    assert f"The slots alone take {SHOTS / IN_FLIGHT * GENERATION_SECONDS:g} s" in PAGE


@pytest.mark.parametrize(
    "said",
    [
        f"{A_SECOND:.1f} shots a second",
        f"{A_SECOND * 60:.0f} in flight; at 180 s a shot, {A_SECOND * 180:,.0f}",
        f"{A_SECOND * 3:.0f} a second, and {A_SECOND:.0f} calls to the receiver",
        f"{A_SECOND * 3:.0f} to {A_SECOND * 10:.0f} MB/s, {A_SECOND * 0.024:.1f} to {A_SECOND * 0.08:.1f} Gbit/s",
        f"A run of a thousand shots is {1000 / A_SECOND:.0f} s of that day",
        f"{A_SECOND * 60 / 5:.0f} GETs a second in place of {A_SECOND:.0f}",
    ],
)
def test_its_sums_are_right(said: str) -> None:
    assert said in PAGE


def test_nothing_was_left_to_be_filled_in() -> None:
    assert re.findall(r"\b[A-Z]{2,}_[A-Z]{2,}\b(?!=)", re.sub(r"PREFECT_\w+", "", PAGE)) == []
