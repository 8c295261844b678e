"""How a document that lies beside a film names the files it is about, so that both can be moved together. Pure."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote, unquote

__all__ = ["moved", "relative_path", "relative_url"]


def relative_path(location: str | Path, folder: Path | None) -> str:
    """A file's path from a folder on, with `/`; a URL stays what it is.

    Args:
        location: where the file is: a path, or a URL of any scheme but `file`.
        folder: where the document will lie. None where that is no local folder: then a local file is only named, as
            where it lies on this machine means nothing there.
    """
    if "://" in str(location):
        return str(location)
    return PurePath(location).name if folder is None else PurePath(os.path.relpath(location, folder)).as_posix()


def relative_url(location: str | Path, folder: Path | None) -> str:
    """Likewise as a URL: what a path may hold and a URL may not is percent-encoded (RFC 3986, 2.1)."""
    found = relative_path(location, folder)
    return found if "://" in found else quote(os.fsencode(found))


def moved(text: str, old: Path, new: Path, film: str) -> str:
    """A manifest, or an OpenTimelineIO file, as it has to be in another folder to name the same clips.

    Args:
        text: as it is in its old folder.
        old, new: the folders, absolute.
        film: the film's name in the new one.
    """

    def renamed(value: Any, key: str = "", parent: str = "") -> Any:
        if isinstance(value, dict):
            return {name: renamed(inner, name, key) for name, inner in value.items()}
        if isinstance(value, list):
            return [renamed(inner) for inner in value]
        if (parent, key) == ("film", "file"):
            return film
        if not isinstance(value, str) or "://" in value or value.startswith("/"):
            return value
        if (parent, key) == ("clip", "file"):
            return relative_path(old / value, new)
        return relative_url(old / unquote(value), new) if key == "target_url" else value

    return json.dumps(renamed(json.loads(text)), indent=2, ensure_ascii=False) + "\n"
