"""The ledger: every purchase of every account, and what budgets count.

One live row per account, edition and key; whoever wants that video finds the row and joins it. Every change says what
happened, and `states` says what that means. All work runs in the back room, so a commit that has begun ends.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from sqlalchemy import BigInteger, Select, and_, bindparam, exists, func, insert, or_, select, type_coerce, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement, TextClause
from sqlalchemy.sql.selectable import ScalarSelect

from prefect_kling.clips import Clip
from prefect_kling.gateway.errors import BudgetExceeded
from prefect_kling.ledger import holds
from prefect_kling.ledger.answers import Journal
from prefect_kling.ledger.backroom import close_at_end, closed, in_backroom
from prefect_kling.ledger.database import PATIENCE, Database, chunks, storable
from prefect_kling.ledger.gathering import Gathering
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.money import Limits, Spent, periods, refusal
from prefect_kling.ledger.owners import is_surely_gone, this_process
from prefect_kling.ledger.purchases import Account, Order, Purchase
from prefect_kling.ledger.schema import accounts, counters, is_live, is_moving, purchases
from prefect_kling.ledger.states import IN_FLIGHT, LIVE, Event, Impossible, Money, State, Step, step
from prefect_kling.ledger.upgrade import up_to_date

__all__ = ["LEASE_SECONDS", "Ledger", "Reserved"]

T = TypeVar("T")

LEASE_SECONDS: Final = 90.0
"""A sender is believed to be sending for so long; a POST starts within 10 s of the lease and ends 60 s later."""


class _NoSlot(Exception):
    """Rolls a reservation back: the account has as many purchases on their way as it may."""


@dataclass(frozen=True)
class Reserved:
    """What came of a wish to buy: a row, and whether it is ours to send; no row where no slot is free.

    Attributes:
        free: slots that were left then, of a row that is ours.
    """

    purchase: Purchase | None
    mine: bool
    free: int = 0


class Ledger:
    """Use it as `async with await Ledger.open(url, answers=path) as ledger`; see `Ledger.open`.

    Attributes:
        db: its database.
        journal: this machine's answers that may not be in it yet.
        id: tells this ledger from others.
        owner: this process.
    """

    def __init__(self, db: Database, journal: Journal, ledger_id: str, *, owner: str | None = None) -> None:
        self.db, self.journal, self.id = db, journal, ledger_id
        self.owner = owner or this_process()
        self._accounts: dict[Account, int] = {}
        self._live: dict[tuple[int, str], Gathering[str, Purchase]] = {}
        self._by_number: Gathering[int, Purchase] = Gathering(self._numbered)
        self._now: Gathering[None, datetime] = Gathering(self._time)
        self._statements: dict[tuple[Hashable, ...], Any] = {}
        self._close_before: list[Callable[[], Coroutine[Any, Any, None]]] = []

    @classmethod
    async def open(cls, url: str, *, answers: Path, ahead: Callable[[], int] = lambda: 0) -> Self:
        """Opens a ledger, makes its tables where there are none, and brings older ones up to date.

        Args:
            url: `sqlite:///PATH`, a bare path, or `postgresql://…`.
            answers: this machine's journal, see `answers`.
            ahead: milliseconds that the database's clock is taken to be ahead, for tests.

        Raises:
            LedgerUnavailable: it cannot be used, or was made by a newer version.
        """

        async def opened() -> Self:
            db = Database(url, ahead=ahead)
            try:
                ledger = cls(db, Journal(answers), await up_to_date(db))
            except BaseException:
                await db.close()
                raise
            close_at_end(db.close)
            return ledger

        return await in_backroom(opened())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def close_before(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Has this called in the back room before the ledger is closed, or where the interpreter ends first."""
        self._close_before.append(close)
        close_at_end(close)

    async def close(self) -> None:
        """Closes what depends on it, and its connections."""
        while self._close_before:
            close = self._close_before.pop()
            closed(close)
            await in_backroom(close())
        closed(self.db.close)
        await in_backroom(self.db.close())

    async def account_id(self, account: Account) -> int:
        """The number of an account's row, which is made where there is none."""
        if account not in self._accounts:

            async def work(connection: AsyncConnection) -> int:
                values = {"base_url": account.base_url, "name": account.name}
                await connection.execute(self.insert(accounts).values(**values).on_conflict_do_nothing())
                found = await connection.execute(select(accounts.c.id).filter_by(**values))
                return int(found.scalar_one())

            self._accounts[account] = await in_backroom(self.db.write(work))
        return self._accounts[account]

    # Looking.

    async def find(self, account: Account, edition: str, keys: Iterable[str]) -> dict[str, Purchase]:
        """The live rows with these keys, by key."""
        wanted, slate = list(keys), (await self.account_id(account), edition)
        if slate not in self._live:
            self._live[slate] = Gathering(partial(self._found, *slate))
        return await in_backroom(self._live[slate].ask(wanted)) if wanted else {}

    async def _found(self, account_id: int, edition: str, keys: list[str]) -> dict[str, Purchase]:
        query = self._statement(
            ("live",),
            lambda: select(purchases).where(
                purchases.c.account_id == bindparam("account"),
                purchases.c.edition == bindparam("edition"),
                purchases.c.key.in_(bindparam("keys", expanding=True)),
                is_live,
            ),
        )
        found: dict[str, Purchase] = {}
        for some in chunks(keys):
            values = {"account": account_id, "edition": edition, "keys": some}
            found |= {row.order.key: row for row in await self._read(query, values)}
        return found

    async def get(self, purchase_id: int) -> Purchase:
        """A row by its number.

        Raises:
            LookupError: there is none.
        """
        found = await in_backroom(self._by_number.ask([purchase_id]))
        if not found:
            raise LookupError(f"the ledger has no purchase {purchase_id}")
        return found[purchase_id]

    async def _numbered(self, numbers: list[int]) -> dict[int, Purchase]:
        query = self._statement(
            ("numbered",), lambda: select(purchases).where(purchases.c.id.in_(bindparam("numbers", expanding=True)))
        )
        return {row.id: row for some in chunks(numbers) for row in await self._read(query, {"numbers": some})}

    async def _read(self, query: Select[Any], values: Mapping[str, Any]) -> list[Purchase]:
        async def work(connection: AsyncConnection) -> list[Purchase]:
            return [Purchase.read(row) for row in (await connection.execute(query, values)).mappings()]

        return await self.db.look(work)

    async def by_task(self, account: Account, task_id: str) -> Purchase | None:
        """The row that a task of the gateway belongs to."""
        account_id = await self.account_id(account)
        found = await self.select(purchases.c.account_id == account_id, purchases.c.task_id == task_id)
        return found[0] if found else None

    async def of_account(
        self, account: Account, *conditions: ColumnElement[bool] | TextClause, limit: int | None = None
    ) -> list[Purchase]:
        """An account's rows that fulfil conditions on `schema.purchases`, the oldest first."""
        return await self.select(purchases.c.account_id == await self.account_id(account), *conditions, limit=limit)

    async def select(self, *conditions: ColumnElement[bool] | TextClause, limit: int | None = None) -> list[Purchase]:
        """Rows that fulfil conditions on `schema.purchases`, the oldest first."""

        return await in_backroom(self._select(*conditions, limit=limit))

    async def _select(self, *conditions: ColumnElement[bool] | TextClause, limit: int | None = None) -> list[Purchase]:
        return await self.db.look(lambda connection: self._rows(connection, *conditions, limit=limit))

    @staticmethod
    async def _rows(
        connection: AsyncConnection, *conditions: ColumnElement[bool] | TextClause, limit: int | None = None
    ) -> list[Purchase]:
        query = select(purchases).where(*conditions).order_by(purchases.c.id).limit(limit)
        return [Purchase.read(row) for row in (await connection.execute(query)).mappings()]

    async def time(self, *, patience: float = PATIENCE) -> datetime:
        """The database's time, UTC; one in trouble is waited for `patience` seconds."""
        if patience != PATIENCE:
            return await in_backroom(self.db.time(patience=patience))
        return (await in_backroom(self._now.ask([None])))[None]

    async def _time(self, _: list[None]) -> dict[None, datetime]:
        return {None: await self.db.time()}

    # Buying.

    async def reserve(self, account: Account, order: Order, limits: Limits, *, token: str | None = None) -> Reserved:
        """Finds the live row of an order, or reserves one where budgets and slots allow it.

        Args:
            account: that pays.
            order: what is wanted.
            limits: of the account.
            token: 32 hex digits that nobody knows, for the row; None draws them.

        Raises:
            BudgetExceeded: a budget does not allow it; nothing was reserved.
        """
        account_id, token = await self.account_id(account), token or secrets.token_hex(16)

        async def work(connection: AsyncConnection) -> Reserved:
            return await self._reserve(connection, account_id, order, limits, token)

        async def reserved() -> Reserved:
            try:
                return await self.db.write(work)
            except _NoSlot:
                return Reserved(None, mine=False)

        try:
            return await in_backroom(reserved())
        except BudgetExceeded:
            if not await self.reclaim(account):
                raise
        return await in_backroom(reserved())

    async def _reserve(
        self, connection: AsyncConnection, account_id: int, order: Order, limits: Limits, token: str
    ) -> Reserved:
        now = await self.lock(connection, account_id)
        # By the token too: this may be the second try of a commit whose success nobody heard of.
        wanted = self._statement(
            ("wanted", len(order.also)),
            lambda: (
                select(purchases)
                .where(
                    or_(
                        and_(
                            purchases.c.account_id == bindparam("account"),
                            purchases.c.edition == bindparam("edition"),
                            purchases.c.key.in_([bindparam(f"key_{n}") for n in range(1 + len(order.also))]),
                            is_live,
                        ),
                        purchases.c.token == bindparam("token"),
                    )
                )
                .order_by(purchases.c.token == bindparam("token"))
            ),
        )
        keys = {f"key_{n}": key for n, key in enumerate((order.key, *order.also))}
        values = {"account": account_id, "edition": order.edition, "token": token, **keys}
        found = (await connection.execute(wanted, values)).mappings().first()
        if found is not None:
            return Reserved(Purchase.read(found), found["token"] == token)
        hold = Hold(order.edition, order.document, order.run)
        if order.document:
            await holds.move(connection, account_id, hold, order.shot, order.take)
        in_flight, spent = await self._standing(connection, account_id, hold, limits, now)
        if in_flight >= limits.in_flight:
            raise _NoSlot
        why = refusal(limits, spent, order.micro_usd)
        if why is not None:
            raise BudgetExceeded(f"{order.shot or 'The video'} is not bought: {why}")
        await self._count(connection, account_id, order.micro_usd, periods(now, order.run))
        purchase = await self.add(
            connection,
            account_id,
            order,
            token,
            state=str(State.RESERVED),
            owner=self.owner,
            lease_until=now + timedelta(seconds=LEASE_SECONDS),
            created_at=now,
        )
        return Reserved(purchase, mine=True, free=limits.in_flight - in_flight - 1)

    async def add(
        self, connection: AsyncConnection, account_id: int, order: Order, token: str, **values: Any
    ) -> Purchase:
        """Inserts a row in a transaction that holds the account's lock; `values` are what an order does not say."""
        inserted = await connection.execute(
            self._statement(("insert",), lambda: insert(purchases).returning(purchases)),
            {
                "token": token,
                "account_id": account_id,
                "edition": order.edition,
                "key": order.key,
                "spare": False,
                "storyboard": order.storyboard,
                "document": order.document,
                "shot": order.shot,
                "take": order.take,
                "model": order.model,
                "seconds": order.seconds,
                "request": dict(order.request),
                "folder": order.folder,
                "run": order.run,
                "price": order.micro_usd,
                "counted": order.micro_usd,
                **values,
            },
        )
        return Purchase.read(inserted.mappings().one())

    async def happened(self, purchase: Purchase, event: Event, *, patience: float = PATIENCE, **facts: Any) -> Purchase:
        """Writes down what happened to a purchase, and returns its row as it is then.

        Compare and set: where somebody else has changed the row meanwhile, what happened is judged anew by its present
        state, and where it cannot happen there the row stays as it is.

        Args:
            purchase: as last seen.
            event: what happened.
            patience: seconds that a database in trouble is waited for.
            facts: further columns, such as `task_id`, `result_url`, `reason`; `clip` takes a `Clip`.

        Raises:
            LedgerUnavailable: it could not be written within `patience`.
        """
        if isinstance(facts.get("clip"), Clip):
            facts["clip"] = facts["clip"].model_dump(mode="json")
        facts = {name: storable(value) if isinstance(value, str) else value for name, value in facts.items()}

        async def write_down() -> Purchase:
            seen = purchase
            while True:
                try:
                    after = step(seen.state, event)
                except Impossible:
                    return seen
                change = partial(self.change, seen=seen, after=after, event=event, facts=facts)
                if after.money is Money.KEEP:
                    changed = await self.db.change(change, patience=patience)
                else:
                    changed = await self.db.write(partial(self._change_and_count, change, seen), patience=patience)
                if changed is not None:
                    return changed
                (seen,) = await self._select(purchases.c.id == seen.id)

        return await in_backroom(write_down())

    async def change(
        self, connection: AsyncConnection, *, seen: Purchase, after: Step, event: Event, facts: Mapping[str, Any]
    ) -> Purchase | None:
        """One compare-and-set of a row, in an open transaction; None where somebody else has changed it meanwhile."""
        statement = self._statement(
            ("change", event, after.state, after.money, *sorted(facts)),
            lambda: (
                update(purchases)
                .where(purchases.c.id == bindparam("this"), purchases.c.state == bindparam("seen"))
                .values(self._values(event, after) | {name: _new(name) for name in facts})
                .returning(purchases)
            ),
        )
        values = {"this": seen.id, "seen": str(seen.state), **{f"new_{name}": facts[name] for name in facts}}
        row = (await connection.execute(statement, values)).mappings().first()
        return None if row is None else Purchase.read(row)

    async def _change_and_count(
        self,
        change: Callable[[AsyncConnection], Awaitable[Purchase | None]],
        seen: Purchase,
        connection: AsyncConnection,
    ) -> Purchase | None:
        # The account first, then the row, as everywhere: two orders of locks would block each other.
        found = await connection.execute(select(purchases.c.account_id).where(purchases.c.id == seen.id))
        account_id = int(found.scalar_one())
        await self.lock(connection, account_id)
        (now,) = await self._rows(connection, purchases.c.id == seen.id)
        changed = await change(connection)
        if changed is not None and changed.counted != now.counted:
            when = periods(now.created_at, now.order.run)
            await self._count(connection, account_id, changed.counted - now.counted, when)
        return changed

    def _values(self, event: Event, after: Step) -> dict[str, Any]:
        values: dict[str, Any] = {"state": str(after.state), **self._times(event, after.state)}
        if after.money is Money.RELEASE:
            values["counted"] = 0
        elif after.money is Money.COUNT:
            values |= {"counted": purchases.c.price, "spare": _taken_by_another()}
        return values

    def _times(self, event: Event, after: State) -> dict[str, Any]:
        now = self.db.now
        match event:
            case Event.SEND:
                return {"sent_at": now, "lease_until": self.db.later(LEASE_SECONDS), "owner": self.owner}
            case Event.NOT_SENT if after is State.RESERVED:
                return {"lease_until": self.db.later(LEASE_SECONDS)}
            case Event.ACCEPTED:
                answered = func.coalesce(purchases.c.answered_at, now)
                return {"answered_at": answered, "owner": "", "lease_until": None}
            case Event.COMPLETED:
                return {"ended_at": func.coalesce(purchases.c.ended_at, now), "missing_since": None}
            case Event.DOWNLOADED:
                return {"stored_at": now, "reason": None, "error": None}
            case Event.ANSWER_LOST | Event.LEASE_ENDED:
                return {"owner": "", "lease_until": None}
            case _:
                return {"ended_at": now, "owner": "", "lease_until": None}

    async def polled(self, purchase: Purchase, *, missing: bool = False) -> None:
        """Notes that the gateway was asked, and whether it did not know the task."""

        async def work(connection: AsyncConnection) -> None:
            since = func.coalesce(purchases.c.missing_since, self.db.now) if missing else None
            await connection.execute(
                update(purchases)
                .where(purchases.c.id == purchase.id)
                .values(polled_at=self.db.now, missing_since=since)
            )

        await in_backroom(self.db.change(work))

    # Holds.

    async def admit(self, account: Account, hold: Hold, wanted: Mapping[tuple[str, int], int], limits: Limits) -> None:
        """Holds the money for a whole storyboard, or none of it.

        Args:
            account: that pays.
            hold: of which document, for which run.
            wanted: micro-dollars by shot and take: the upper bound of what is not bought yet.
            limits: of the account.

        Raises:
            BudgetExceeded: a budget does not allow it; nothing is held.
        """
        account_id = await self.account_id(account)

        async def work(connection: AsyncConnection) -> None:
            now = await self.lock(connection, account_id)
            await holds.take(connection, self.db, account_id, hold, wanted, self.owner)
            _, spent = await self._standing(connection, account_id, hold, limits, now)
            mine = spent.held_by_run
            others = Spent(spent.run, spent.day, spent.month, spent.held - mine, 0)
            # Who buys nothing joins and finishes what is there, whatever was spent.
            why = refusal(limits, others, mine) if any(wanted.values()) else None
            if why is not None:
                raise BudgetExceeded(f"Nothing was bought: {why}")

        try:
            await in_backroom(self.db.write(work))
        except BudgetExceeded:
            if not await self.reclaim(account):
                raise
            await in_backroom(self.db.write(work))

    async def renew_hold(self, account: Account, hold: Hold) -> None:
        """Says that a run goes on, so that its hold does not lapse."""
        account_id = await self.account_id(account)
        await in_backroom(self.db.write(lambda c: holds.renew(c, self.db, account_id, hold, self.owner)))

    async def end_hold(self, account: Account, hold: Hold) -> None:
        """Ends a run's part in a hold; what is left of the last one is free again."""
        account_id = await self.account_id(account)

        async def work(connection: AsyncConnection) -> None:
            await self.lock(connection, account_id)
            await holds.end(connection, account_id, hold)

        await in_backroom(self.db.write(work))

    # Recovery.

    async def replay(self) -> int:
        """Writes down the task ids in this machine's journal that the ledger does not know yet.

        Returns:
            How many there were.
        """
        waiting = {answer.token: answer for answer in self.journal.answers() if answer.ledger == self.id}
        replayed = 0
        for tokens in chunks(waiting):
            for purchase in await self.select(purchases.c.token.in_(tokens), purchases.c.task_id.is_(None)):
                # A task that another row has stays with that row; this one was told so when it was answered.
                with suppress(IntegrityError):
                    await self.happened(purchase, Event.ACCEPTED, task_id=waiting[purchase.token].task_id)
                    replayed += 1
        if waiting:
            self.journal.drop(waiting, ledger=self.id)
        return replayed

    async def reclaim(self, account: Account) -> int:
        """Takes back what the dead have left: reserved rows, rows in sending, holds.

        Returns:
            How many; 0 means that nothing is free now that was not free before.
        """
        account_id = await self.account_id(account)

        async def dead(connection: AsyncConnection) -> list[Purchase]:
            expired = purchases.c.lease_until <= self.db.now
            rows = await connection.execute(
                select(purchases, expired.label("expired")).where(
                    purchases.c.account_id == account_id,
                    is_moving,
                    purchases.c.state.in_([str(State.RESERVED), str(State.SENDING)]),
                )
            )
            return [Purchase.read(row) for row in rows.mappings() if row["expired"] or is_surely_gone(row["owner"])]

        async def drop(connection: AsyncConnection) -> int:
            await self.lock(connection, account_id)
            return await holds.drop_dead(connection, self.db, account_id)

        found, ended = await in_backroom(self.db.read(dead)), 0
        # Not before: only of somebody who is gone is the last answer known to be in the journal.
        replayed = await self.replay()
        for purchase in found:
            if purchase.state is State.RESERVED:
                now = await self.happened(purchase, Event.GIVEN_UP, reason="its sender is gone")
            else:
                now = await self.happened(purchase, Event.LEASE_ENDED, reason="its sender is gone and left no answer")
            ended += now.state in (State.RELEASED, State.UNCERTAIN)
        return replayed + ended + await in_backroom(self.db.write(drop))

    # Money.

    async def audit(self, account: Account) -> dict[str, tuple[int, int]]:
        """The periods whose counter is not the sum of its rows, with both amounts. Empty, unless there is a bug."""
        account_id = await self.account_id(account)

        async def work(connection: AsyncConnection) -> dict[str, tuple[int, int]]:
            summed: dict[str, int] = {}
            columns = purchases.c.created_at, purchases.c.run, purchases.c.counted
            for created_at, run, counted in await connection.execute(
                select(*columns).where(purchases.c.account_id == account_id)
            ):
                for period in periods(created_at, run):
                    summed[period] = summed.get(period, 0) + counted
            rows = await connection.execute(
                select(counters.c.period, counters.c.micro_usd).where(counters.c.account_id == account_id)
            )
            kept = {period: int(micro) for period, micro in rows}
            pairs = {period: (kept.get(period, 0), summed.get(period, 0)) for period in {*kept, *summed}}
            return {period: pair for period, pair in pairs.items() if pair[0] != pair[1]}

        return await in_backroom(self.db.read(work))

    async def spent(self, account: Account, hold: Hold) -> Spent:
        """What counts against the budgets of a run now."""
        account_id = await self.account_id(account)

        async def work(connection: AsyncConnection) -> Spent:
            now: datetime = (await connection.execute(select(self.db.now))).scalar_one()
            return (await self._standing(connection, account_id, hold, Limits(), now))[1]

        return await in_backroom(self.db.read(work))

    async def _standing(
        self, connection: AsyncConnection, account_id: int, hold: Hold, limits: Limits, now: datetime
    ) -> tuple[int, Spent]:
        """How many of the account's slots are taken, and what counts against its budgets, in one query."""

        def counted(period: str) -> ScalarSelect[int]:
            return (
                select(counters.c.micro_usd)
                .where(counters.c.account_id == bindparam("account"), counters.c.period == bindparam(period))
                .scalar_subquery()
            )

        def build() -> Select[Any]:
            long_ago = type_coerce(self.db.now, BigInteger) - bindparam("uncertain_ms", type_=BigInteger)
            uncertain = and_(
                purchases.c.state == str(State.UNCERTAIN), type_coerce(purchases.c.sent_at, BigInteger) > long_ago
            )
            moving = purchases.c.state.in_([str(state) for state in IN_FLIGHT])
            in_flight = select(func.count()).where(
                purchases.c.account_id == bindparam("account"), is_moving, or_(moving, uncertain)
            )
            return select(
                in_flight.scalar_subquery(),
                counted("day"),
                counted("month"),
                counted("run"),
                holds.held(self.db, of_document=False),
                holds.held(self.db, of_document=True),
            )

        day, month, *run = periods(now, hold.run)
        row = await connection.execute(
            self._statement(("standing",), build),
            {
                "account": account_id,
                "day": day,
                "month": month,
                "run": run[0] if run else "",
                "edition": hold.edition,
                "document": hold.document,
                "uncertain_ms": round(limits.uncertain_seconds * 1000),
            },
        )
        in_flight, *amounts = row.one()
        by_day, by_month, by_run, held, by_document = (int(amount or 0) for amount in amounts)
        return int(in_flight), Spent(by_run, by_day, by_month, held, by_document if hold.document else 0)

    async def _count(self, connection: AsyncConnection, account_id: int, micro_usd: int, names: Sequence[str]) -> None:
        def build() -> Any:
            statement = self.insert(counters)
            return statement.on_conflict_do_update(
                index_elements=[counters.c.account_id, counters.c.period],
                set_={"micro_usd": counters.c.micro_usd + statement.excluded.micro_usd},
            )

        values = [{"account_id": account_id, "period": name, "micro_usd": micro_usd} for name in names]
        await connection.execute(self._statement(("count",), build), values)

    async def lock(self, connection: AsyncConnection, account_id: int) -> datetime:
        """Locks the account's row, after which money and slots stand still; SQLite's transaction is locked already."""
        query = self._statement(
            ("lock",),
            lambda: (
                select(self.db.now).select_from(accounts).where(accounts.c.id == bindparam("account")).with_for_update()
            ),
        )
        found: datetime = (await connection.execute(query, {"account": account_id})).scalar_one()
        return found

    def _statement(self, name: tuple[Hashable, ...], build: Callable[[], T]) -> T:
        """A statement that is built once: building takes longer than running it."""
        if name not in self._statements:
            self._statements[name] = build()
        found: T = self._statements[name]
        return found

    def insert(self, table: Any) -> Any:
        """An insert that can say what happens on a conflict, in this database's dialect."""
        return sqlite.insert(table) if self.db.is_sqlite else postgresql.insert(table)


def _new(name: str) -> ColumnElement[Any]:
    """A fact's new value, but for a task id: a row that has one keeps it, as it may have been paid for."""
    value = bindparam(f"new_{name}", type_=purchases.c[name].type)
    return func.coalesce(purchases.c.task_id, value) if name == "task_id" else value


def _taken_by_another() -> ColumnElement[bool]:
    """Whether another row has taken the place of one that turns up after all."""
    other = purchases.alias()
    return exists().where(
        other.c.account_id == purchases.c.account_id,
        other.c.edition == purchases.c.edition,
        other.c.key == purchases.c.key,
        other.c.id != purchases.c.id,
        other.c.state.in_([str(state) for state in LIVE]),
        ~other.c.spare,
    )
