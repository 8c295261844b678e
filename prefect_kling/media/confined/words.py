"""Words in a font that nobody has vouched for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect_kling.media.confined.opening import Refused, Task, Unwritable, regular_file_size
from prefect_kling.media.lettering import draw, font_of

__all__ = ["words"]

# TrueType, its collections, and OpenType with PostScript outlines (OpenType 1.9, "Font file"); FreeType reads more.
FONTS = (b"\x00\x01\x00\x00", b"true", b"ttcf", b"OTTO")
MOST_FONT_BYTES = 64 * 1024 * 1024


def words(path: str, task: Task) -> dict[str, Any]:
    """Draws images with a font.

    Args:
        path: the font.
        task: `size`, of all images, and `images`, see `draw`.

    Returns:
        What `draw` returns.
    """
    if regular_file_size(path) > MOST_FONT_BYTES:
        raise Refused(f"has more than {MOST_FONT_BYTES // 2**20} MB, as no font does")
    data = Path(path).read_bytes()
    if not data.startswith(FONTS):
        raise Refused("is no TrueType or OpenType font")
    width, height = task["size"]
    try:
        lettering = font_of(data)
    except OSError as error:
        raise Refused(f"is no font that can be read ({error})") from error
    try:
        return {"in_the_way": draw(lettering, task["images"], (width, height))}
    except MemoryError:
        raise
    except OSError as error:
        # FreeType's own complaints carry no number, the disk's do.
        if error.errno:
            raise Unwritable(error.errno) from error
        raise Refused(f"is damaged: its letters cannot be drawn ({error})") from error
    except (ValueError, RuntimeError) as error:
        raise Refused(f"is damaged: its letters cannot be drawn ({error})") from error
