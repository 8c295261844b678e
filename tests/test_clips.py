"""Clip storage: local folders and, by fsspec's memory file system, stores that are somewhere else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest

from prefect_kling.clips import ClipStorage
from prefect_kling.flows.reckoning import _sha256
from prefect_kling.gateway.errors import InvalidMedia, KlingError


@pytest.fixture(params=["folder", "memory://clip-tests"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ClipStorage:
    return ClipStorage(str(tmp_path / "storage") if request.param == "folder" else request.param)


async def test_a_published_file_is_at_hand_again(storage: ClipStorage) -> None:
    await storage.check()
    async with storage.incoming() as folder:
        (folder / "clip.mp4").write_bytes(b"picture")
        location = await storage.publish(folder / "clip.mp4", "clips/main/a.mp4")
    async with storage.at_hand(location) as path:
        assert path.read_bytes() == b"picture"
    assert not folder.exists()


async def test_a_file_that_is_not_there_is_named(storage: ClipStorage) -> None:
    with pytest.raises(InvalidMedia, match=r"gone\.mp4"):
        async with storage.at_hand(storage.location("gone.mp4")):
            pass


async def test_a_work_folder_that_cannot_be_removed_loses_no_clip(
    storage: ClipStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.rmtree

    def busy(path: Path, ignore_errors: bool = False) -> None:
        real(path)
        if not ignore_errors:
            raise OSError(16, "busy")

    monkeypatch.setattr(shutil, "rmtree", busy)
    async with storage.incoming() as folder:
        (folder / "clip.mp4").write_bytes(b"picture")
        location = await storage.publish(folder / "clip.mp4", "clips/a.mp4")
    async with storage.at_hand(location) as path:
        assert path.read_bytes() == b"picture"


@pytest.mark.parametrize("url", ["nosuch://user:sesame@host/films", "ftp://user:sesame@127.0.0.1:1/films"])
def test_a_password_in_the_storage_url_is_in_no_error(url: str) -> None:
    with pytest.raises(KlingError, match=r"\*\*\*@") as refused:
        ClipStorage(url)
    assert "sesame" not in str(refused.value)


async def test_a_drivers_own_error_becomes_one_that_names_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    def put_file(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such bucket")

    monkeypatch.setattr(fsspec.filesystem("memory"), "put_file", put_file)
    with pytest.raises(OSError, match=r"memory://clip-tests cannot be written: no such bucket"):
        await ClipStorage("memory://clip-tests").check()


async def test_likewise_where_a_file_is_stored_or_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError

    storage = ClipStorage("memory://clip-tests")
    monkeypatch.setattr(fsspec.filesystem("memory"), "put_file", fails)
    monkeypatch.setattr(fsspec.filesystem("memory"), "get_file", fails)
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    with pytest.raises(OSError, match=r"/clip\.mp4 cannot be written: RuntimeError"):
        await storage.publish(tmp_path / "clip.mp4", "clip.mp4")
    with pytest.raises(OSError, match=r"/clip\.mp4 cannot be read: RuntimeError"):
        async with storage.at_hand(storage.location("clip.mp4")):
            pass


async def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path: Path) -> None:
    storage = ClipStorage(str(tmp_path))
    async with storage.incoming() as mine:
        old = mine.with_name("kling-left")
        old.mkdir()
        (old / "half.mp4").write_bytes(b"half")
        os.utime(old, (0, 0))
        assert await storage.tidy() == 1
        assert mine.is_dir()
        assert not old.exists()
    assert await ClipStorage("memory://films").tidy() == 0


async def test_a_files_password_is_in_no_error(tmp_path: Path) -> None:
    location = "memory://user:s3cret@clip-tests/none.png"
    with pytest.raises(InvalidMedia, match=r"memory://\*\*\*@clip-tests/none.png is not there") as caught:
        async with ClipStorage(location).at_hand(location):
            pass
    assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidMedia, match=r"ftp://\*\*\*@127.0.0.1:1/none.png cannot be read") as caught:
        _sha256("ftp://user:s3cret@127.0.0.1:1/none.png")
    assert "s3cret" not in str(caught.value)
