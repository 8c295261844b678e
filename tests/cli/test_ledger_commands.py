"""`prefect-kling ledger …` and `sweep`: what they print, what they change, and with which exit code."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings
from sqlalchemy import update

from prefect_kling import Clip, KlingStudio
from prefect_kling.cli import run
from prefect_kling.gateway.errors import PurchaseUncertain
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.answers import Answer
from prefect_kling.ledger.desk import Desk, close_ledgers, desk
from prefect_kling.ledger.films import FilmRecord, remember_film
from prefect_kling.ledger.hints import Call, hear
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.keys import base_key, canonical, key_of
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.states import Event, State
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

T = TypeVar("T")
Said = tuple[int, str, str]
"""An exit code, stdout, stderr."""
Command = Callable[..., Said]

KEY = "sk-ledger-90c1d2"
SETTING = "PREFECT_INTEGRATIONS_KLING_"
PRICE = 189_900
CLIP = Clip(
    path="/srv/films/clips/main/harbour/t-1.mp4",
    sha256="ab" * 32,
    bytes=1_234_567,
    seconds=3.04,
    frames=73,
    width=1280,
    height=720,
    task_id="t-1",
    url="https://gateway.test/t-1.mp4",
    url_expires_at=datetime(2026, 11, 29, tzinfo=UTC),
)
PATHS: dict[State, tuple[Event, ...]] = {
    State.RESERVED: (),
    State.SENDING: (Event.SEND,),
    State.SUBMITTED: (Event.SEND, Event.ACCEPTED),
    State.COMPLETED: (Event.SEND, Event.ACCEPTED, Event.COMPLETED),
    State.STORED: (Event.SEND, Event.ACCEPTED, Event.COMPLETED, Event.DOWNLOADED),
    State.UNCERTAIN: (Event.SEND, Event.ANSWER_LOST),
    State.REFUSED: (Event.SEND, Event.REFUSED),
    State.RELEASED: (Event.GIVEN_UP,),
    State.FAILED: (Event.SEND, Event.ACCEPTED, Event.FAILED),
    State.LOST: (Event.SEND, Event.ACCEPTED, Event.GONE),
    State.PRUNED: (Event.SEND, Event.ACCEPTED, Event.COMPLETED, Event.DOWNLOADED, Event.PRUNED),
    State.ABANDONED: (Event.SEND, Event.ANSWER_LOST, Event.NEVER_CREATED),
}


@pytest.fixture(autouse=True)
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The environment names a studio with a home, a ledger and storage of its own, and no key."""
    monkeypatch.delenv("APIMODELS_API_KEY", raising=False)
    monkeypatch.setenv("APIMODELS_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv(f"{SETTING}LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    monkeypatch.setenv(f"{SETTING}STORAGE_URL", str(tmp_path / "storage"))
    with temporary_settings({PREFECT_HOME: tmp_path / "prefect"}):
        yield tmp_path


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Running], None]:
    """Makes the environment name a simulator, with a key."""

    def name(server: Running) -> None:
        monkeypatch.setenv("APIMODELS_API_KEY", KEY)
        monkeypatch.setenv("APIMODELS_BASE_URL", server.base_url)

    return name


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `prefect-kling`, and sees to it that no secret is told to people."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert KEY not in out + err
        for token in with_desk(_tokens):
            assert token not in err
            assert "--json" in arguments or token not in out
        return code, out, err

    return call


async def _tokens(there: Desk) -> list[str]:
    return [purchase.token for purchase in await there.ledger.select()]


def with_desk(work: Callable[[Desk], Awaitable[T]]) -> T:
    """Does something at the desk of the environment's studio, as another process would."""

    async def opened() -> T:
        try:
            return await work(await desk(KlingStudio.from_environment().settings()))
        finally:
            await close_ledgers()

    return asyncio.run(opened())


def order(shot: str = "dawn", **fields: Any) -> Order:
    request = wanted(shot)
    body = canonical(request.body())
    plain = Order("main", key_of(base_key(body), 1), body, request.model, 3, PRICE, "harbour-morning", shot=shot)
    return replace(plain, **fields)


