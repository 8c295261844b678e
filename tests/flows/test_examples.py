"""Every storyboard in storyboards/ renders as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest

from prefect_kling import KlingStudio
from prefect_kling.flows import render_storyboard
from prefect_kling.flows.outcome import Rendering
from prefect_kling.simulator.server import Running
from prefect_kling.storyboard.plan import plan
from prefect_kling.storyboard.reader import read_storyboard

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(300)]

FOLDER = Path(__file__).parents[2] / "storyboards"
RENDERED_HERE = {"story": 120.0, "ladder": 16.0, "dialogue": 14.0, "trailer": 15.0}
"""Seconds of each film. lighthouse.yaml is rendered by the test of `make film`, teaser.yaml as a series below."""
RENDERED_ELSEWHERE = {"lighthouse", "teaser"}


async def rendered(name: str, studio: KlingStudio) -> Rendering:
    state: Any = await render_storyboard(str(FOLDER / f"{name}.yaml"), studio, return_state=True)
    rendering: Rendering = await state.aresult(raise_on_failure=False)
    assert isinstance(rendering, Rendering), rendering
    assert rendering.film is not None, rendering.sentence()
    return rendering


def test_every_example_is_rendered_by_some_test() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*RENDERED_HERE, *RENDERED_ELSEWHERE}


@pytest.mark.parametrize("name", sorted(RENDERED_HERE))
async def test_an_example_renders(name: str, studio: KlingStudio, simulator: Running) -> None:
    planned = plan(read_storyboard(FOLDER / f"{name}.yaml"))
    assert [warning for shot in planned.shots for warning in shot.warnings] == []
    rendering = await rendered(name, studio)
    assert rendering.film is not None
    # Clips run slightly over what was ordered (gateway.md, "Output sizes").
    assert rendering.film.seconds == pytest.approx(RENDERED_HERE[name], abs=0.1 * len(planned.shots))
    assert rendering.usd == planned.upper_usd
    assert simulator.service.stats()["creates"] == len(planned.shots)
    with av.open(rendering.film.path) as film:
        assert sum(1 for _ in film.decode(video=0)) == rendering.film.frames


def test_the_story_has_three_chains_that_do_not_need_each_other() -> None:
    planned = plan(read_storyboard(FOLDER / "story.yaml"))
    chains = {shot.id: shot.id.split("-")[0] for shot in planned.shots}
    assert all(chains[need] == chains[shot.id] for shot in planned.shots for need in shot.needs)
    assert len(set(chains.values())) == 3
    assert len(planned.critical_path) == 8


def test_the_ladder_edits_one_take_three_times() -> None:
    planned = plan(read_storyboard(FOLDER / "ladder.yaml"))
    assert planned.critical_path == ("square", "rain", "snow", "drawn")
    assert all(shot.request.base_video is not None for shot in planned.shots[1:])
