"""Rendering again: what is bought is used, what has changed is bought, and nothing is bought twice."""

from __future__ import annotations

import asyncio
import hashlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prefect.client.schemas.objects import State
from pydantic import SecretStr

from prefect_kling import KlingCredentials, KlingStudio
from prefect_kling.flows import generate_video, render_storyboard, shooting, storyboard
from prefect_kling.flows.outcome import Rendering
from prefect_kling.flows.preparing import Wish, prepare
from prefect_kling.flows.standing import Standing
from prefect_kling.gateway.errors import BudgetExceeded, StoryboardError
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.desk import Desk, desk
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.settling import settle_as_never_created, settle_as_task
from prefect_kling.ledger.states import State as Bought
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(180)]

BOARD = """\
title: Again
defaults:
  model: kling-v3-omni
  aspect_ratio: 16:9
  duration: 3
shots:
  - id: dawn
    prompt: A lighthouse at dawn
  - id: storm
    prompt: A storm at night
    base: dawn
  - id: quay
    prompt: The quay as in {harbour}
    images:
      harbour: harbour.png
"""
PRICE = 3 * Decimal("0.0633")


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A storyboard of three shots, one of which edits another, and one of which takes in a file."""
    Image.linear_gradient("L").resize((400, 320)).convert("RGB").save(tmp_path / "harbour.png")
    path = tmp_path / "board.yaml"
    path.write_text(BOARD)
    return path


async def render(board: Path, studio: KlingStudio, **wishes: Any) -> Rendering:
    return await outcome(await render_storyboard(str(board), studio, return_state=True, **wishes))


async def outcome(state: State[Any]) -> Rendering:
    rendering = await state.aresult(raise_on_failure=False)
    if isinstance(rendering, BaseException):
        raise rendering
    assert isinstance(rendering, Rendering)
    return rendering


async def standing(board: Path, studio: KlingStudio, **wishes: Any) -> dict[str, Standing]:
    return dict((await prepare(str(board), studio, {}, Wish(**wishes))).standings)


def film(rendering: Rendering) -> str:
    assert rendering.film is not None, rendering.sentence()
    return hashlib.sha256(Path(rendering.film.path).read_bytes()).hexdigest()


def statuses(rendering: Rendering) -> dict[str, str]:
    return {shot.id: shot.status for shot in rendering.shots}


async def nothing_left(studio: KlingStudio) -> None:
    """No money is held any more, and every counter is the sum of its rows."""
    ours = await desk(studio.settings())
    assert (await ours.ledger.spent(ours.account, Hold("", "", ""))).held == 0
    assert await ours.ledger.audit(ours.account) == {}


def at(studio: KlingStudio, server: Running, **changes: Any) -> KlingStudio:
    credentials = KlingCredentials(api_key="sk-reuse-17ac90", base_url=server.base_url)
    return studio.model_copy(update={"credentials": credentials, **changes})


async def test_a_rerun_asks_the_gateway_for_nothing_and_gives_the_same_film(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    first = await render(board, studio)
    assert first.usd == 3 * PRICE
    first_film = film(first)
    before = simulator.service.stats()
    again = await render(board, studio)
    after = simulator.service.stats()
    assert [after[count] - before[count] for count in ("posts", "polls", "downloads", "uploads")] == [0, 0, 0, 0]
    assert statuses(again) == {"dawn": "kept", "storm": "kept", "quay": "kept"}
    assert again.usd == Decimal(0)
    assert film(again) == first_film
    await nothing_left(studio)


async def test_a_changed_prompt_buys_that_shot_and_what_comes_of_it(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    await render(board, studio)
    board.write_text(BOARD.replace("at dawn", "at noon"))
    planned = await standing(board, studio)
    assert {shot: (found.status, found.through) for shot, found in planned.items()} == {
        "dawn": ("new", None),
        "storm": ("stale", "dawn"),
        "quay": ("kept", None),
    }
    assert statuses(await render(board, studio)) == {"dawn": "stored", "storm": "stored", "quay": "kept"}
    assert simulator.service.stats()["creates"] == 5


async def test_a_changed_byte_in_a_reference_image_buys_its_shot(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    await render(board, studio)
    picture = board.with_name("harbour.png")
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert statuses(await render(board, studio)) == {"dawn": "kept", "storm": "kept", "quay": "stored"}
    assert simulator.service.stats()["creates"] == 4


@pytest.mark.parametrize(
    "change",
    [
        ("title: Again", "title: Another title"),
        ("id: quay", "id: harbour"),
        ("shots:", "cut:\n  transition: cut\nshots:"),
        ("    base: dawn", "    base: dawn\n    in_cut: false"),
    ],
)
async def test_what_is_not_sent_buys_nothing(
    studio: KlingStudio, simulator: Running, board: Path, change: tuple[str, str]
) -> None:
    await render(board, studio)
    board.write_text(BOARD.replace(*change))
    assert set(statuses(await render(board, studio)).values()) == {"kept"}
    assert simulator.service.stats()["creates"] == 3


async def test_another_edition_buys_everything(studio: KlingStudio, simulator: Running, board: Path) -> None:
    await render(board, studio)
    await render(board, studio, edition="tuesday")
    assert simulator.service.stats()["creates"] == 6


async def test_a_retake_is_bought_once_and_later_runs_follow_it(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    first = film(await render(board, studio))
    again = await render(board, studio, retake=["dawn"])
    assert statuses(again) == {"dawn": "stored", "storm": "stored", "quay": "kept"}
    later = await render(board, studio)
    assert set(statuses(later).values()) == {"kept"}
    assert film(later) == film(again) != first
    assert simulator.service.stats()["creates"] == 5
    assert (await standing(board, studio))["dawn"].take == 2


async def test_a_retry_of_a_retake_needs_no_money_for_what_it_has_bought(
    studio: KlingStudio, simulator: Running, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await render(board, studio)
    ends = 0

    def fails_once(rendering: Rendering) -> Any:
        nonlocal ends
        ends += 1
        if ends == 1:
            raise OSError("the machine had enough")
        return end(rendering)

    end = storyboard._final_state
    monkeypatch.setattr(storyboard, "_final_state", fails_once)
    retried = render_storyboard.with_options(retries=1)
    found = await outcome(
        await retried(str(board), studio, retake=["dawn"], budget=float(2 * PRICE), return_state=True)
    )
    assert statuses(found) == {"dawn": "kept", "storm": "kept", "quay": "kept"}
    assert (ends, found.usd, simulator.service.stats()["creates"]) == (2, 2 * PRICE, 5)


async def test_what_a_retake_needs_is_what_it_buys(studio: KlingStudio, board: Path) -> None:
    # A shot that was never bought has its first take retaken.
    assert (await standing(board, studio, retake=["dawn"]))["dawn"].to_buy.keys() == {1}
    await render(board, studio)
    board.write_text(BOARD.replace("prompt: A lighthouse at dawn", "prompt: A lighthouse at dawn\n    takes: 3"))
    planned = (await standing(board, studio, retake=["dawn"]))["dawn"]
    assert (planned.status, set(planned.to_buy)) == ("new", {2, 3})
    assert (await render(board, studio, retake=["dawn"])).usd == 3 * PRICE  # and storm, which edits it
    planned = (await standing(board, studio, retake=["dawn"]))["dawn"]
    assert (planned.status, set(planned.to_buy)) == ("new", {4})


async def test_a_rerun_that_buys_nothing_needs_no_budget(studio: KlingStudio, board: Path) -> None:
    await render(board, studio)
    poor = studio.model_copy(update={"budget_per_day": 0.3, "budget_per_month": 0.3})
    assert set(statuses(await render(board, poor, budget=0.01)).values()) == {"kept"}
    await nothing_left(studio)


async def test_a_retake_of_no_shot_is_refused_before_anything_is_bought(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    with pytest.raises(StoryboardError, match=r"dusk.*dawn"):
        await render(board, studio, retake=["dusk"])
    assert simulator.service.stats()["creates"] == 0


async def test_shots_that_are_the_same_are_one_purchase(studio: KlingStudio, simulator: Running, board: Path) -> None:
    board.write_text(BOARD.replace("    base: dawn\n", "").replace("A storm at night", "A lighthouse at dawn"))
    planned = await standing(board, studio)
    assert planned["storm"].shares == "dawn"
    rendering = await render(board, studio)
    assert simulator.service.stats()["creates"] == 2
    assert rendering.shots[0].clip is not None
    assert rendering.shots[1].clip is not None
    assert rendering.shots[0].clip.sha256 == rendering.shots[1].clip.sha256
    assert rendering.usd == 2 * PRICE


async def test_whichever_of_two_shots_that_are_one_purchase_buys_it_the_money_held_for_it_is_used(
    studio: KlingStudio, simulator: Running, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.write_text(BOARD.replace("    base: dawn\n", "").replace("A storm at night", "A lighthouse at dawn"))
    bought = asyncio.Event()

    async def the_second_first(self: Any, *given: Any, **told: Any) -> Any:
        if self.shot.id != "storm":
            await bought.wait()
        try:
            return await buy(self, *given, **told)
        finally:
            bought.set()

    buy = shooting.Shooting._bought
    monkeypatch.setattr(shooting.Shooting, "_bought", the_second_first)
    found = await render(board, studio, budget=float(2 * PRICE))
    assert (found.usd, simulator.service.stats()["creates"]) == (2 * PRICE, 2)
    assert found.film is not None, found.sentence()
    await nothing_left(studio)


async def test_a_further_take_of_a_shot_that_shares_another_is_counted(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    board.write_text(
        BOARD.replace("    base: dawn\n", "    takes: 2\n").replace("A storm at night", "A lighthouse at dawn")
    )
    planned = await standing(board, studio)
    assert (planned["storm"].shares, list(planned["storm"].to_buy)) == ("dawn", [2])
    assert (await render(board, studio)).usd == 3 * PRICE
    assert simulator.service.stats()["creates"] == 3


async def test_further_takes_are_bought_once_and_the_film_uses_the_first(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    board.write_text(BOARD.replace("prompt: A lighthouse at dawn", "prompt: A lighthouse at dawn\n    takes: 3"))
    assert (await standing(board, studio))["dawn"].to_buy.keys() == {1, 2, 3}
    rendering = await render(board, studio)
    assert rendering.usd == 5 * PRICE
    assert [take.take for take in rendering.shots[0].further] == [2, 3]
    digests = {take.clip.sha256 for take in rendering.shots[0].further if take.clip}
    assert rendering.shots[0].clip is not None
    assert len({*digests, rendering.shots[0].clip.sha256}) == 3
    again = await render(board, studio)
    assert (again.usd, simulator.service.stats()["creates"]) == (Decimal(0), 5)
    retaken = await render(board, studio, retake=["dawn"])
    assert (retaken.shots[0].take, retaken.usd) == (4, 2 * PRICE)
    board.write_text(BOARD)
    assert statuses(await render(board, studio))["dawn"] == "kept"
    await nothing_left(studio)


@pytest.mark.parametrize("same_process", [True, False])
async def test_two_runs_at_once_buy_each_shot_once_and_give_the_same_film(
    studio: KlingStudio, simulator: Running, board: Path, same_process: bool
) -> None:
    # Another object for the same ledger has connections of its own, as another process has.
    other = studio if same_process else studio.model_copy(update={"ledger_url": SecretStr(f"{_url(studio)}?timeout=2")})
    one, two = await asyncio.gather(render(board, studio), render(board, other))
    assert simulator.service.stats()["creates"] == 3
    assert film(one) == film(two)
    assert one.usd + two.usd == 3 * PRICE
    await nothing_left(studio)


async def test_a_storyboard_is_admitted_as_a_whole_or_not_at_all(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    with pytest.raises(BudgetExceeded, match=r"up to 0\.5697 USD, and the budget of this UTC day is 0\.50 USD"):
        await render(board, studio.model_copy(update={"budget_per_day": 0.5}))
    with pytest.raises(BudgetExceeded, match="of this UTC month is"):
        await render(board, studio.model_copy(update={"budget_per_month": 0.5}))
    assert simulator.service.stats()["posts"] == 0
    enough = studio.model_copy(update={"budget_per_day": 0.6})
    await render(board, enough)
    await render(board, enough)
    with pytest.raises(BudgetExceeded, match="of which"):
        await render(board, enough, edition="tuesday")
    await nothing_left(studio)


@pytest.mark.usefixtures("old_prices")
async def test_without_credits_what_runs_is_kept_and_a_rerun_goes_on(studio: KlingStudio, board: Path) -> None:
    async with running(SimulatorConfig(seed=1, generation_seconds=0.2, shrink=8, balance="0.40")) as poor:
        broke = at(studio, poor)
        first = await render(board, broke)
        assert {shot.error_type for shot in first.failures} == {"InsufficientCredits"}
        kept = [shot.id for shot in first.shots if shot.clip]
        assert len(kept) == 2
        poor.service.account.balance += 1_000_000
        again = await render(board, broke)
        assert again.film is not None
        assert [shot.id for shot in again.shots if shot.status == "kept"] == kept
        assert poor.service.stats()["creates"] == 3
        await nothing_left(broke)


@pytest.mark.parametrize("exists", [True, False])
async def test_an_uncertain_purchase_waits_for_its_decision(studio: KlingStudio, board: Path, exists: bool) -> None:
    faults = "lost-answer=@1" if exists else "502=@1"
    async with running(SimulatorConfig(seed=1, generation_seconds=0.2, shrink=8, faults=faults)) as losing:
        unsure = at(studio, losing, max_in_flight=1, max_wait=0.5)
        first = await render(board, unsure)
        (failure,) = [shot for shot in first.shots if shot.error_type == "PurchaseUncertain"]
        for said in ("--task-id", "--never-created", "0.1899 USD", "kling-v3-omni, 3 s"):
            assert said in str(failure.error)
        posts = losing.service.stats()["posts"]
        planned = await standing(board, unsure)
        assert planned[failure.id].status == "uncertain"
        ours = await desk(unsure.settings())
        row = await _uncertain(ours)
        if exists:
            lost = next(iter(losing.service.tasks))
            async with ours.client() as client:
                await settle_as_task(ours.ledger, ours.account, client, row.short, lost)
        else:
            await settle_as_never_created(ours.ledger, ours.account, row.short)
        calm = at(studio, losing)
        again = await render(board, calm)
        assert again.film is not None
        assert losing.service.stats()["creates"] == 3
        assert losing.service.stats()["posts"] == posts + len([s for s in first.shots if not s.clip]) - exists
        await nothing_left(calm)


async def test_buy_again_takes_the_risk_once(studio: KlingStudio, board: Path) -> None:
    async with running(SimulatorConfig(seed=1, generation_seconds=0.2, shrink=8, faults="lost-answer=@1")) as losing:
        unsure = at(studio, losing, max_wait=5)
        await render(board, unsure)
        brave = at(studio, losing, on_uncertain="buy-again")
        assert (await render(board, brave)).film is not None
        assert losing.service.stats()["creates"] == 4


async def test_the_same_request_in_the_same_edition_is_one_purchase(studio: KlingStudio, simulator: Running) -> None:
    request = OmniVideoRequest(model="kling-v3-omni", prompt="Waves", aspect_ratio="9:16", duration="3")
    one, two = await asyncio.gather(generate_video(request, studio), generate_video(request, studio))
    assert one.sha256 == two.sha256
    assert (await generate_video(request, studio)).sha256 == one.sha256
    assert simulator.service.stats()["creates"] == 1
    await generate_video(request, studio, edition="again")
    assert simulator.service.stats()["creates"] == 2


async def test_a_clip_that_was_deleted_is_fetched_again_and_not_bought(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    first = await render(board, studio)
    assert first.shots[0].clip is not None
    before = film(first)
    Path(first.shots[0].clip.path).unlink()
    assert film(await render(board, studio)) == before
    assert simulator.service.stats()["creates"] == 3


def _url(studio: KlingStudio) -> str:
    return studio.ledger_url.get_secret_value()


async def _uncertain(ours: Desk) -> Any:
    (found,) = await ours.ledger.of_account(ours.account, purchases.c.state == str(Bought.UNCERTAIN))
    return found


async def test_a_file_that_the_gateway_still_hosts_is_not_uploaded_again(
    studio: KlingStudio, simulator: Running, board: Path, tmp_path: Path
) -> None:
    await render(board, studio)
    uploads = simulator.service.stats()["uploads"]
    # The same content under another name, in an edition in which everything is bought anew.
    (tmp_path / "harbour.png").rename(tmp_path / "port.png")
    board.write_text(BOARD.replace("harbour.png", "port.png"))
    rendering = await render(board, studio, edition="two")
    assert rendering.usd == 3 * PRICE
    assert simulator.service.stats()["uploads"] == uploads


async def test_a_film_that_was_changed_in_storage_is_joined_anew(
    studio: KlingStudio, simulator: Running, board: Path
) -> None:
    first = await render(board, studio)
    assert first.film is not None
    path = Path(first.film.path)
    whole, written = path.read_bytes(), path.stat().st_mtime_ns
    assert film(await render(board, studio)) == hashlib.sha256(whole).hexdigest()
    assert path.stat().st_mtime_ns == written  # it was used as it was
    path.write_bytes(bytes(len(whole)))
    assert film(await render(board, studio)) == hashlib.sha256(whole).hexdigest()
    path.unlink()
    assert film(await render(board, studio)) == hashlib.sha256(whole).hexdigest()


async def test_an_image_is_made_to_fit_and_a_broken_one_is_told_before_anything_is_bought(
    studio: KlingStudio, simulator: Running, board: Path, tmp_path: Path
) -> None:
    fitting = BOARD.replace("harbour: harbour.png", "harbour: harbour.webp\n    fit: yes")
    board.write_text(fitting)
    Image.linear_gradient("L").resize((900, 200)).convert("RGB").save(tmp_path / "harbour.webp")
    rendering = await render(board, studio, only=["quay"])
    assert rendering.film is not None, rendering.sentence()
    (request,) = [task.request for task in simulator.service.tasks.values()]
    assert request.image_list is not None
    assert request.image_list[0].image_url.rpartition(".")[2] in ("png", "jpg", "jpeg")
    creates = simulator.service.stats()["creates"]
    (tmp_path / "harbour.webp").write_bytes(b"RIFF nothing")
    with pytest.raises(StoryboardError, match=r"board\.yaml:15:16: .*harbour\.webp' cannot be sent"):
        await render(board, studio)
    assert simulator.service.stats()["creates"] == creates
