"""The storyboards that come with the project render as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_kling.gateway.limits import image_facts, image_refusal
from prefect_kling.storyboard.document import Shot
from prefect_kling.storyboard.plan import plan
from prefect_kling.storyboard.reader import read_storyboard

EXAMPLES = Path(__file__).parents[2] / "storyboards"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_can_be_planned_without_a_warning(path: Path) -> None:
    of_a_row = {"product": "Mug", "picture": "mug.png", "color": "crimson", "city": "Lisbon"}
    found = plan(read_storyboard(path, variables=of_a_row if path.stem == "teaser" else None))
    assert {shot.warnings for shot in found.shots} == {()}


def test_the_lighthouse_shows_each_way_to_make_a_shot_and_is_quick() -> None:
    document = read_storyboard(EXAMPLES / "lighthouse.yaml")
    said = {field for shot in document.storyboard.shots for field in shot.model_fields_set}
    assert said >= {"base", "feature", "continues", "images", "sound"}
    assert len(document.storyboard.shots) >= 6
    assert all(3 <= shot.seconds <= 5 for shot in plan(document).shots)
    assert Shot(id="x").model_fields_set == {"id"}


def test_the_reference_picture_is_one_that_the_gateway_takes() -> None:
    data = (EXAMPLES / "refs" / "harbour.png").read_bytes()
    assert image_refusal(image_facts(data)) is None
    assert len(data) < 100_000