def wanted(shot: str) -> OmniVideoRequest:
    return OmniVideoRequest(
        model="kling-v3-omni", prompt=f"A lighthouse, {shot}", aspect_ratio="16:9", duration="3", mode="std"
    )


def made(state: State, shot: str | None = None, task_id: str | None = None, **fields: Any) -> Purchase:
    """A row in a state, by the events that lead there; no gateway is asked."""
    name = shot if shot is not None else str(state)
    facts: dict[Event, dict[str, Any]] = {
        Event.ACCEPTED: {"task_id": task_id or f"task-{name}"},
        Event.COMPLETED: {"result_url": CLIP.url, "expires_at": CLIP.url_expires_at},
        Event.DOWNLOADED: {"clip": CLIP},
        Event.ANSWER_LOST: {"reason": "the connection was reset", "error": "PurchaseUncertain"},
        Event.REFUSED: {"reason": "no such\x1b[31m voice", "error": "InvalidRequest"},
        Event.FAILED: {"reason": "found sensitive", "error": "GenerationFailed"},
    }

    async def work(there: Desk) -> Purchase:
        reserved = await there.ledger.reserve(there.account, order(name, **fields), Limits(in_flight=99))
        assert reserved.purchase is not None
        purchase = reserved.purchase
        for event in PATHS[state]:
            purchase = await there.ledger.happened(purchase, event, **facts.get(event, {}))
        assert purchase.state is state
        return purchase

    return with_desk(work)


def now_is(purchase: Purchase) -> Purchase:
    return with_desk(lambda there: there.ledger.get(purchase.id))


def bought(shot: str) -> Purchase:
    """Buys for real, in a run that ends right after it."""
    return with_desk(lambda there: there.buyer().buy(order(shot), wanted(shot)))


def with_lost_answer(shot: str) -> Purchase:
    """Buys from a simulator that loses the answer; says what it said."""
    with pytest.raises(PurchaseUncertain) as told:
        bought(shot)
    (found,) = with_desk(lambda there: there.ledger.select(purchases.c.state == str(State.UNCERTAIN)))
    assert f"ledger resolve {found.short} --task-id ID" in str(told.value)
    assert f"ledger resolve {found.short} --never-created" in str(told.value)
    assert "kling-v3-omni, 3 s" in str(told.value)
    assert "0.1899 USD" in str(told.value)
    assert ".)" not in str(told.value)
    return found


@contextmanager
def serving(**config: Any) -> Iterator[Running]:
    """A simulator for tests that are no coroutines, as the command starts an event loop of its own."""
    with asyncio.Runner() as runner:
        context = running(SimulatorConfig(seed=1, shrink=8, **config))
        server = runner.run(_entered(context))
        try:
            yield server
        finally:
            runner.run(_left(context))


async def _entered(context: AbstractAsyncContextManager[Running]) -> Running:
    return await context.__aenter__()


async def _left(context: AbstractAsyncContextManager[Running]) -> None:
    await context.__aexit__(None, None, None)


@pytest.fixture
def losing() -> Iterator[Running]:
    """A simulator that loses the answer to the first create."""
    with serving(generation_seconds=0.1, faults="lost-answer=@1") as server:
        yield server


# list


def test_every_state_is_listed_with_what_to_do_next(command: Command) -> None:
    rows = {state: made(state) for state in State}
    code, out, err = command("ledger", "list")
    assert (code, err) == (0, "")
    head, *lines, total = out.splitlines()
    assert head.split() == ["token", "created", "(UTC)", "shot", "take", "state", "USD", "task", "next"]
    assert len(lines) == len(State)
    for line, (state, purchase) in zip(lines, rows.items(), strict=True):
        assert line.startswith(f"{purchase.short}  {purchase.created_at:%Y-%m-%d %H:%M}  harbour-morning/{state}  ")
        assert f" {state} " in line
        assert f"  {purchase.counted / 1e6:.4f}" in line
        assert (purchase.task_id or "") in line
    following = {
        state: line.rpartition("  ")[2].strip() for state, line in zip(rows, map(str.rstrip, lines), strict=True)
    }
    assert following[State.SENDING] == "wait: a run is buying it"
    assert following[State.SUBMITTED] == "run again, or sweep"
    assert following[State.COMPLETED] == "run again, or sweep, by 2026-11-29"
    assert following[State.UNCERTAIN] == "ledger resolve"
    assert following[State.LOST] == "--retake lost buys a new one"
    assert following[State.PRUNED] == "a run that wants it fetches it, by 2026-11-29"
    assert total == "12 purchases, 1.5192 USD spent or held"


