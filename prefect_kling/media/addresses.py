"""How a document that lies beside a film names the files it is about, so that both can be moved together. Pure."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from urllib.parse import quote

__all__ = ["relative_path", "relative_url"]


def relative_path(location: str | Path, folder: Path | None) -> str:
    """A file's path from a folder on, with `/`; a URL stays what it is, and so does all where there is no folder.

    Args:
        location: where the file is: a path, or a URL of any scheme but `file`.
        folder: where the document will lie; None where that is no local folder.
    """
    if "://" in str(location) or folder is None:
        return str(location)
    return PurePath(os.path.relpath(location, folder)).as_posix()


def relative_url(location: str | Path, folder: Path | None) -> str:
    """Likewise as a URL: what a path may hold and a URL may not is percent-encoded (RFC 3986, 2.1)."""
    found = relative_path(location, folder)
    if "://" in found:
        return found
    prefix = "file://" if found.startswith("/") else ""
    return prefix + quote(os.fsencode(found))
