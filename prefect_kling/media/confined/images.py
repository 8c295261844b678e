"""Images as the gateway takes them."""

from __future__ import annotations

import os
from typing import Any

from prefect_kling.media.confined.opening import Limits, Refused, Task, Unwritable, regular_file_size

__all__ = ["fit", "write_image"]

# gateway.md: an image sent to the gateway has at most 10 MB, and sides of at least 300 pixels.
MOST_IMAGE_BYTES = 10 * 1024 * 1024
LEAST_SIDE = 300
LONGEST_SIDE = 4096  # of an image that is made anew; twice what the largest clip has
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # no EPS: reading one runs a program
READABLE = "JPEG, PNG, WebP, BMP, TIFF and GIF"


def write_image(image: Any, out: str, *, lossless: bool = True) -> dict[str, Any]:
    """PNG where that fits the gateway, else JPEG at the best quality that does."""
    ways: list[dict[str, Any]] = [{"format": "JPEG", "quality": q, "subsampling": 0} for q in (97, 92, 85, 75)]
    if lossless:
        ways.insert(0, {"format": "PNG"})
    try:
        for way in ways:
            image.save(out, **way)
            if os.stat(out).st_size <= MOST_IMAGE_BYTES:  # noqa: PTH116 - paths are text here, as they came
                break
    except OSError as error:
        raise Unwritable(error.errno) from error
    return {"suffix": ".png" if way["format"] == "PNG" else ".jpg", "width": image.width, "height": image.height}


def fit(path: str, task: Task) -> dict[str, Any]:
    """Writes an image into `out` in a way that the gateway takes it, unless it does already; then the suffix is ""."""
    limits, out = task["limits"], task["out"]
    size = regular_file_size(path)
    if size > limits["file_bytes"]:
        raise Refused(f"has {size} bytes; at most {limits['file_bytes']} are taken")
    image = open_image(path, limits)
    width, height = image.size
    fits = size <= MOST_IMAGE_BYTES and min(width, height) >= LEAST_SIDE and shape(width, height) == (width, height)
    if fits and image.format in ("JPEG", "MPO", "PNG"):
        return {"suffix": "", "width": width, "height": height}
    fitted = sized(cropped(flat(image)))
    found = write_image(fitted, out, lossless=image.format not in ("JPEG", "MPO"))
    while os.stat(out).st_size > MOST_IMAGE_BYTES:  # noqa: PTH116 - as above
        fitted = scaled(fitted, 0.75)
        found = write_image(fitted, out, lossless=False)
    return found


def open_image(path: str, limits: Limits) -> Any:
    """Opens and decodes the first picture of an image file."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # ours is below, and refuses where Pillow's would warn
    try:
        image = Image.open(path, formats=IMAGE_FORMATS)
        if large := image.width * image.height > limits["pixels"]:
            image.close()
        else:
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # its readers raise whatever broken bytes lead them to
        raise Refused(f"is no image that can be read ({type(error).__name__}); {READABLE} can") from error
    if large:
        raise Refused(f"is {image.width}x{image.height} pixels; at most {limits['pixels']} in all are taken")
    return image


def flat(image: Any) -> Any:
    """Upright, in RGB, and on white where one could look through it."""
    from PIL import Image, ImageOps

    profile = image.info.get("icc_profile") if image.mode == "RGB" else None
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    image = image.convert("RGB")
    image.info = {"icc_profile": profile} if profile else {}
    return image


def shape(width: int, height: int) -> tuple[int, int]:
    """The largest size within this one whose sides do not differ by more than the gateway takes."""
    return min(width, height * 5 // 2), min(height, width * 5 // 2)


def cropped(image: Any) -> Any:
    """Cut at both ends of its longer side where that is too long."""
    width, height = shape(*image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def sized(image: Any) -> Any:
    """Larger where it is too small; smaller where nobody would see the difference in a clip."""
    shorter, longer = min(image.size), max(image.size)
    if shorter < LEAST_SIDE:
        return scaled(image, LEAST_SIDE / shorter)
    return scaled(image, LONGEST_SIDE / longer) if longer > LONGEST_SIDE else image


def scaled(image: Any, factor: float) -> Any:
    """All of it, in another size."""
    from PIL.Image import Resampling

    width, height = shape(*(max(round(side * factor), LEAST_SIDE) for side in image.size))
    found = image.resize((width, height), Resampling.LANCZOS)
    found.info = image.info
    return found
