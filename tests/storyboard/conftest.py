"""What the storyboard's tests share: a document from text in a folder of its own, and pictures to refer to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from prefect_kling.storyboard.reader import Document, read_storyboard

Read = Callable[..., Document]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is also the working one, so that errors name `film.yaml` and nothing else."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def read(folder: Path) -> Read:
    """Reads text as `film.yaml` in the folder."""

    def read_text(text: str | bytes, variables: Mapping[str, str] | None = None) -> Document:
        data = text.encode() if isinstance(text, str) else text
        (folder / "film.yaml").write_bytes(data)
        return read_storyboard("film.yaml", variables=variables)

    return read_text


@pytest.fixture
def picture(folder: Path) -> Callable[..., str]:
    """Makes an image in the folder and gives its name."""

    def make(name: str = "harbour.png", size: tuple[int, int] = (400, 300)) -> str:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "navy").save(path)
        return name

    return make
