"""How a document that lies beside a film names the files it is about, so that both can be moved together. Pure."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from urllib.parse import quote

__all__ = ["relative_path", "relative_url"]


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