def test_a_narrow_terminal_gets_the_same_in_less_width(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    made(State.COMPLETED, "keeper", take=2, edition="2026-11-22T06:00:00+00:00", task_id="task-" + "7" * 40)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    out = re.sub(r"\x1b\[[0-9;]*m", "", command("ledger", "list")[1])
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    text = "".join(out.split())
    for part in ("keeper,take2", "edition2026-11-22T06:00:00+00:00", "7" * 26, "→runagain,orsweep,by2026-11-29"):
        assert part in text


def test_as_json_purchases_have_their_whole_tokens(command: Command) -> None:
    purchase = made(State.STORED, take=2)
    code, out, err = command("ledger", "list", "--json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["purchases"]
    assert row.keys() >= {"token", "edition", "shot", "take", "key", "state", "task_id", "usd", "created_at"}
    assert (row["token"], row["take"], row["state"], row["usd"]) == (purchase.token, 2, "stored", 0.1899)
    assert row["clip"] == CLIP.path


def test_the_list_can_be_narrowed(command: Command) -> None:
    made(State.STORED, "dawn")
    made(State.STORED, "storm", edition="daily")
    made(State.FAILED, "keeper")
    made(State.STORED, "logo", storyboard="spot")

    def shots(*arguments: str) -> list[str]:
        return [row["shot"] for row in json.loads(command("ledger", "list", "--json", *arguments)[1])["purchases"]]

    assert shots() == ["dawn", "storm", "keeper", "logo"]
    assert shots("--state", "stored") == ["dawn", "storm", "logo"]
    assert shots("--storyboard", "Harbour morning") == ["dawn", "storm", "keeper"]
    assert shots("--storyboard", "harbour-morning", "--edition", "main") == ["dawn", "keeper"]
    assert shots("--limit", "2") == ["keeper", "logo"]
    _, out, err = command("ledger", "list", "--limit", "3")
    assert "logo" in out
    assert "dawn" not in out
    assert "edition" in out  # as they are not all of one
    assert err == "These are the newest 3; --limit shows more\n"
    assert command("ledger", "list", "--state", "lost") == (0, "", "The ledger has no such purchase.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list"], "Nothing was bought yet: the ledger of the account 'main' at http://127.0.0.1:9/v1 is empty."),
        (["spend"], "Nothing was spent yet"),
    ],
)
def test_an_empty_ledger_says_so(command: Command, arguments: list[str], said: str) -> None:
    code, _, err = command("ledger", *arguments)
    assert code == 0
    assert said in err


def test_an_empty_ledger_is_an_empty_document(command: Command) -> None:
    assert json.loads(command("ledger", "list", "--json")[1]) == {"purchases": []}
    assert json.loads(command("ledger", "spend", "--json")[1])["spending"] == []


# show


def test_a_purchase_is_shown_with_all_that_is_known(command: Command) -> None:
    purchase = made(State.STORED, "dawn", run="run-1")
    code, out, err = command("ledger", "show", purchase.short)
    assert (code, err) == (0, "")
    for part in (purchase.short, "stored", "harbour-morning/dawn", "0.1899 USD", '"prompt": "A lighthouse, dawn"'):
        assert part in out
    for part in ("task-dawn", CLIP.path, CLIP.sha256, "73 frames of 1280x720", "run-1", purchase.order.key):
        assert part in out
    assert f"{purchase.sent_at:%Y-%m-%d %H:%M:%S} UTC" in out
    whole = json.loads(command("ledger", "show", purchase.token[:12], "--json")[1])
    assert whole["token"] == purchase.token
    assert whole["request"]["prompt"] == "A lighthouse, dawn"
    assert whole["sha256"] == CLIP.sha256
    assert "resolve" not in whole


