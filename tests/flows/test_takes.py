"""Takes: which one the film uses, what checks and retakes cost, and what moderation refuses."""

from __future__ import annotations

import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from prefect_kling import KlingCredentials, KlingStudio
from prefect_kling.flows import render_storyboard
from prefect_kling.flows.outcome import Rendering, ShotOutcome
from prefect_kling.flows.preparing import Wish, prepare
from prefect_kling.flows.reckoning import numbers
from prefect_kling.flows.standing import Standing
from prefect_kling.gateway.errors import InsufficientCredits, StoryboardError
from prefect_kling.ledger.desk import desk
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.pruning import prunable, prune
from prefect_kling.ledger.takes import Pin
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running
from prefect_kling.storyboard.document import Storyboard
from prefect_kling.storyboard.plan import plan
from prefect_kling.storyboard.reader import document_of

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(180)]

BOARD = """\
title: Takes
defaults:
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: dawn
    prompt: A lighthouse at dawn
  - id: storm
    prompt: A storm at night
    base: dawn
"""
PRICE = 3 * Decimal("0.0633")
REFUSED_ON_CREATE, REFUSED_AT_THE_END = "forbiddenword", "forbiddenpicture"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "board.yaml"
    path.write_text(BOARD)
    return path


@pytest.fixture
def own_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A check of the user's own that refuses the first clips it sees; call it with how many."""
    folder = tmp_path / "checks"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def refusing(count: int) -> str:
        (folder / "brand_checks.py").write_text(
            "refused = []\n\n\ndef logo(path):\n"
            f"    if len(refused) < {count}:\n"
            "        refused.append(path.name)\n"
            "        return 'there is no logo'\n"
        )
        sys.modules.pop("brand_checks", None)
        return "check:\n      function: brand_checks:logo"

    yield refusing
    sys.modules.pop("brand_checks", None)


async def render(board: Path, studio: KlingStudio, **wishes: Any) -> Rendering:
    state: Any = await render_storyboard(str(board), studio, return_state=True, **wishes)
    rendering = await state.aresult(raise_on_failure=False)
    if isinstance(rendering, BaseException):
        raise rendering
    assert isinstance(rendering, Rendering)
    return rendering


async def standing(board: Path, studio: KlingStudio, **wishes: Any) -> dict[str, Standing]:
    return dict((await prepare(str(board), studio, {}, Wish(**wishes))).standings)


def shot_of(rendering: Rendering, name: str) -> ShotOutcome:
    return next(shot for shot in rendering.shots if shot.id == name)


async def nothing_left(studio: KlingStudio) -> None:
    ours = await desk(studio.settings())
    assert (await ours.ledger.spent(ours.account, Hold("", "", ""))).held == 0
    assert await ours.ledger.audit(ours.account) == {}


