"""Clip storage: names, places, and files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_kling.clips import ClipStorage, file_name
from prefect_kling.gateway.errors import InvalidMedia, KlingError


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ClipStorage:
    """One storage where files are renamed into place, and one where they are put in one request."""
    return ClipStorage(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}")


async def put(storage: ClipStorage, name: str, data: bytes) -> str:
    async with storage.incoming() as folder:
        (folder / "file").write_bytes(data)
        return await storage.publish(folder / "file", name)


async def test_what_is_published_can_be_had_again(storage: ClipStorage) -> None:
    location = await put(storage, "clips/main/a.mp4", b"first")
    assert location == storage.location("clips/main/a.mp4")
    assert await put(storage, "clips/main/a.mp4", b"second") == location
    async with storage.at_hand(location) as path:
        assert path.read_bytes() == b"second"


async def test_a_file_that_is_missing_is_named(storage: ClipStorage) -> None:
    with pytest.raises(InvalidMedia, match=r"gone\.mp4 is not there"):
        async with storage.at_hand(storage.location("gone.mp4")):
            pass


async def test_a_file_that_has_changed_is_not_handed_out(storage: ClipStorage) -> None:
    location = await put(storage, "a.mp4", b"another")
    with pytest.raises(InvalidMedia, match="sha256 has changed"):
        async with storage.at_hand(location, sha256="0" * 64):
            pass


async def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    await ClipStorage(str(tmp_path / "store")).check()
    assert [path.name for path in (tmp_path / "store").rglob("*")] == [".incoming"]


async def test_a_file_in_the_way_is_found_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="taken"):
        await ClipStorage(str(tmp_path / "taken")).check()


def test_an_unknown_kind_of_storage_is_an_error_for_people() -> None:
    with pytest.raises(KlingError, match="nosuch"):
        ClipStorage("nosuch://bucket")


@pytest.mark.parametrize(
    ("url", "public", "link"),
    [
        ("memory://films", "https://cdn.example.com/f/", "https://cdn.example.com/f/films/a%20b.mp4"),
        ("memory://films", "", "memory:///films/films/a b.mp4"),
    ],
)
def test_people_are_shown_the_public_address_where_there_is_one(url: str, public: str, link: str) -> None:
    storage = ClipStorage(url, public_url=public)
    assert storage.link(storage.location("films/a b.mp4")) == link


@pytest.mark.parametrize(
    "text", ["../../etc/passwd", "", ".", "..", "a/b", "a\x00b", "x" * 300, "märz", ".hidden", "-rf", "CON:1"]
)
def test_a_name_from_outside_becomes_one_harmless_part_of_a_path(text: str) -> None:
    name = file_name(text)
    assert name
    assert name not in (".", "..")
    assert not set(name) & set("/\\\0:")
    assert name[0] not in ".-"
    assert len(name) <= 80
    assert name != file_name(text + "?")


def test_an_ordinary_name_stays_as_it_is() -> None:
    assert file_name("1a2040_81-d.b") == "1a2040_81-d.b"
