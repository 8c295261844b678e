"""Bringing ledgers up to date: empty, older, newer, and made by two at once."""

from __future__ import annotations

import asyncio
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger import upgrade
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.database import Database
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account
from prefect_kling.ledger.schema import HEAD, VERSION_TABLE, metadata
from prefect_kling.ledger.states import Event, State
from prefect_kling.ledger.upgrade import SCRIPTS, up_to_date


async def run(url: str, *statements: str) -> None:
    """Statements on a database, as somebody else's program would."""
    database = Database(url)

    async def work(connection: AsyncConnection) -> None:
        for statement in statements:
            await connection.execute(text(statement))

    try:
        await in_backroom(database.write(work))
    finally:
        await in_backroom(database.close())


def test_the_newest_script_is_the_version_that_is_asked_for() -> None:
    scripts = ScriptDirectory(str(SCRIPTS))
    assert scripts.get_heads() == [HEAD]
    assert len(scripts.get_bases()) == 1


async def test_the_scripts_make_the_tables_that_the_code_uses(ledger: Ledger) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    def indexes(connection: Connection) -> dict[str, bool]:
        return {str(one["name"]): bool(one["unique"]) for one in inspect(connection).get_indexes("kling_purchases")}

    async def both(connection: AsyncConnection) -> tuple[list[object], dict[str, bool]]:
        return await connection.run_sync(differences), await connection.run_sync(indexes)

    found, there = await in_backroom(ledger.db.read(both))
    assert found == []
    assert there["kling_purchases_live"] is True
    assert there["kling_purchases_task"] is True


async def test_tokens_are_sorted_as_bytes_whatever_language_a_database_speaks(
    shared_postgresql: str, tmp_path: Path
) -> None:
    # In Danish "aa" comes after "z", and one token in a hundred would not be found by its first half.
    async def collation(connection: AsyncConnection) -> object:
        asked = "SELECT collation_name FROM information_schema.columns WHERE (table_name, column_name) = "
        return (await connection.execute(text(f"{asked}('kling_purchases', 'token')"))).scalar_one()

    async with await Ledger.open(shared_postgresql, answers=tmp_path / "answers.jsonl") as ledger:
        assert await in_backroom(ledger.db.read(collation)) == "C"


async def test_what_the_index_calls_live_is_what_the_code_does(ledger: Ledger) -> None:
    # The script says it in words of its own, as it may never change.
    from prefect_kling.ledger.schema import purchases

    (live,) = [index for index in purchases.indexes if index.name == "kling_purchases_live"]
    script = (SCRIPTS / "versions" / "second_0002.py").read_text("utf-8")
    assert str(live.dialect_options["sqlite"]["where"]) in script