def test_an_uncertain_purchase_is_shown_with_both_commands_that_settle_it(command: Command) -> None:
    purchase = made(State.UNCERTAIN)
    code, out, _ = command("ledger", "show", purchase.token)
    assert code == 0
    commands = [f"prefect-kling ledger resolve {purchase.short} {how}" for how in ("--task-id ID", "--never-created")]
    assert [line.strip() for line in out.splitlines() if "ledger resolve" in line and "prefect" in line] == commands
    assert "0.1899 USD may have been spent" in out
    assert "the connection was reset" in out
    assert f"around {purchase.sent_at:%Y-%m-%d %H:%M:%S} UTC" in out
    assert json.loads(command("ledger", "show", purchase.short, "--json")[1])["resolve"] == commands


def test_what_callbacks_said_is_shown(command: Command) -> None:
    purchase = made(State.UNCERTAIN)
    assert "called back" not in command("ledger", "show", purchase.short)[1]
    call = Call(purchase.token, "a-task", "completed")
    with_desk(lambda there: hear(there.ledger, [call]))
    out = command("ledger", "show", purchase.short)[1]
    (line,) = [line for line in out.splitlines() if "called back" in line]
    assert line.rstrip().endswith("task a-task, completed")
    (said,) = json.loads(command("ledger", "show", purchase.short, "--json")[1])["called_back"]
    assert (said["task_id"], said["state"]) == ("a-task", "completed")


def test_what_came_from_outside_cannot_write_to_the_terminal(command: Command) -> None:
    assert "no such\ufffd[31m voice" in command("ledger", "show", made(State.REFUSED).short)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "1234567"], "too short"),
        (["show", "0" * 32], "no purchase with the token 00000000"),
        (["resolve", "0" * 8, "--never-created"], "no purchase with the token"),
        (["resolve", "0" * 8], "either --task-id ID or --never-created"),
        (["resolve", "0" * 8, "--never-created", "--task-id", "t"], "either --task-id ID or --never-created"),
        (["list", "--limit", "0"], "--limit has to be at least 1"),
        (["list", "--state", "gone"], "gone"),
        (["spend", "--since", "yesterday"], "yesterday"),
        (["spend", "--by", "week"], "week"),
    ],
)
def test_bad_usage_exits_with_2(command: Command, arguments: list[str], said: str) -> None:
    code, out, err = command("ledger", *arguments)
    assert (code, out) == (2, "")
    assert said in err


# resolve


def test_a_lost_answer_is_held_shown_and_never_posted_again_until_its_task_is_named(
    command: Command, losing: Running, at: Callable[[Running], None]
) -> None:
    at(losing)
    purchase = with_lost_answer("dawn")
    assert with_lost_answer("dawn") == purchase
    assert losing.service.stats()["creates"] == 1
    assert json.loads(command("ledger", "spend", "--json")[1])["uncertain"] == {"purchases": 1, "usd": 0.1899}
    code, _, err = command("sweep")
    assert code == 5
    assert f"{purchase.short} (shot 'dawn')" in err
    assert "ledger resolve TOKEN --task-id ID" in err

    (task_id,) = losing.service.tasks
    code, out, err = command("ledger", "resolve", purchase.short, "--task-id", task_id)
    assert (code, out) == (0, "")
    assert f"{purchase.short} (shot 'dawn') is task {task_id}: its 0.1899 USD are spent." in err
    assert "prefect-kling sweep" in err
    swept_until_stored(command, purchase)
    code, _, err = command("ledger", "resolve", purchase.short, "--task-id", task_id)
    assert code == 0
    assert "and stored already; nothing was changed" in err
    assert losing.service.stats()["creates"] == 1
    assert json.loads(command("ledger", "spend", "--json")[1])["usd"] == 0.1899