@pytest.mark.parametrize(
    ("said", "pin", "candidates", "wanted"),
    [
        ({}, None, (1,), (1,)),
        ({"takes": 3}, None, (1, 2, 3), (1, 2, 3)),
        ({"takes": 2, "max_retakes": 2}, None, (1, 2, 3, 4), (1, 2)),
        ({"max_retakes": 1}, Pin(4, "r", 4), (4, 5), (4,)),
        ({"takes": 3}, Pin(4, "r", 4), (4,), (4, 1, 2)),
        ({"takes": 3}, Pin(2, "r", 2), (2,), (2, 1, 3)),
        # One that was chosen goes before the others of its series, which gets no longer by it.
        ({"takes": 3}, Pin(2, "r"), (2, 1, 3), (2, 1, 3)),
        ({"max_retakes": 2}, Pin(2, "r"), (2, 1, 3), (2,)),
        ({}, Pin(3, "r"), (3, 1), (3,)),
        ({"max_retakes": 2}, Pin(5, "r", 4), (5, 4, 6), (5,)),
        ({"take": 2}, None, (2,), (2,)),
        ({"take": 2, "takes": 3, "max_retakes": 2}, Pin(5, "r", 5), (2,), (2, 1, 3)),
        ({"take": 5, "takes": 3}, None, (5,), (5, 1, 2)),
    ],
)
def test_which_takes_the_film_may_use_and_which_are_bought(
    said: dict[str, int], pin: Pin | None, candidates: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    board = Storyboard.model_validate({"title": "T", "shots": [{"id": "a", "prompt": "A", **said}]})
    (shot,) = plan(document_of(board)).shots
    assert numbers(shot, pin) == (candidates, wanted)


async def test_a_clip_that_fails_its_check_is_kept_and_named_and_no_other_is_bought(
    studio: KlingStudio, simulator: Running, board: Path, own_check: Any
) -> None:
    board.write_text(BOARD.replace("at dawn\n", f"at dawn\n    {own_check(1)}\n"))
    rendering = await render(board, studio)
    dawn = shot_of(rendering, "dawn")
    assert (dawn.status, dawn.error_type, dawn.usd) == ("failed", "CheckFailed", PRICE)
    assert "there is no logo" in str(dawn.error)
    assert "take: 1" in str(dawn.error)
    (kept,) = (tmp for tmp in Path(studio.storage_url).rglob("clips/**/*.mp4"))
    assert str(kept) in str(dawn.error)
    assert shot_of(rendering, "storm").status == "blocked"
    assert simulator.service.stats()["creates"] == 1
    # The verdict is remembered: the clip is not looked at again, and nothing is bought.
    assert (await standing(board, studio))["dawn"].status == "failed"
    assert (await render(board, studio)).usd == 0
    assert simulator.service.stats()["creates"] == 1
    # Whoever wants it all the same says so; what is wrong with it is said then, too.
    board.write_text(board.read_text().replace("at dawn\n", "at dawn\n    take: 1\n"))
    told = await render(board, studio)
    assert told.film is not None
    assert "dawn, take 1: failed its checks and is used all the same: there is no logo" in told.sentence()
    await nothing_left(studio)


async def test_a_failed_check_buys_as_many_retakes_as_allowed_and_reruns_buy_none(
    studio: KlingStudio, simulator: Running, board: Path, own_check: Any
) -> None:
    board.write_text(BOARD.replace("at dawn\n", f"at dawn\n    max_retakes: 2\n    {own_check(1)}\n"))
    rendering = await render(board, studio)
    dawn = shot_of(rendering, "dawn")
    assert (rendering.film is not None, dawn.take, rendering.usd) == (True, 2, 3 * PRICE)
    (refused,) = dawn.further
    assert (refused.take, refused.faults, refused.error) == (1, "there is no logo", None)
    assert "dawn, take 1: failed its checks and is not used: there is no logo" in rendering.sentence()
    again = await render(board, studio)
    assert again.usd == 0
    assert (shot_of(again, "dawn").take, shot_of(again, "storm").status) == (2, "kept")
    assert simulator.service.stats()["creates"] == 3
    found = await standing(board, studio)
    assert (found["dawn"].status, found["dawn"].take, found["storm"].status) == ("kept", 2, "kept")
    await nothing_left(studio)


async def test_retakes_end_where_they_are_not_allowed_any_more(
    studio: KlingStudio, simulator: Running, board: Path, own_check: Any
) -> None:
    board.write_text(BOARD.replace("at dawn\n", f"at dawn\n    max_retakes: 2\n    {own_check(9)}\n"))
    rendering = await render(board, studio)
    dawn = shot_of(rendering, "dawn")
    assert (rendering.film, dawn.error_type, simulator.service.stats()["creates"]) == (None, "CheckFailed", 3)
    assert all(f"dawn, take {take}, failed" in str(dawn.error) for take in (1, 2, 3))
    assert (await render(board, studio)).usd == 0
    assert simulator.service.stats()["creates"] == 3


async def test_retakes_stay_within_the_budget(
    studio: KlingStudio, simulator: Running, board: Path, own_check: Any
) -> None:
    board.write_text(BOARD.replace("at dawn\n", f"at dawn\n    max_retakes: 5\n    {own_check(9)}\n"))
    rendering = await render(board, studio, budget=float(2 * PRICE) + 0.001)
    assert simulator.service.stats()["creates"] <= 2
    assert shot_of(rendering, "dawn").error_type == "CheckFailed"
    assert "budget" in rendering.sentence()


async def test_of_several_takes_the_first_that_passes_is_used(
    studio: KlingStudio, simulator: Running, board: Path, own_check: Any
) -> None:
    board.write_text(BOARD.replace("at dawn\n", f"at dawn\n    takes: 3\n    {own_check(1)}\n"))
    rendering = await render(board, studio)
    dawn = shot_of(rendering, "dawn")
    assert {dawn.take, *(take.take for take in dawn.further)} == {1, 2, 3}
    assert rendering.usd == 4 * PRICE
    (bad,) = [take for take in dawn.further if take.faults]
    assert dawn.take == (2 if bad.take == 1 else 1)
    assert simulator.service.stats()["creates"] == 4


async def test_a_check_that_is_broken_buys_nothing_and_fails_the_shot(
    studio: KlingStudio, simulator: Running, board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_checks.py").write_text("def logo(path):\n    raise ZeroDivisionError('no')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = "max_retakes: 3\n    check:\n      function: broken_checks:logo"
    board.write_text(BOARD.replace("at dawn\n", f"at dawn\n    {said}\n"))
    rendering = await render(board, studio)
    assert shot_of(rendering, "dawn").error_type == "StoryboardError"
    assert "broken_checks:logo raised ZeroDivisionError: no" in str(shot_of(rendering, "dawn").error)
    assert simulator.service.stats()["creates"] == 1
    sys.modules.pop("broken_checks")


async def test_a_check_that_is_not_there_is_told_before_anything_is_bought(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    board.write_text(BOARD.replace("at dawn\n", "at dawn\n    check:\n      function: nowhere.at_all:logo\n"))
    with pytest.raises(StoryboardError, match=r"nowhere\.at_all:logo cannot be imported"):
        await render(board, studio)
    typed = Storyboard.model_validate(
        {"title": "T", "shots": [{"id": "a", "prompt": "A", "check": {"function": "os:getcwd"}}]}
    )
    with pytest.raises(StoryboardError, match="only a document that is a file"):
        await prepare(typed, studio, {}, Wish())
    assert simulator.service.stats()["posts"] == 0


async def test_a_told_take_is_bought_where_it_is_not_there(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    await render(board, studio)
    board.write_text(BOARD.replace("at dawn\n", "at dawn\n    take: 2\n"))
    found = await standing(board, studio)
    assert list(found["dawn"].to_buy) == [2]
    assert found["storm"].status == "stale"
    rendering = await render(board, studio)
    assert (shot_of(rendering, "dawn").take, rendering.usd) == (2, 2 * PRICE)
    board.write_text(BOARD)
    assert (await render(board, studio)).usd == 0
    board.write_text(BOARD.replace("at dawn\n", "at dawn\n    take: 2\n"))
    with pytest.raises(StoryboardError, match="take: 2"):
        await render(board, studio, retake=["dawn"])


async def test_where_an_earlier_take_has_no_clip_the_choice_is_kept(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    board.write_text(BOARD.replace("at dawn\n", "at dawn\n    takes: 2\n"))
    simulator.service.faults = simulator.service.faults.__class__("failed=@1", 1)
    rendering = await render(board, studio)
    dawn = shot_of(rendering, "dawn")
    assert rendering.film is not None, rendering.sentence()
    missing = {1, 2} - {dawn.take}
    before = simulator.service.stats()["creates"]
    # The missing take is bought by the rerun, as takes: 2 wants it; the film stays what it is.
    again = await render(board, studio)
    assert (shot_of(again, "dawn").take, shot_of(again, "storm").status) == (dawn.take, "kept")
    assert {take.take for take in shot_of(again, "dawn").further} == missing
    assert simulator.service.stats()["creates"] == before + 1
    assert (await render(board, studio)).usd == 0
    assert simulator.service.stats()["creates"] == before + 1


async def test_only_makes_some_shots_and_a_film_of_them_beside_the_whole(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    board.write_text(BOARD + "  - id: quay\n    prompt: The quay\n")
    part = await render(board, studio, only=["storm"])
    assert [shot.id for shot in part.shots] == ["dawn", "storm"]
    assert part.film is not None
    assert part.film.path.endswith("films/main/takes--storm.mp4")
    assert part.film.seconds == pytest.approx(3, abs=0.2)
    whole = await render(board, studio)
    assert whole.film is not None
    assert (whole.film.path.endswith("films/main/takes.mp4"), whole.usd) == (True, PRICE)
    assert Path(part.film.path).is_file()
    with pytest.raises(StoryboardError, match="--only: there is no shot 'strom'"):
        await render(board, studio, only=["strom"])


async def test_a_draft_is_cheap_and_apart(studio: KlingStudio, simulator: Running, board: Path) -> None:
    dear = BOARD.replace("duration: 3", "duration: 3\n  mode: pro")
    board.write_text(dear.replace("at dawn\n", "at dawn\n    takes: 3\n"))
    draft = await render(board, studio, draft=True)
    assert draft.usd == 2 * PRICE
    assert draft.film is not None
    assert "/films/draft/" in draft.film.path
    assert (await standing(board, studio))["dawn"].to_buy.keys() == {1, 2, 3}


async def test_what_costs_more_than_the_account_has_is_not_begun(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    simulator.service.account.balance = 190_000
    with pytest.raises(InsufficientCredits, match=r"costs about 0\.38 USD, and the account has 0\.19 USD"):
        await render(board, studio)
    assert simulator.service.stats()["posts"] == 0


SOFT = """\
    soften:
      - A knight rests, {words}
      - A knight rests
"""


def softening(prompt: str, first: str) -> str:
    soft = SOFT.replace("{words}", first)
    return BOARD.replace("prompt: A lighthouse at dawn\n", f"prompt: {prompt}\n{soft}")


@pytest.mark.parametrize("refused", [REFUSED_ON_CREATE, REFUSED_AT_THE_END])
async def test_what_moderation_refuses_is_tried_in_softer_words_and_never_silently(
    studio: KlingStudio, simulator: Running, board: Path, refused: str, caplog: pytest.LogCaptureFixture
) -> None:
    board.write_text(softening(f"A battle, {refused}", refused))
    rendering = await render(board, studio)
    dawn = shot_of(rendering, "dawn")
    assert (dawn.softened, dawn.take, rendering.film is not None) == (2, 1, True)
    assert "dawn, take 1: moderation refused it; prompt 2 of soften was used" in rendering.sentence()
    assert "tried again with prompt 1 of soften" in caplog.text
    # What was refused is not billed, and a rerun does not ask for it again.
    assert rendering.usd == 2 * PRICE
    posts = simulator.service.stats()["posts"]
    again = await render(board, studio)
    assert (again.usd, shot_of(again, "dawn").softened, shot_of(again, "dawn").status) == (Decimal(0), 2, "kept")
    assert simulator.service.stats()["posts"] == posts
    assert (await standing(board, studio))["storm"].status == "kept"
    # A retake begins with the shot's own words, as another take.
    retaken = await render(board, studio, retake=["dawn"])
    assert (shot_of(retaken, "dawn").take, shot_of(retaken, "dawn").softened) == (2, 2)
    await nothing_left(studio)


async def test_without_softer_words_a_refusal_is_final_and_buys_no_retakes(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    board.write_text(BOARD.replace("at dawn\n", f"at dawn, {REFUSED_AT_THE_END}\n    max_retakes: 3\n"))
    rendering = await render(board, studio)
    assert shot_of(rendering, "dawn").error_type == "GenerationFailed"
    assert (simulator.service.stats()["creates"], rendering.usd) == (1, Decimal(0))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("black", "black"),
        ("frozen", "frozen|motion"),
        ("short", "s long"),
        ("corrupt", "decod"),
    ],
)
async def test_clips_that_are_no_good_are_found_and_taken_again(
    studio: KlingStudio, board: Path, fault: str, said: str
) -> None:
    check = "check:\n      length: true\n      decodes: true\n      black: 0.5\n      frozen: 1.5"
    board.write_text(BOARD.replace("at dawn\n", f"at dawn\n    max_retakes: 1\n    {check}\n"))
    config = SimulatorConfig(seed=1, generation_seconds=0.1, shrink=2, faults=f"{fault}=@1")
    async with running(config) as spoiling:
        credentials = KlingCredentials(api_key="sk-takes-77aa01", base_url=spoiling.base_url)
        rendering = await render(board, studio.model_copy(update={"credentials": credentials}))
        dawn = shot_of(rendering, "dawn")
        assert rendering.film is not None, rendering.sentence()
        assert (dawn.take, dawn.faults, spoiling.service.stats()["creates"]) == (2, "", 3)
        (bad,) = dawn.further
        assert re.search(said, bad.faults), bad.faults
        assert bad.clip is not None
        assert Path(bad.clip.path).is_file()


async def test_pruned_takes_are_not_fetched_again_unless_the_film_needs_them(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    board.write_text(BOARD.replace("at dawn\n", "at dawn\n    takes: 3\n"))
    whole = await render(board, studio)
    ours = await desk(studio.settings())
    rows = await prunable(ours.ledger, ours.account, ours.storage())
    assert sorted(row.order.take for row in rows) == [2, 3]
    assert len((await prune(ours.ledger, ours.account, ours.storage(), rows)).removed) == 2
    before = simulator.service.stats()
    again = await render(board, studio)
    assert (again.film, again.usd) == (whole.film, Decimal(0))
    # Who wants one of them has it fetched again, as long as the gateway keeps it, and pays nothing for it.
    board.write_text(board.read_text().replace("takes: 3\n", "takes: 3\n    take: 2\n"))
    told = await render(board, studio)
    assert (shot_of(told, "dawn").take, told.usd) == (2, PRICE)
    after = simulator.service.stats()
    assert [after[count] - before[count] for count in ("creates", "downloads")] == [1, 2]


async def test_a_pruned_take_that_failed_its_checks_stays_pruned(
    studio: KlingStudio, simulator: Running, board: Path, own_check: Any
) -> None:
    board.write_text(BOARD.replace("at dawn\n", f"at dawn\n    max_retakes: 1\n    {own_check(1)}\n"))
    whole = await render(board, studio)
    ours = await desk(studio.settings())
    rows = await prunable(ours.ledger, ours.account, ours.storage())
    assert [row.order.take for row in rows] == [1]
    await prune(ours.ledger, ours.account, ours.storage(), rows)
    downloads = simulator.service.stats()["downloads"]
    again = await render(board, studio)
    assert (again.film, again.usd, shot_of(again, "dawn").take) == (whole.film, Decimal(0), 2)
    assert simulator.service.stats()["downloads"] == downloads
