"""Films that were joined before: what is made of the same clips in the same way is the same film, and is used again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from prefect_kling.clips import file_name, sha256_of
from prefect_kling.flows.preparing import Prepared
from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.ledger.films import FilmRecord, film_named, remember_film
from prefect_kling.storyboard.cutting import recipe
from prefect_kling.tasks.results import Film

__all__ = ["film_name", "recipe_of", "remember", "rendered_before", "there_already"]

JOIN = 2
"""To be raised when joining the same clips gives another film."""


def film_name(prepared: Prepared) -> str:
    """A film's name in storage; one of some shots alone does not take the whole film's place."""
    # No id has a plus in it, so these shots' name is no other shots' name.
    only = "--" + file_name("+".join(prepared.only), most=60) if prepared.only else ""
    return f"films/{prepared.reckoner.folder}{only}.mp4"


async def recipe_of(prepared: Prepared, clips: Sequence[str]) -> str:
    """A digest of what a film is made of, and how.

    Args:
        prepared: whose film.
        clips: sha256 of each clip, in the film's order.
    """
    plan = prepared.plan
    cut, shots = plan.cut, plan.shot_cuts
    named = [cut.font, cut.music.path if cut.music else None, *(shot.narration for shot in shots)]
    files = {file: await asyncio.to_thread(sha256_of, file) for file in set(filter(None, named))}
    around = {
        "poster_at": str(plan.film.poster_at),
        "otio": plan.film.otio,
        "title": prepared.document.storyboard.title,
    }
    made_of: list[Any] = [JOIN, clips, recipe(cut, shots, files), around]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


async def there_already(prepared: Prepared, made_of: str) -> Film | None:
    """The film of that recipe, where it is in storage with the very bytes that it was joined to."""
    desk, name = prepared.reckoner.desk, film_name(prepared)
    record = await film_named(desk.ledger, desk.account, prepared.reckoner.edition, name)
    if record is None or record.recipe != made_of:
        return None
    film, storage = Film.model_validate(record.film), desk.storage()
    if await storage.size(film.path) != film.bytes:
        return None
    # What lies beside it is made with it, and anew with it where something of it is gone.
    if not film.beside or None in [await storage.size(location) for location in film.beside.values()]:
        return None
    try:
        async with storage.at_hand(film.path, sha256=film.sha256):
            return film
    except InvalidMedia:
        return None  # it is joined anew, over what is there


async def rendered_before(prepared: Prepared) -> Film | None:
    """The film of a document that has nothing left to do: every clip is kept, and the film of them is in storage."""
    standings = prepared.standings
    clips = {
        shot: found.purchase.clip for shot, found in standings.items() if found.status == "kept" and found.purchase
    }
    cut = [shot.id for shot in prepared.plan.shots if shot.in_cut]
    if len(clips) < len(standings) or prepared.micro_usd:
        return None
    sha256s = [clip.sha256 for clip in (clips[shot] for shot in cut) if clip is not None]
    return await there_already(prepared, await recipe_of(prepared, sha256s))


async def remember(prepared: Prepared, made_of: str, film: Film, purchases: Iterable[int]) -> None:
    """Writes down a film that was joined, and the purchases that it is made of, its shots' sources included."""
    reckoner = prepared.reckoner
    record = FilmRecord(
        edition=reckoner.edition,
        storyboard=reckoner.storyboard,
        name=film_name(prepared),
        document=prepared.document.digest,
        recipe=made_of,
        film=film.model_dump(mode="json"),
        purchases=tuple(purchases),
        whole=not prepared.only,
    )
    await remember_film(reckoner.desk.ledger, reckoner.desk.account, record)