def test_a_purchase_that_was_never_created_is_free_to_be_bought(
    command: Command, losing: Running, at: Callable[[Running], None]
) -> None:
    at(losing)
    purchase = with_lost_answer("dawn")
    code, out, err = command("ledger", "resolve", purchase.short, "--never-created", "--json")
    assert code == 0
    assert json.loads(out)["state"] == "abandoned"
    assert err == (
        f"{purchase.short} (shot 'dawn') was never created: its 0.1899 USD are free again, and the next run buys it.\n"
    )
    assert json.loads(command("ledger", "spend", "--json")[1])["usd"] == 0
    assert bought("dawn").state is State.SUBMITTED

    # It was created after all: whoever finds that out may say so, and the clip is kept as well.
    (first, _) = sorted(losing.service.tasks.values(), key=lambda task: task.created_at)
    code, _, err = command("ledger", "resolve", purchase.short, "--task-id", first.task_id)
    assert code == 0
    assert "spare take" in err
    assert json.loads(command("ledger", "spend", "--json")[1])["usd"] == pytest.approx(2 * 0.1899)


def test_a_task_that_cannot_be_it_is_refused(
    command: Command, simulator: Running, at: Callable[[Running], None]
) -> None:
    at(simulator)
    others = bought("night").task_id
    assert others is not None
    uncertain = made(State.UNCERTAIN, "dawn")
    code, out, err = command("ledger", "resolve", uncertain.short, "--task-id", others)
    assert (code, out) == (3, "")
    assert f"Task {others} belongs to shot 'night' already" in err

    code, _, err = command("ledger", "resolve", uncertain.short, "--task-id", "no-such-task")
    assert code == 3
    assert "The gateway does not know task no-such-task; nothing was changed" in err

    async def bought_elsewhere(there: Desk) -> str:
        async with there.client() as client:
            return (await client.create(wanted("storm"))).task_id

    code, _, err = command("ledger", "resolve", uncertain.short, "--task-id", with_desk(bought_elsewhere))
    assert code == 3
    assert "is not the purchase of shot 'dawn': its prompt is not what was asked for" in err
    assert now_is(uncertain).state is State.UNCERTAIN


@pytest.mark.parametrize("how", [("--never-created",), ("--task-id", "another")])
def test_only_what_is_uncertain_can_be_settled(
    command: Command, simulator: Running, at: Callable[[Running], None], how: tuple[str, ...]
) -> None:
    at(simulator)
    purchase = made(State.STORED)
    code, out, err = command("ledger", "resolve", purchase.short, *how)
    assert (code, out) == (3, "")
    assert "is stored: there is nothing to settle" in err


def test_naming_a_task_needs_a_key_and_saying_that_there_is_none_does_not(command: Command) -> None:
    purchase = made(State.UNCERTAIN)
    code, _, err = command("ledger", "resolve", purchase.short, "--task-id", "t")
    assert code == 3
    assert "APIMODELS_API_KEY" in err
    assert command("ledger", "resolve", purchase.short, "--never-created")[0] == 0


# spend


