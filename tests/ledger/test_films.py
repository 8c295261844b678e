"""Films: remembered by their name in storage, written over when they are made anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prefect_kling.ledger.films import FilmRecord, film_named, remember_film
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account

if TYPE_CHECKING:
    from tests.ledger.conftest import Shift

FILM = FilmRecord(
    edition="main",
    storyboard="lighthouse",
    name="films/main/lighthouse.mp4",
    document="d1" * 32,
    recipe="e2" * 32,
    film={"frames": 242, "seconds": 10.08, "title": "Leuchttürme"},
    purchases=(3, 1, 2),
)


async def test_a_film_is_found_as_it_was_remembered(ledger: Ledger, account: Account) -> None:
    assert await film_named(ledger, account, "main", FILM.name) is None
    before = await ledger.time()
    await remember_film(ledger, account, FILM)
    found = await film_named(ledger, account, "main", FILM.name)
    assert found is not None
    assert found.rendered_at is not None
    assert before <= found.rendered_at <= await ledger.time()
    assert found == replace(FILM, rendered_at=found.rendered_at)
    assert await film_named(ledger, account, "daily", FILM.name) is None
    assert await film_named(ledger, Account(account.base_url, "second"), "main", FILM.name) is None


async def test_a_film_that_is_made_anew_takes_the_place_of_the_old(
    ledger: Ledger, account: Account, shift: Shift
) -> None:
    await remember_film(ledger, account, FILM)
    first = await film_named(ledger, account, "main", FILM.name)
    assert first is not None
    shift.advance(60)
    await remember_film(ledger, account, replace(first, recipe="f3" * 32, film={}, purchases=(4,)))
    second = await film_named(ledger, account, "main", FILM.name)
    assert second is not None
    assert (second.recipe, second.film, second.purchases) == ("f3" * 32, {}, (4,))
    assert first.rendered_at is not None
    assert second.rendered_at is not None
    assert second.rendered_at > first.rendered_at
