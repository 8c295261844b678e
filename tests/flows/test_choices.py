"""What the film has chosen stays chosen: no change of mind about checks and takes buys what nobody asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from prefect_kling import KlingClient, KlingStudio
from prefect_kling.flows import render_storyboard, rendering
from prefect_kling.flows.adopting import Adoptee, adopt_clip
from prefect_kling.flows.outcome import Rendering, ShotOutcome
from prefect_kling.flows.preparing import Wish, check_balance, prepare
from prefect_kling.gateway.errors import AuthenticationFailed, InvalidRequest, KlingError, StoryboardError
from prefect_kling.ledger.desk import desk
from prefect_kling.ledger.pruning import prunable
from prefect_kling.simulator.faults import Faults
from prefect_kling.simulator.server import Running

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(180)]

HEAD = """\
title: Choices
defaults:
  aspect_ratio: 16:9
  duration: 3
shots:
"""
STORM = """\
  - id: storm
    prompt: A storm at night
    base: dawn
"""
PRICE = 3 * Decimal("0.0633")


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., Path]:
    """Writes a storyboard of the shot dawn, with further lines, and others."""

    def write(*lines: str, others: str = STORM, prompt: str = "A lighthouse at dawn") -> Path:
        path = tmp_path / "board.yaml"
        said = "".join(f"    {line}\n" for line in lines)
        path.write_text(f"{HEAD}  - id: dawn\n    prompt: {prompt}\n{said}{others}")
        return path

    return write


@pytest.fixture
def own_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """A check of the user's own with this body; `seen` are the names of the clips in the order they were looked at."""
    folder = tmp_path / "checks"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def written(body: str) -> str:
        old = sys.modules.pop("choice_checks", None)
        seen = [] if old is None else old.seen
        (folder / "choice_checks.py").write_text(
            f"seen = {seen!r}\n\n\ndef logo(path):\n    if path.name not in seen:\n        seen.append(path.name)\n"
            f"    {body}\n"
        )
        return "check: {function: choice_checks:logo}"

    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    yield written
    sys.dont_write_bytecode = before
    sys.modules.pop("choice_checks", None)


NOT_THE_FIRST = "return 'no logo' if seen.index(path.name) == 0 else None"


async def render(board: Path, studio: KlingStudio, **wishes: Any) -> Rendering:
    state: Any = await render_storyboard(str(board), studio, return_state=True, **wishes)
    rendering = await state.aresult(raise_on_failure=False)
    if isinstance(rendering, BaseException):
        raise rendering
    assert isinstance(rendering, Rendering)
    return rendering


def dawn(rendering: Rendering) -> ShotOutcome:
    return next(shot for shot in rendering.shots if shot.id == "dawn")


async def test_softer_words_that_somebody_else_bought_are_no_softening(
    studio: KlingStudio, simulator: Running, board: Any
) -> None:
    first = await render(board(others="", prompt="A calm knight"), studio)
    path = board("soften:", "  - A calm knight", others="", prompt="A knight in battle")
    found = (await prepare(str(path), studio, {}, Wish())).standings["dawn"]
    assert (found.status, list(found.to_buy)) == ("new", [1])
    rendering = await render(path, studio)
    assert dawn(rendering).softened == 0
    assert dawn(rendering).clip != dawn(first).clip
    assert (await render(path, studio)).usd == 0


async def test_a_chosen_take_stays(studio: KlingStudio, simulator: Running, board: Any, own_check: Any) -> None:
    check = own_check(NOT_THE_FIRST)
    first = await render(board("max_retakes: 1", check), studio)
    assert (first.film is not None, dawn(first).take, first.usd) == (True, 2, 3 * PRICE)
    # Fewer retakes, no check, another one that the first take might pass.
    for lines in ([check], ["check: false"], ["check: {function: choice_checks:logo, black: 15}"]):
        again = await render(board(*lines), studio)
        assert (dawn(again).take, again.usd, again.film) == (2, Decimal(0), first.film)
    more = await render(board("takes: 3", check), studio)
    assert (dawn(more).take, more.usd) == (2, PRICE)
    assert (await render(board(check), studio)).film == first.film
    assert simulator.service.stats()["creates"] == 4


async def test_a_check_that_breaks_later_gives_the_film_no_other_take(
    studio: KlingStudio, simulator: Running, board: Any, own_check: Any
) -> None:
    path = board("takes: 2", own_check("return None"))
    first = await render(path, studio)
    used = dawn(first).clip
    assert used is not None
    name = Path(used.path).name
    board("takes: 2", own_check(f"return None if path.name != {name!r} else 1 / 0"))
    again = await render(path, studio)
    assert (again.film, again.usd, dawn(again).error_type) == (None, Decimal(0), "StoryboardError")
    board("takes: 2", own_check("return True"))
    assert ((await render(path, studio)).film, simulator.service.stats()["creates"]) == (first.film, 3)


