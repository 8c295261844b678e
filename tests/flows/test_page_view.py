"""What a run's page says, as text."""

from __future__ import annotations

from decimal import Decimal
from typing import get_args

import pytest

from prefect_kling.flows.page_view import MOST_ROWS, PageShot, artifact_key, done_share, escaped, linked, summary
from prefect_kling.flows.progress import Step

OF_FILMS = {"joining", "rendering", "rendered", "not-begun"}


def shots() -> list[PageShot]:
    return [
        PageShot("dawn", "stored", seconds=4.04, usd=Decimal("0.2532"), picture="data:image/webp;base64,AAAA"),
        PageShot("storm", "generating", "task 1a2b", seconds=4.0),
        PageShot("keeper", "failed", "no way", seconds=3.0, take=2, usd=Decimal("0.1")),
    ]


def test_a_row_for_each_shot_in_the_documents_order() -> None:
    assert summary("Lighthouse", "main", shots(), Decimal("0.6032")) == (
        "# Lighthouse\n\n"
        "Edition main: 1 of 3 clips are there; this run has spent 0.60 USD.\n\n"
        "| Shot | State | Take | Seconds | USD | Picture | Note |\n"
        "|---|---|---|---|---|---|---|\n"
        "| dawn | Stored | 1 | 4.0 | 0.25 | ![](data:image/webp;base64,AAAA) |  |\n"
        "| storm | Generating | 1 | 4.0 |  |  | task 1a2b |\n"
        "| keeper | **Failed** | 2 | 3.0 | 0.10 |  | no way |\n"
    )


def test_how_it_ended_takes_the_place_of_how_it_goes() -> None:
    waiting = summary("Lighthouse", "main", shots(), Decimal(1), note="The cut waits")
    assert "this run has spent 1.00 USD.\n\nThe cut waits\n\n| Shot" in waiting
    said = summary("Lighthouse", "main", shots(), Decimal(1), note="The cut waits", end="6 clips, 2.14 USD")
    assert "\n\n6 clips, 2.14 USD\n\n" in said
    assert "has spent" not in said
    assert "waits" not in said


def test_without_pictures_there_is_no_column_for_them() -> None:
    assert "| Shot | State | Take | Seconds | USD | Note |\n" in summary("L", "main", [PageShot("dawn")], Decimal())


def test_of_a_great_many_shots_those_are_shown_that_somebody_has_to_see() -> None:
    many = [PageShot(f"s{n}", "stored") for n in range(MOST_ROWS + 50)]
    many[120].step, many[240].step = "generating", "failed"
    rows = [line for line in summary("L", "main", many, Decimal()).splitlines() if line.startswith("| s")]
    assert len(rows) == MOST_ROWS
    assert [row for row in rows if "Stored" not in row] == [
        "| s120 | Generating | 1 | 0.0 |  |  |",
        "| s240 | **Failed** | 1 | 0.0 |  |  |",
    ]
    assert rows[0].startswith("| s0 |")
    assert "50 more shots are not shown." in summary("L", "main", many, Decimal())


@pytest.mark.parametrize("step", [step for step in get_args(Step) if step not in OF_FILMS])
def test_every_step_of_a_shot_has_a_name(step: Step) -> None:
    assert f"| dawn | {step} |" not in summary("L", "main", [PageShot("dawn", step)], Decimal())


@pytest.mark.parametrize(
    ("steps", "percent"),
    [
        ([], 0.0),
        (["planned", "waiting"], 0.0),
        (["stored", "kept"], 100.0),
        (["stored", "failed", "blocked", "kept"], 50.0),
        (["stored", "planned"], 50.0),
        (["buying", "generating", "downloading", "checking"], 50.0),
    ],
)
def test_how_much_is_done(steps: list[Step], percent: float) -> None:
    assert done_share(PageShot(str(n), step) for n, step in enumerate(steps)) == percent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A | B", "A \\| B"),
        ("![x](https://example.com/pixel.png)", "\\!\\[x\\]\\(https://example.com/pixel.png\\)"),
        ("<script>", "\\<script\\>"),
        ("two\nlines", "two lines"),
        ("`prefect-kling plan`", "\\`prefect\\-kling plan\\`"),
        ("&lt;", "\\&lt;"),
    ],
)
def test_text_is_text(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_film_is_linked_where_a_browser_can_follow() -> None:
    assert linked("Film", "https://films.example.com/a (1).mp4") == "[Film](<https://films.example.com/a (1).mp4>)"
    assert linked("Film", "/films/a*.mp4") == "Film: /films/a\\*.mp4"
    assert linked("Film", "https://x/a>b") == "[Film](<https://x/a%3Eb>)"


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("Lighthouse", "shots-lighthouse"),
        ("The storm, No. 2", "shots-the-storm-no-2"),
        ("灯台", "shots"),
        ("", "shots"),
    ],
)
def test_an_artifacts_key(title: str, key: str) -> None:
    assert artifact_key("shots", title) == key


def test_a_key_is_not_too_long_for_prefect() -> None:
    assert artifact_key("progress", "ab-" * 200) == "progress-" + "ab-" * 19 + "ab"