def test_spending_is_summed_by_day_storyboard_and_model(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{SETTING}BUDGET_PER_DAY", "1.5")
    monkeypatch.setenv(f"{SETTING}BUDGET_PER_RUN", "0.5")
    old = made(State.STORED, "dawn")
    made(State.STORED, "storm")
    made(State.FAILED, "keeper")
    made(State.UNCERTAIN, "lamp", storyboard="spot")
    made(State.LOST, "", storyboard="", model="kling-video-o1", micro_usd=500_000)
    today = old.created_at.date()
    then = old.created_at - timedelta(days=3)

    async def long_ago(there: Desk) -> None:
        # Its counters stay in this day: they say what budgets count, which is not what is asked for here.
        statement = update(purchases).where(purchases.c.id == old.id).values(created_at=then)
        await there.ledger.db.write(lambda connection: connection.execute(statement))
        hold = Hold("main", "a document", "a run")
        await there.ledger.admit(there.account, hold, {("quay", 1): 100_000}, there.limits)

    with_desk(long_ago)

    def spent(*arguments: str) -> list[tuple[Any, ...]]:
        found = json.loads(command("ledger", "spend", "--json", *arguments)[1])
        assert sum(row["usd"] for row in found["spending"]) == pytest.approx(found["usd"])
        return [tuple(row.values()) for row in found["spending"]]

    day, before = today.isoformat(), then.date().isoformat()
    assert spent() == [
        (before, "harbour-morning", "kling-v3-omni", 1, 0.1899),
        (day, "", "kling-video-o1", 1, 0.5),
        (day, "harbour-morning", "kling-v3-omni", 1, 0.1899),
        (day, "spot", "kling-v3-omni", 1, 0.1899),
    ]
    assert spent("--by", "day") == [(before, 1, 0.1899), (day, 3, 0.8798)]
    assert spent("--by", "storyboard") == [("", 1, 0.5), ("harbour-morning", 2, 0.3798), ("spot", 1, 0.1899)]
    assert spent("--by", "model") == [("kling-v3-omni", 3, 0.5697), ("kling-video-o1", 1, 0.5)]
    assert spent("--since", day, "--by", "model") == [("kling-v3-omni", 2, 0.3798), ("kling-video-o1", 1, 0.5)]

    found = json.loads(command("ledger", "spend", "--json")[1])
    assert found["budgets"]["run"] == {"limit_usd": 0.5}
    assert found["budgets"]["day"] == pytest.approx(
        {"limit_usd": 1.5, "bought_usd": 1.0697, "held_usd": 0.1, "left_usd": 0.3303}
    )
    assert found["budgets"]["month"]["left_usd"] is None

    code, out, _ = command("ledger", "spend", "--by", "storyboard")
    assert code == 0
    table, _, budgets = out.partition("\n\n")
    assert [line.split() for line in table.splitlines()] == [
        ["storyboard", "purchases", "USD"],
        ["(none)", "1", "0.5000"],
        ["harbour-morning", "2", "0.3798"],
        ["spot", "1", "0.1899"],
        ["total", "4", "1.0697"],
    ]
    assert budgets.splitlines()[:3] == [
        "this UTC day: 1.0697 of 1.5000 USD bought, 0.1000 held for storyboards on their way, 0.3303 left",
        "this UTC month: 1.0697 USD bought, 0.1000 held for storyboards on their way, no budget",
        "each run: 0.5000 USD at most",
    ]
    assert "1 uncertain purchase: 0.1899 USD held" in budgets
    assert command("ledger", "spend", "--since", "2999-01-01")[2] == "Nothing was spent since 2999-01-01.\n"


# trouble with the ledger


def test_a_broken_ledger_is_one_sentence(office: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (office / "ledger.db").write_text("this is no database, and long enough to be seen to be none " * 20)
    for arguments in (["ledger", "list"], ["ledger", "spend", "--json"], ["sweep"]):
        assert run(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"The ledger {office / 'ledger.db'} cannot be used: file is not a database")
        assert err.count("\n") == 1


def test_a_ledgers_password_is_not_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(f"{SETTING}LEDGER_URL", "mysql://films:hunter2@127.0.0.1/films")
    assert run(["ledger", "list"]) == 2
    out, err = capsys.readouterr()
    assert "mysql" in err
    assert "hunter2" not in out + err


# prune


def filmed(*takes: int) -> list[Purchase]:
    """Stored takes of one shot, the first of which is in a film; each has a file of 1.5 MB."""
    rows = [made(State.COMPLETED, "dawn", f"task-{take}", take=take, key=f"k1:dawn#{take}") for take in takes]

    async def work(there: Desk) -> list[Purchase]:
        storage, stored = there.storage(), []
        for row in rows:
            async with storage.incoming() as folder:
                (folder / "clip.mp4").write_bytes(b"\0" * 1_500_000)
                location = await storage.publish(folder / "clip.mp4", f"clips/{row.task_id}.mp4")
            # Each its own content, as different clips have.
            clip = CLIP.model_copy(update={"path": location, "sha256": str(row.task_id), "bytes": 1_500_000})
            stored.append(await there.ledger.happened(row, Event.DOWNLOADED, clip=clip))
        film = FilmRecord("main", "harbour-morning", "films/main/harbour-morning.mp4", "d", "r", {}, (stored[0].id,))
        await remember_film(there.ledger, there.account, film)
        return stored

    return with_desk(work)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Somebody sits there, and types."""
    keyboard = io.StringIO(answer)
    monkeypatch.setattr(keyboard, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", keyboard)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


def files(rows: list[Purchase]) -> list[bool]:
    return [Path(row.clip.path).exists() for row in rows if row.clip is not None]


@pytest.mark.parametrize(("answer", "removed"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("", False)])
def test_takes_that_no_film_uses_are_shown_and_removed_when_somebody_says_so(
    command: Command, monkeypatch: pytest.MonkeyPatch, answer: str, removed: bool
) -> None:
    rows = filmed(1, 2, 3)
    on_a_terminal(monkeypatch, answer)
    code, out, err = command("ledger", "prune")
    assert code == 0
    head, *lines = out.splitlines()
    assert head.split() == ["shot", "take", "storyboard", "edition", "bought", "MB", "USD"]
    on = f"{rows[1].created_at:%Y-%m-%d}"
    assert [line.split() for line in lines] == [
        ["dawn", take, "harbour-morning", "main", on, "1.5", "0.1899"] for take in ("2", "3")
    ]
    assert "Remove 2 clips, 3.0 MB? [y/N] " in err
    assert ("Removed 2 clips, 3.0 MB. They stay in the ledger as pruned" in err) is removed
    assert ("Nothing was removed." in err) is not removed
    assert files(rows) == [True, not removed, not removed]
    assert now_is(rows[1]).state is (State.PRUNED if removed else State.STORED)


def test_without_a_terminal_nothing_is_removed_unless_it_is_said_beforehand(command: Command) -> None:
    rows = filmed(1, 2)
    code, out, err = command("ledger", "prune")
    assert (code, files(rows)) == (2, [True, True])
    assert "dawn" in out
    assert "there is no terminal to ask on. --yes removes without asking" in err
    code, out, err = command("ledger", "prune", "--yes")
    assert (code, files(rows)) == (0, [True, False])
    assert "Removed 1 clip, 1.5 MB" in err
    code, out, err = command("ledger", "prune", "--yes")
    assert (code, out) == (0, "")
    assert "Nothing can be pruned" in err


def test_a_prune_of_one_edition_leaves_the_others(command: Command) -> None:
    rows = filmed(1, 2)
    assert command("ledger", "prune", "--yes", "--edition", "daily")[0] == 0
    assert files(rows) == [True, True]
    assert command("ledger", "prune", "--yes", "--edition", "main")[0] == 0
    assert files(rows) == [True, False]


def test_a_prune_as_json_says_what_could_go_and_what_went(command: Command) -> None:
    used, unused = filmed(1, 2)
    code, out, _ = command("ledger", "prune", "--json")
    found = json.loads(out)
    assert (code, [row["token"] for row in found["prunable"]], found["removed"]) == (2, [unused.token], [])
    code, out, _ = command("ledger", "prune", "--json", "--yes")
    found = json.loads(out)
    assert (code, [row["state"] for row in found["removed"]], found["bytes"]) == (0, ["pruned"], 1_500_000)
    assert (found["spared"], found["left"]) == ([], [])
    assert files([used, unused]) == [True, False]
    assert json.loads(command("ledger", "prune", "--json", "--yes")[1])["prunable"] == []


def test_a_clip_that_cannot_be_removed_is_named(command: Command) -> None:
    _, unused = filmed(1, 2)
    assert unused.clip is not None
    Path(unused.clip.path).unlink()
    Path(unused.clip.path).mkdir()
    code, _, err = command("ledger", "prune", "--yes")
    assert code == 2
    assert f"shot 'dawn', take 2 ({unused.short}) could not be removed: " in err
    assert "Another `prefect-kling ledger prune` tries again" in err
    Path(unused.clip.path).rmdir()
    assert command("ledger", "prune", "--yes")[0] == 0
    assert now_is(unused).stored_at is None


# sweep


def swept_until_stored(command: Command, purchase: Purchase) -> None:
    """Sweeps as a schedule would, until a purchase is no longer on its way."""
    deadline = time.monotonic() + 60
    while now_is(purchase).state is not State.STORED:
        assert time.monotonic() < deadline, now_is(purchase)
        assert command("sweep")[0] == 0


def test_a_sweep_with_nothing_to_do_says_so(
    command: Command, simulator: Running, at: Callable[[Running], None]
) -> None:
    at(simulator)
    assert command("sweep") == (0, "", "Swept: nothing to do\n")
    found = json.loads(command("sweep", "--json")[1])
    assert found == {
        "recovered": 0, "stored": [], "failed": [], "lost": [], "waiting": [], "uncertain": [], "errors": {},
    }  # fmt: skip


def test_a_sweep_finishes_what_a_dead_run_left_without_any_prefect_server(
    command: Command, simulator: Running, at: Callable[[Running], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/api")
    at(simulator)
    submitted = bought("dawn")
    # Another died between the answer, which is on its disk, and the commit.
    sending = made(State.SENDING, "night")

    async def answered(there: Desk) -> str:
        async with there.client() as client:
            task = await client.create(wanted("night"))
        there.ledger.journal.append(Answer(there.ledger.id, sending.token, task.task_id))
        return task.task_id

    task_id = with_desk(answered)
    for purchase in (submitted, sending):
        swept_until_stored(command, purchase)
        clip = now_is(purchase).clip
        assert clip is not None
        assert Path(clip.path).stat().st_size == clip.bytes
    assert now_is(sending).task_id == task_id
    assert simulator.service.stats()["creates"] == 2
    assert command("ledger", "list", "--state", "stored")[1].count(" stored ") == 2


@pytest.mark.parametrize(("faults", "state"), [("failed=1", State.FAILED), ("expired=1", State.LOST)])
def test_what_failed_or_was_lost_just_now_exits_with_7_once(
    command: Command, at: Callable[[Running], None], faults: str, state: State
) -> None:
    with serving(generation_seconds=0.0, faults=faults) as server:
        at(server)
        purchase = bought("dawn")
        deadline = time.monotonic() + 60
        code = 0
        while code == 0:
            assert time.monotonic() < deadline
            code, out, err = command("sweep", "--json")
        assert code == 7
        assert now_is(purchase).state is state
        assert json.loads(out)[str(state)] == [purchase.short]
        assert purchase.short in err
        assert command("sweep")[0] == 0


def test_a_wrong_key_exits_with_3_and_leaves_everything(command: Command, at: Callable[[Running], None]) -> None:
    with serving(api_key="the-right-one") as server:
        at(server)
        purchase = made(State.SUBMITTED)
        code, out, err = command("sweep", "--json")
    assert code == 3
    assert list(json.loads(out)["errors"]) == [purchase.short]
    assert "tried again by the next sweep" in err
    assert now_is(purchase).state is State.SUBMITTED


def test_what_is_uncertain_counts_more_than_what_failed(command: Command, at: Callable[[Running], None]) -> None:
    with serving(api_key="the-right-one") as server:
        at(server)
        made(State.SUBMITTED)
        purchase = made(State.UNCERTAIN)
        code, out, _ = command("sweep", "--json")
    assert code == 5
    assert [row["token"] for row in json.loads(out)["uncertain"]] == [purchase.token]


def test_a_sweep_needs_a_key(command: Command) -> None:
    code, _, err = command("sweep")
    assert code == 3
    assert "APIMODELS_API_KEY" in err
