"""docs/cutting.md: what it tells people to write is what a document takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from prefect_kling.media.transitions import KINDS, SHORT_NAMES
from prefect_kling.storyboard.cut import Cut

PAGE = (Path(__file__).parents[2] / "docs" / "cutting.md").read_text("utf-8")
ROWS = [row.split("|") for row in PAGE.partition("## For each platform")[2].splitlines() if row.startswith("| ")][1:]


def taken(text: str) -> Cut:
    said: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return Cut.model_validate(said)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1].strip())
def test_a_platforms_fields_are_taken(row: list[str]) -> None:
    fields = re.findall(r"`([^`]+)`", row[-2])
    cut = taken("\n".join(fields))
    assert len(cut.model_fields_set) == len(fields) > 0
    level = re.match(r" (-\d+)", row[2])
    assert level is None or cut.loudness == int(level[1])
    assert not cut.size or cut.size in row[3]


def test_the_example_is_taken() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert taken(text).size == "1080x1920"


def test_the_kinds_of_transition_that_it_names_are_there() -> None:
    section = PAGE.partition("## Transitions")[2].partition("##")[0]
    named = set(re.findall(r"`(\w+)`", section))
    assert named <= set(KINDS)
    assert named >= SHORT_NAMES.keys() | set(SHORT_NAMES.values())
