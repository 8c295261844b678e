"""Removing stored files: what is in the storage, and nothing else."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from prefect_kling.clips import ClipStorage


@pytest.fixture(params=["folder", "memory://removal-tests/films"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ClipStorage:
    return ClipStorage(str(tmp_path / "storage") if request.param == "folder" else request.param)


async def test_a_stored_file_is_removed_once(storage: ClipStorage) -> None:
    async with storage.incoming() as folder:
        (folder / "clip.mp4").write_bytes(b"picture")
        location = await storage.publish(folder / "clip.mp4", "clips/main/a.mp4")
    assert storage.keeps(location)
    assert await storage.remove(location) is True
    assert await storage.size(location) is None
    assert await storage.remove(location) is False


@pytest.mark.parametrize(
    "name", ["", "/", "../storage2/a.mp4", "clips/../../a.mp4", "clips//a.mp4", "./a.mp4", "clips/.."]
)
async def test_what_is_not_in_the_storage_is_left_alone(storage: ClipStorage, name: str) -> None:
    location = storage.location(name)
    assert not storage.keeps(location)
    with pytest.raises(OSError, match="is left alone"):
        await storage.remove(location)


async def test_a_storage_beside_it_with_a_longer_name_is_another_one(storage: ClipStorage) -> None:
    beside = storage.location("").rstrip("/") + "-2/a.mp4"
    assert not storage.keeps(beside)
    assert not storage.keeps("s3://elsewhere/films/a.mp4")
    assert not storage.keeps("/srv/elsewhere/a.mp4")


async def test_a_file_that_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rm_file(*_: object) -> None:
        raise RuntimeError("access denied")

    monkeypatch.setattr(fsspec.filesystem("memory"), "rm_file", rm_file)
    storage = ClipStorage("memory://removal-tests")
    with pytest.raises(OSError, match=r"a\.mp4 cannot be removed: access denied"):
        await storage.remove(storage.location("a.mp4"))
    local = ClipStorage(str(tmp_path))
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(OSError, match=r"a\.mp4"):
        await local.remove(local.location("a.mp4"))