async def test_a_ledger_is_made_once_and_found_again(ledger_url: str, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    async with await Ledger.open(ledger_url, answers=answers) as first:
        account = await first.account_id(Account("https://gateway.example.com"))
    async with await Ledger.open(ledger_url, answers=answers) as second:
        assert second.id == first.id
        assert await second.account_id(Account("https://gateway.example.com")) == account
    assert len(first.id) == 32


async def test_a_newer_ledger_is_refused_in_words(ledger_url: str, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    await (await Ledger.open(ledger_url, answers=answers)).close()
    await run(ledger_url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(LedgerUnavailable, match="newer version of prefect-kling") as caught:
        await Ledger.open(ledger_url, answers=answers)
    assert "9999" in str(caught.value)
    assert HEAD in str(caught.value)
    await run(ledger_url, f"UPDATE {VERSION_TABLE} SET version_num = '{HEAD}'")
    await (await Ledger.open(ledger_url, answers=answers)).close()


LATER = f'''"""A later version."""
import sqlalchemy as sa
from alembic import op

revision = "later"
down_revision = "{HEAD}"


def upgrade():
    op.add_column("kling_accounts", sa.Column("note", sa.String(16), nullable=True))
    op.execute("UPDATE kling_accounts SET note = 'moved'")
'''


async def test_an_older_ledger_is_brought_up_to_date_and_keeps_what_it_has(
    ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = tmp_path / "answers.jsonl"
    async with await Ledger.open(ledger_url, answers=answers) as old:
        await old.account_id(Account("https://gateway.example.com"))
    later = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, later, ignore=shutil.ignore_patterns("__pycache__"))
    (later / "versions" / "later.py").write_text(LATER)
    monkeypatch.setattr(upgrade, "SCRIPTS", later)
    monkeypatch.setattr(upgrade, "HEAD", "later")
    database = Database(ledger_url)

    async def notes(connection: AsyncConnection) -> list[str]:
        return list((await connection.execute(text("SELECT note FROM kling_accounts"))).scalars())

    try:
        assert await in_backroom(up_to_date(database)) == old.id
        assert await in_backroom(database.read(notes)) == ["moved"]
    finally:
        await in_backroom(database.close())


@pytest.fixture
async def first_ledger(ledger_url: str, tmp_path: Path) -> str:
    """The address of a ledger of the first version, with a purchase that is stored and one that failed."""
    old = tmp_path / "migrations"
    shutil.copytree(SCRIPTS, old, ignore=shutil.ignore_patterns("__pycache__", "second_*", "third_*", "fourth_*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upgrade, "SCRIPTS", old)
        patch.setattr(upgrade, "HEAD", "0001")
        database = Database(ledger_url)
        try:
            await in_backroom(up_to_date(database))
        finally:
            await in_backroom(database.close())
    row = """INSERT INTO kling_purchases (token, account_id, edition, key, state, spare, storyboard, document, shot,
             take, model, seconds, request, folder, run, price, counted, owner, task_id, created_at)
             VALUES ('{token}', 1, 'main', 'k1:abc#1', '{state}', false, 'lighthouse', 'd', 'dawn', 1,
             'kling-v3-omni', 5, '{{"prompt": "A fox"}}', 'clips', '', 316500, 316500, '', '{token}', 1763769600000)"""
    await run(
        ledger_url,
        "INSERT INTO kling_accounts (id, base_url, name) VALUES (1, 'https://gateway.example.com', 'main')",
        row.format(token="first", state="stored"),
        row.format(token="second", state="failed"),
    )
    return ledger_url


async def test_a_ledger_of_the_first_version_keeps_its_purchases(first_ledger: str, tmp_path: Path) -> None:
    account = Account("https://gateway.example.com")
    async with await Ledger.open(first_ledger, answers=tmp_path / "answers.jsonl") as ledger:
        stored, failed = await ledger.of_account(account)
        assert (stored.state, stored.order.request, stored.counted) == (State.STORED, {"prompt": "A fox"}, 316_500)
        assert (await ledger.find(account, "main", ["k1:abc#1"]))["k1:abc#1"] == stored
        assert (stored.created_at, failed.state) == (datetime(2025, 11, 22, tzinfo=UTC), State.FAILED)
        pruned = await ledger.happened(stored, Event.PRUNED)
        assert pruned.state is State.PRUNED
    # What is pruned is live: the index lets nobody else have its place.
    live = f"UPDATE kling_purchases SET state = 'submitted' WHERE id = {failed.id}"
    with pytest.raises(IntegrityError):
        await run(first_ledger, live)


async def test_two_that_make_it_at_once_make_one(ledger_url: str, tmp_path: Path) -> None:
    found = await asyncio.gather(*(Ledger.open(ledger_url, answers=tmp_path / "a.jsonl") for _ in range(4)))
    assert len({ledger.id for ledger in found}) == 1
    for ledger in found:
        await ledger.close()


OPENS = """
import asyncio, sys
from pathlib import Path
from prefect_kling.ledger.ledger import Ledger

async def main():
    input()
    async with await Ledger.open(sys.argv[1], answers=Path(sys.argv[2])) as ledger:
        print(ledger.id)

asyncio.run(main())
"""


async def test_processes_that_make_it_at_once_make_one(ledger_url: str, tmp_path: Path) -> None:
    arguments = (sys.executable, "-c", OPENS, ledger_url, str(tmp_path / "a.jsonl"))
    pipe = asyncio.subprocess.PIPE
    processes = [await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe) for _ in range(2)]
    said = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0]
    assert len({out for out, _ in said}) == 1