async def test_max_retakes_in_a_long_history(
    studio: KlingStudio, simulator: Running, board: Any, own_check: Any
) -> None:
    simulator.service.faults = Faults("failed=@1,failed=@3", 1)
    found = []
    for refused in range(5):
        check = own_check(f"return 'no' if seen.index(path.name) < {refused} else None")
        found.append(await render(board("max_retakes: 2", check, others=""), studio))
    assert [None if one.film is None else dawn(one).take for one in found] == [2, 3, 1, None, None]
    assert sum(one.usd for one in found) == 3 * PRICE


async def test_films_of_other_shots_are_other_films(studio: KlingStudio, simulator: Running, board: Any) -> None:
    path = board(others="  - id: a\n    prompt: A\n  - id: b\n    prompt: B\n  - id: a-b\n    prompt: C\n")
    one, other = await render(path, studio, only=["a", "b"]), await render(path, studio, only=["a-b"])
    assert one.film is not None
    assert other.film is not None
    assert one.film.path != other.film.path


async def test_a_film_of_some_shots_leaves_the_clips_of_the_others_alone(
    studio: KlingStudio, simulator: Running, board: Any
) -> None:
    path = board(others="  - id: quay\n    prompt: The quay\n  - id: war\n    prompt: forbiddenword\n")
    assert (await render(path, studio)).film is None
    assert (await render(path, studio, only=["quay"])).film is not None
    ours = await desk(studio.settings())
    assert await prunable(ours.ledger, ours.account, ours.storage()) == []


async def test_what_is_softened_is_told_also_where_another_shot_fails(
    studio: KlingStudio, simulator: Running, board: Any
) -> None:
    path = board(
        "soften:", "  - A knight", prompt="forbiddenword", others="  - id: war\n    prompt: Another forbiddenword\n"
    )
    rendering = await render(path, studio)
    assert rendering.film is None
    assert "dawn, take 1: moderation refused it; prompt 1 of soften was used" in rendering.sentence()


async def test_a_clip_is_adopted_as_a_take_in_the_shots_own_words(
    studio: KlingStudio, simulator: Running, board: Any
) -> None:
    path = board("soften:", "  - A knight", prompt="forbiddenword", others="")
    assert dawn(await render(path, studio)).softened == 1
    ours = await desk(studio.settings())
    async with ours.client() as client:
        body = {"model": "kling-v3-omni", "mode": "std", "prompt": "Bought", "aspect_ratio": "16:9", "duration": "3"}
        task = (await client.create(body)).task_id
    # The ledger knows both wordings, and a take of the softer one would never be used.
    with pytest.raises(StoryboardError, match=r"moderation refused it.*Name the storyboard"):
        await adopt_clip(ours, Adoptee("dawn"), task)
    adopted = await adopt_clip(ours, Adoptee("dawn", str(path)), task)
    again = await render(path, studio)
    assert (dawn(again).take, dawn(again).task_id, dawn(again).softened) == (adopted.order.take, task, 0)
    assert again.usd == 0


async def test_of_what_a_failed_shot_would_give_nothing_is_bought(
    studio: KlingStudio, simulator: Running, board: Any, own_check: Any
) -> None:
    more = "  - id: rain\n    prompt: Rain\n    feature: storm\n  - id: quay\n    prompt: The quay\n"
    path = board(own_check("return 'no'"), others=STORM + more)
    await render(path, studio, only=["dawn"])
    simulator.service.account.balance = 200_000
    prepared = await prepare(str(path), studio, {}, Wish(budget=PRICE))
    found = {shot: (standing.status, list(standing.to_buy)) for shot, standing in prepared.standings.items()}
    assert found == {"dawn": ("failed", []), "storm": ("new", []), "rain": ("new", []), "quay": ("new", [1])}
    assert prepared.usd == PRICE


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (InvalidRequest("no such call", status=405), False),
        (AuthenticationFailed("not for this key", status=403), False),
        (AuthenticationFailed("no such key", status=401), True),
    ],
)
async def test_a_balance_that_nobody_tells_stops_nothing(
    studio: KlingStudio, monkeypatch: pytest.MonkeyPatch, error: KlingError, raised: bool
) -> None:
    async def told(_: KlingClient) -> None:
        raise error

    monkeypatch.setattr(KlingClient, "balance", told)
    ours = await desk(studio.settings())
    if not raised:
        await check_balance(ours, "T", PRICE)
        return
    with pytest.raises(AuthenticationFailed):
        await check_balance(ours, "T", PRICE)


async def test_nothing_is_pruned_while_a_film_is_joined(
    studio: KlingStudio, simulator: Running, board: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await render(board("takes: 2"), studio)
    ours = await desk(studio.settings())
    assert [row.order.take for row in await prunable(ours.ledger, ours.account, ours.storage())] == [2]
    seen: list[int] = []

    async def looked(self: Any, *given: Any) -> Any:
        seen.append(len(await prunable(ours.ledger, ours.account, ours.storage())))
        return await join(self, *given)

    join = rendering._Run.join
    monkeypatch.setattr(rendering._Run, "join", looked)
    # The film is about to use a take that no film has used yet.
    assert (await render(board("takes: 2", "take: 2"), studio)).film is not None
    assert seen == [0]
