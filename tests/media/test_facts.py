"""What a probe found travels as JSON and comes back the same, or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.probe import probe


@pytest.fixture
async def facts(shots: list[Path]) -> MediaFacts:
    [found] = await probe(shots[:1])
    return found


def test_facts_come_back_from_json_as_they_were(facts: MediaFacts) -> None:
    assert MediaFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": "12"},
        {"bytes": True},
        {"seconds": 0.5},
        {"seconds": "1/0"},
        {"video": None},
        {"audio": {"index": 1}},
        {"unheard_of": 1},
    ],
)
def test_what_is_not_exactly_facts_is_refused(facts: MediaFacts, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="MediaFacts"):
        MediaFacts.from_json({**facts.to_json(), **change})


def test_a_missing_field_is_refused(facts: MediaFacts) -> None:
    document = facts.to_json()
    del document["video"]["constant"]
    with pytest.raises(ValueError, match="VideoFacts needs exactly"):
        MediaFacts.from_json(document)


def test_facts_that_are_older_than_a_field_can_be_read(facts: MediaFacts) -> None:
    document = facts.to_json()
    assert document["video"].pop("encoder")
    older = MediaFacts.from_json(document)
    assert older == replace(facts, video=replace(facts.video, encoder=None))
    assert older.copy_key == facts.copy_key


def test_facts_are_read_without_loading_any_media_library() -> None:
    code = "import sys, prefect_kling.media.facts; assert not {'av', 'numpy', 'PIL'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("aspect", "rotation", "shown"),
    [
        (Fraction(1), 0, (320, 180)),
        (Fraction(1), 90, (180, 320)),
        (Fraction(4, 3), 0, (427, 180)),
        (Fraction(1, 2), 0, (320, 360)),
        (Fraction(2), 270, (180, 640)),
    ],
)
def test_the_shown_size_has_square_pixels_and_is_turned(
    facts: MediaFacts, aspect: Fraction, rotation: int, shown: tuple[int, int]
) -> None:
    assert replace(facts.video, sample_aspect=aspect, rotation=rotation).shown_size == shown
