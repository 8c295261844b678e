"""Pruning: which takes no film uses, that a clip which is wanted stays, and how a pruned one is had again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from prefect_kling.clips import Clip, ClipStorage
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import TaskNotFound
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.buying import Buyer, outcome_of
from prefect_kling.ledger.films import FilmRecord, remember_film
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.keeping import Keeper
from prefect_kling.ledger.keys import base_key, key_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.pruning import prunable, prune, unused
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.states import Event, State
from prefect_kling.ledger.sweeping import sweep
from prefect_kling.ledger.takes import Slate, pin_take
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

if TYPE_CHECKING:
    from tests.ledger.conftest import MakeOrder, Shift

KEY = "sk-pruning-3c55d8"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MakeRequest = Callable[[str], OmniVideoRequest]


def film(*numbers: int, **fields: Any) -> FilmRecord:
    """A film of the lighthouse made of these rows."""
    plain = FilmRecord("main", "lighthouse", "films/main/lighthouse.mp4", "d", "r", {}, numbers, NOON)
    return replace(plain, **fields)


def clip(task_id: str, path: str = "", content: str = "") -> Clip:
    return Clip(
        path=path or f"/srv/films/clips/{task_id}.mp4",
        sha256=content or task_id,
        bytes=9,
        seconds=5.04,
        frames=121,
        width=1280,
        height=720,
        task_id=task_id,
        url=f"https://gateway.example.com/{task_id}.mp4",
        url_expires_at=NOON + timedelta(days=6),
    )


# --- which ---


@pytest.fixture
def row(order: MakeOrder) -> Callable[..., Purchase]:
    """Makes a stored take of the shot dawn, with its number as take and in its clip."""

    def make(number: int, at: datetime = NOON - HOUR, kept: Clip | None = None, **fields: Any) -> Purchase:
        values: dict[str, Any] = {"storyboard": "lighthouse", "shot": "dawn", "take": number}
        wanted = order(**values | fields)
        return Purchase(
            id=number,
            token=f"{number:032x}",
            state=State.STORED,
            order=wanted,
            counted=wanted.micro_usd,
            owner="",
            lease_until=None,
            spare=False,
            task_id=f"t{number}",
            result_url=None,
            expires_at=None,
            reason=None,
            error=None,
            clip=kept or clip(f"t{number}"),
            created_at=at,
            sent_at=at,
            answered_at=at,
            polled_at=None,
            missing_since=None,
            ended_at=at,
            stored_at=at,
        )

    return make


MakeRow = Callable[..., Purchase]


def test_a_take_that_no_film_uses_is_unused_and_the_one_of_the_film_is_not(row: MakeRow) -> None:
    rows = [row(1), row(2), row(3)]
    assert unused(rows, [film(2)]) == [rows[0], rows[2]]


def test_without_a_film_everything_may_be_for_one(row: MakeRow) -> None:
    assert unused([row(1), row(2)], []) == []
    assert unused([row(1), row(2)], [film(1, edition="daily"), film(1, storyboard="harbour")]) == []


def test_a_single_video_is_nobodys_to_prune(row: MakeRow) -> None:
    assert unused([row(1, storyboard="")], [film(7, storyboard="")]) == []


def test_any_films_takes_stay_also_those_of_another_storyboard(row: MakeRow) -> None:
    rows = [row(1), row(2), row(3)]
    films = [film(1), film(2, storyboard="harbour"), film(3, edition="daily", name="films/daily/lighthouse.mp4")]
    assert unused(rows, films) == []


def test_what_was_bought_after_the_last_film_may_be_for_the_next(row: MakeRow) -> None:
    rows = [row(1), row(2, NOON - 3 * HOUR), row(3, NOON + HOUR)]
    assert unused(rows, [film(1)]) == [rows[1]]
    earlier = film(1, name="films/main/draft.mp4", rendered_at=NOON - 2 * HOUR)
    assert unused(rows, [earlier]) == [rows[1]]
    assert unused(rows, [earlier, film(1)]) == [rows[1]]
    assert unused(rows, [earlier, film(1, rendered_at=NOON + 2 * HOUR)]) == [rows[1], rows[2]]


def test_what_is_pinned_stays_by_its_key_and_by_its_name(row: MakeRow) -> None:
    rows = [row(1), row(2), row(3)]
    base = base_key(rows[1].order.request)
    assert rows[1].order.key == key_of(base, 2)
    of_a_shot_that_shares_it = Slate("main", "lighthouse", "storm", base)
    assert unused(rows, [film(1)], pinned=[(of_a_shot_that_shares_it, 2)]) == [rows[2]]
    in_other_words = Slate("main", "lighthouse", "dawn", "k1:softer")
    assert unused(rows, [film(1)], pinned=[(in_other_words, 3)]) == [rows[1]]
    assert unused(rows, [film(1)], pinned=[(replace(in_other_words, edition="daily"), 3)]) == [rows[1], rows[2]]


def test_where_a_run_is_under_way_nothing_is_unused(row: MakeRow) -> None:
    assert unused([row(1), row(2)], [film(1)], busy={"main"}) == []
    assert unused([row(1), row(2)], [film(1)], busy={"daily"}) == [row(2)]


def test_a_file_or_content_that_something_wants_stays(row: MakeRow) -> None:
    used, single = row(1), row(5, storyboard="", kept=clip("t5"))
    same_file = row(2, kept=clip("t2", path="/srv/films/clips/t1.mp4"))
    same_bytes = row(3, kept=clip("t3", content="t1"))
    as_a_single_video = row(4, kept=clip("t4", path="/srv/films/clips/t5.mp4"))
    assert unused([used, same_file, same_bytes, as_a_single_video, single], [film(1)]) == []
    # Two that nobody wants may share what they like.
    twins = [row(6), row(7, kept=clip("t7", path="/srv/films/clips/t6.mp4", content="t6"))]
    assert unused([used, *twins], [film(1)]) == twins


# --- in a ledger, with files ---


@pytest.fixture
def storage(tmp_path: Path) -> ClipStorage:
    return ClipStorage(str(tmp_path / "storage"))


Stored = Callable[..., Awaitable[Purchase]]


@pytest.fixture
def stored(ledger: Ledger, account: Account, order: MakeOrder, storage: ClipStorage) -> Stored:
    """Makes a stored take of a shot, with a file."""

    async def make(take: int, **fields: Any) -> Purchase:
        values: dict[str, Any] = {"take": take, "storyboard": "lighthouse", "shot": "dawn"}
        wanted = order(**values | fields)
        found = (await ledger.reserve(account, wanted, Limits())).purchase
        assert found is not None
        task_id = f"task-{found.token[:8]}"
        found = await ledger.happened(found, Event.SEND)
        found = await ledger.happened(found, Event.ACCEPTED, task_id=task_id)
        found = await ledger.happened(found, Event.COMPLETED)
        async with storage.incoming() as folder:
            (folder / "clip.mp4").write_bytes(b"picture %d" % take)
            location = await storage.publish(folder / "clip.mp4", f"clips/{task_id}.mp4")
        return await ledger.happened(found, Event.DOWNLOADED, clip=clip(task_id, location))

    return make


def file_of(found: Purchase) -> Path:
    assert found.clip is not None
    return Path(found.clip.path)


async def test_takes_that_no_film_uses_leave_the_storage_and_stay_in_the_ledger(
    ledger: Ledger, account: Account, storage: ClipStorage, stored: Stored
) -> None:
    first, second, third = [await stored(take) for take in (1, 2, 3)]
    assert await prunable(ledger, account, storage) == []
    await remember_film(ledger, account, film(second.id))
    assert await prunable(ledger, account, storage) == [first, third]
    pruned = await prune(ledger, account, storage, [first, third])
    assert [one.id for one in pruned.removed] == [first.id, third.id]
    assert (pruned.spared, pruned.left) == ([], [])
    assert [file_of(one).exists() for one in (first, second, third)] == [False, True, False]
    now = await ledger.get(first.id)
    assert (now.state, now.clip, now.counted, now.stored_at) == (State.PRUNED, first.clip, first.counted, None)
    assert await ledger.get(second.id) == second
    assert await ledger.audit(account) == {}
    assert await prunable(ledger, account, storage) == []
    # Nobody buys it again without a word.
    assert await ledger.find(account, "main", [first.order.key]) == {first.order.key: now}
    on = f"was pruned on {now.ended_at:%Y-%m-%d}"
    with pytest.raises(TaskNotFound, match=rf"{on}.*fetches it again at no cost.*--retake dawn buys a new one"):
        outcome_of(now)


async def test_what_a_film_uses_since_it_was_named_is_spared(
    ledger: Ledger, account: Account, storage: ClipStorage, stored: Stored
) -> None:
    first, second = await stored(1), await stored(2)
    await remember_film(ledger, account, film(first.id))
    (named,) = await prunable(ledger, account, storage)
    await remember_film(ledger, account, film(second.id))
    pruned = await prune(ledger, account, storage, [named])
    assert (pruned.removed, pruned.spared) == ([], [second])
    assert file_of(second).exists()
    assert await ledger.get(second.id) == second


async def test_only_what_was_asked_for_is_removed(
    ledger: Ledger, account: Account, storage: ClipStorage, stored: Stored
) -> None:
    rows = [await stored(1), await stored(2), await stored(3, edition="daily"), await stored(4, edition="daily")]
    await remember_film(ledger, account, film(rows[0].id))
    await remember_film(ledger, account, film(rows[2].id, edition="daily"))
    assert await prunable(ledger, account, storage) == [rows[1], rows[3]]
    of_daily = await prunable(ledger, account, storage, edition="daily")
    assert of_daily == [rows[3]]
    await prune(ledger, account, storage, of_daily)
    assert [file_of(one).exists() for one in rows] == [True, True, True, False]


async def test_a_run_under_way_and_a_pin_keep_their_takes(
    ledger: Ledger, account: Account, storage: ClipStorage, stored: Stored
) -> None:
    first, second, third = [await stored(take) for take in (1, 2, 3)]
    await remember_film(ledger, account, film(first.id))
    hold = Hold("main", "d", "r1")
    await ledger.admit(account, hold, {}, Limits())
    assert await prunable(ledger, account, storage) == []
    await ledger.end_hold(account, hold)
    await pin_take(ledger, account, Slate("main", "lighthouse", "dawn", base_key(second.order.request)), 2, "r1")
    assert await prunable(ledger, account, storage) == [third]


async def test_clips_of_another_storage_are_left_alone(
    ledger: Ledger, account: Account, tmp_path: Path, stored: Stored
) -> None:
    first, second = await stored(1), await stored(2)
    await remember_film(ledger, account, film(first.id))
    elsewhere = ClipStorage(str(tmp_path / "elsewhere"))
    assert await prunable(ledger, account, elsewhere) == []
    assert (await prune(ledger, account, elsewhere, [second])).spared == [second]


class Broken(ClipStorage):
    """Removes nothing."""

    async def remove(self, location: str) -> bool:
        raise OSError(30, "read-only file system", location)


async def test_a_file_that_could_not_be_removed_is_removed_by_the_next_prune(
    ledger: Ledger, account: Account, storage: ClipStorage, stored: Stored
) -> None:
    first, second = await stored(1), await stored(2)
    await remember_film(ledger, account, film(first.id))
    pruned = await prune(ledger, account, Broken(storage.url), [second])
    ((left, why),) = pruned.left
    assert (left.id, left.state, why.errno) == (second.id, State.PRUNED, 30)
    assert (pruned.removed, file_of(second).exists()) == ([], True)
    # As after a crash: the row says pruned, and the file is there.
    (found,) = await prunable(ledger, account, storage)
    assert (found.id, found.state) == (second.id, State.PRUNED)
    pruned = await prune(ledger, account, storage, [found])
    assert [one.id for one in pruned.removed] == [second.id]
    assert not file_of(second).exists()
    assert await prunable(ledger, account, storage) == []


# --- having it again, at a gateway ---


class TestHavingItAgain:
    """On SQLite alone: what is asked of the database is asked of both above."""

    @pytest.fixture
    def shared_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'ledger.db'}"

    @pytest.fixture
    async def server(self) -> AsyncIterator[Running]:
        async with running(SimulatorConfig(seed=1, generation_seconds=0, shrink=8)) as server:
            yield server

    @pytest.fixture
    async def keeper(self, ledger: Ledger, server: Running, storage: ClipStorage) -> AsyncIterator[Keeper]:
        async def no_time(_: float) -> None:
            """Sleeps, as far as anybody can tell."""

        async with KlingClient(KEY, base_url=server.base_url) as client:
            yield Keeper(ledger, Account(server.base_url), client, storage, sleep=no_time)

    @pytest.fixture
    async def unwanted(self, keeper: Keeper, order: MakeOrder, make_request: MakeRequest) -> Purchase:
        """A stored take that no film uses, though there is one."""
        address = keeper.account.base_url
        buyer = Buyer(keeper.ledger, keeper.account, lambda: KlingClient(KEY, base_url=address, attempts=1))
        bought = await buyer.buy(order(storyboard="lighthouse", shot="dawn"), make_request("A fox"))
        waiting = Keeper(keeper.ledger, keeper.account, keeper.client)
        found = await keeper.keep(await waiting.wait(bought, poll_interval=0.02))
        await remember_film(keeper.ledger, keeper.account, film())
        return found

    @pytest.fixture
    async def pruned(self, keeper: Keeper, storage: ClipStorage, unwanted: Purchase) -> Purchase:
        await prune(keeper.ledger, keeper.account, storage, [unwanted])
        found = await keeper.ledger.get(unwanted.id)
        assert (found.state, file_of(found).exists()) == (State.PRUNED, False)
        return found

    async def test_it_is_fetched_again_while_the_gateway_has_it(
        self, keeper: Keeper, server: Running, pruned: Purchase
    ) -> None:
        again = await keeper.keep(pruned)
        assert again.clip is not None
        assert pruned.clip is not None
        assert (again.state, again.clip.sha256, again.reason) == (State.STORED, pruned.clip.sha256, None)
        assert file_of(again).stat().st_size == again.clip.bytes
        assert again.counted == pruned.counted
        assert server.service.stats()["creates"] == 1

    async def test_it_is_lost_where_the_gateway_has_not(
        self, keeper: Keeper, server: Running, pruned: Purchase
    ) -> None:
        server.service.results.expire(str(pruned.task_id))
        with pytest.raises(TaskNotFound, match="is lost"):
            await keeper.keep(pruned)
        assert (await keeper.ledger.get(pruned.id)).state is State.LOST

    async def test_a_sweep_leaves_it_alone(self, keeper: Keeper, shift: Shift, pruned: Purchase) -> None:
        for _ in range(2):
            assert (await sweep(keeper)).sentence() == "nothing to do"
            shift.advance(timedelta(days=8).total_seconds())
        assert await keeper.ledger.get(pruned.id) == pruned

    async def test_one_whose_file_is_there_still_is_used_without_the_gateway(
        self, keeper: Keeper, server: Running, storage: ClipStorage, unwanted: Purchase
    ) -> None:
        await prune(keeper.ledger, keeper.account, Broken(storage.url), [unwanted])
        before = server.service.stats()["downloads"]
        kept = await keeper.keep(await keeper.ledger.get(unwanted.id))
        assert (kept.state, file_of(kept).exists()) == (State.STORED, True)
        assert server.service.stats()["downloads"] == before

    @pytest.mark.parametrize("state", [State.STORED, State.PRUNED])
    async def test_one_that_is_pruned_while_it_is_fetched_again_is_there_in_the_end(
        self, keeper: Keeper, storage: ClipStorage, unwanted: Purchase, state: State
    ) -> None:
        if state is State.PRUNED:
            await prune(keeper.ledger, keeper.account, Broken(storage.url), [unwanted])
        (left,) = await prunable(keeper.ledger, keeper.account, storage)
        assert left.state is state
        file_of(left).unlink()

        class Raced(ClipStorage):
            removed = 0

            async def publish(self, file: Path, name: str) -> str:
                location = await super().publish(file, name)
                # Once another process prunes, before the row says that the clip is stored.
                if not self.removed:
                    self.removed = len((await prune(keeper.ledger, keeper.account, storage, [left])).removed)
                return location

        raced = Raced(storage.url)
        kept = await replace(keeper, storage=raced).keep(left)
        assert raced.removed == 1
        assert kept.clip is not None
        assert (kept.state, await storage.size(kept.clip.path)) == (State.STORED, kept.clip.bytes)
        assert await keeper.ledger.get(kept.id) == kept
