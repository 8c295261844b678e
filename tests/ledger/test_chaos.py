"""Buyers are SIGKILLed at random moments, sixty times on each database; nothing is paid twice, nothing paid for lost.

The soak is the same with more kills: `python -m benchmarks.chaos --kills 500 --database postgresql`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.buyer_process import DONE, SIX_SHOTS
from benchmarks.chaos import chaos, scene
from prefect_kling.ledger.answers import Answer
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account, Order
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.states import Event, State
from prefect_kling.simulator.config import SimulatorConfig

KILLS = 60
SEED = 20261122


@pytest.mark.timeout(300)
async def test_after_sixty_kills_every_clip_is_stored_and_was_bought_once(ledger_url: str, tmp_path: Path) -> None:
    report = await chaos(tmp_path, ledger_url, kills=KILLS, seed=SEED)
    again = f"python -m benchmarks.chaos --kills {KILLS} --seed {SEED} --database {ledger_url.partition(':')[0]}"
    assert not report.problems, f"{report}\nagain: {again}"
    assert report.kills >= KILLS
    assert {"submitted", "completed"} <= set(report.phases)
    assert {"reserved", "sending"} & set(report.phases)
    assert report.creates == report.editions * len(SIX_SHOTS)


@pytest.mark.timeout(180)
async def test_the_harness_would_see_what_it_looks_for(tmp_path: Path) -> None:
    config = SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8)
    async with scene(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}", config) as there:
        buyer = await there.nursery.start(there.job("edition-1"))
        assert await buyer.ended == DONE
        assert await there.problems() == []
        ledger = there.desk.ledger
        first, second, third, *_ = await there.rows()
        assert first.clip is not None

        # A clip that is not what was served, a file that nobody knows, the key where it does not belong.
        Path(first.clip.path).write_bytes(b"half a cl")
        (Path(first.clip.path).parent / "stray.mp4").write_bytes(b"")
        with there.log.open("a") as log:
            print(f"Bearer {there.desk.settings.api_key.get_secret_value()}", file=log)
        # A video that was bought once more behind the ledger's back, and a clip that is gone.
        async with there.desk.client() as client:
            await client.create({**second.order.request, "video_list": None} | {"duration": "3", "aspect_ratio": "1:1"})
            await client.create(third.order.request)
        await ledger.happened(second, Event.GONE, reason="thought gone")
        await there.swept()
        said = "\n".join(await there.problems())
    assert "on disk" in said
    assert "stray.mp4 belongs to no row" in said
    assert "the API key is in" in said
    assert "is in no row" in said
    assert "the simulator billed" in said
    assert "is lost" not in said, "the sweep fetches it again"


async def test_a_sender_that_is_killed_at_the_gateways_door_leaves_an_uncertain_row(
    ledger_url: str, tmp_path: Path
) -> None:
    config = SimulatorConfig(seed=1, generation_seconds=0.1, shrink=8, faults="hung-answer=@1")
    async with scene(tmp_path, ledger_url, config) as there:
        buyer = await there.nursery.start(there.job("edition-1", shots=SIX_SHOTS[:1]))
        service = there.gateway.service
        while not service.tasks:
            assert not buyer.ended.done()
            await there.rows()
        await buyer.kill()
        await there.desk.ledger.reclaim(there.desk.account)
        (row,) = await there.rows(purchases.c.state == str(State.UNCERTAIN))
        assert row.counted == row.order.micro_usd

        await there.settled()
        buyer = await there.nursery.start(there.job("edition-1", shots=SIX_SHOTS[:1]))
        assert await buyer.ended == DONE
        assert await there.problems() == []
        assert service.creates.total() == 1


async def test_an_answer_that_a_sender_leaves_with_its_last_breath_is_found(
    ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account("https://gateway.example.com/api/v1")
    async with await Ledger.open(ledger_url, answers=tmp_path / "answers.jsonl") as ledger:
        order = Order("main", "k1:abc#1", {"prompt": "A fox"}, "kling-v3-omni", 3, 189_900)
        reserved = await ledger.reserve(account, order, Limits())
        assert reserved.purchase is not None
        row = await ledger.happened(reserved.purchase, Event.SEND)

        def dies_now(owner: str) -> bool:
            ledger.journal.append(Answer(ledger.id, row.token, "task-1"))
            return True

        monkeypatch.setattr("prefect_kling.ledger.ledger.is_surely_gone", dies_now)
        assert await ledger.reclaim(account) == 1
        row = await ledger.get(row.id)
        assert (row.state, row.task_id) == (State.SUBMITTED, "task-1")
