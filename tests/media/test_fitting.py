"""Images made fit for the gateway, and those that are already, and those that never will be."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.gateway.limits import image_facts, image_refusal
from prefect_kling.media import fitting
from prefect_kling.media.fitting import fitted_image


def marked(width: int, height: int) -> Image.Image:
    """Red at the left, green at the top, so that turns and cuts can be told."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    pixels[:, : width // 8, 0] = 220
    pixels[: height // 8, :, 1] = 220
    return Image.fromarray(pixels)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Any]:
    """`await fit(image, "x.webp")` saves it, makes it fit, and sees that the gateway would take it."""

    async def made(image: Image.Image, name: str, **options: Any) -> tuple[Path, Path]:
        source, folder = tmp_path / name, tmp_path / "new"
        folder.mkdir()
        image.save(source, **options)
        found = await fitted_image(source, folder)
        assert image_refusal(image_facts(found.read_bytes())) is None
        assert [path.name for path in folder.iterdir()] == ([] if found == source else [found.name])
        return source, found

    return made


def pixel(path: Path, x: float, y: float) -> tuple[int, ...]:
    """The colour at a place, given as shares of width and height."""
    with Image.open(path) as image:
        colour = image.convert("RGB").getpixel((int(image.width * x), int(image.height * y)))
        assert isinstance(colour, tuple)
        return tuple(round(part / 40) for part in colour)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("name", ["a.jpg", "a.bin"])
async def test_what_fits_stays_as_it_is(fit: Any, name: str) -> None:
    source, found = await fit(marked(400, 1000), name, format="JPEG" if name == "a.jpg" else "PNG")
    assert found == source


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.webp", {"lossless": True}), ("a.bmp", {}), ("a.tiff", {}), ("a.gif", {})],
)
async def test_other_formats_become_png(fit: Any, name: str, options: dict[str, Any]) -> None:
    _, found = await fit(marked(640, 480), name, **options)
    assert (found.name, size(found)) == ("fitted.png", (640, 480))
    assert [pixel(found, *at) for at in ((0.01, 0.5), (0.5, 0.01), (0.9, 0.9))] == [(6, 2, 2), (2, 6, 2), (2, 2, 2)]


async def test_the_first_picture_of_an_animation_counts(fit: Any) -> None:
    first, second = Image.new("RGB", (320, 320), (0, 0, 240)), Image.new("RGB", (320, 320), (240, 0, 0))
    _, found = await fit(first, "a.gif", save_all=True, append_images=[second])
    assert pixel(found, 0.5, 0.5) == (0, 0, 6)


async def test_an_image_is_turned_as_its_exif_data_says(fit: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # its right is up: viewers turn it a quarter clockwise
    _, found = await fit(marked(800, 200), "a.jpg", exif=exif, quality=95)
    # Cut to 500x200, so without its red; scaled to a shorter side of 300; then upright.
    assert (found.name, size(found)) == ("fitted.jpg", (300, 750))
    assert (pixel(found, 0.99, 0.5), pixel(found, 0.5, 0.5)) == ((2, 6, 2), (2, 2, 2))
    with Image.open(found) as image:
        assert 0x0112 not in image.getexif()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((299, 747), (300, 749)),
        ((1, 1), (300, 300)),
        ((301, 900), (301, 752)),
        ((2000, 100), (750, 300)),
    ],
)
async def test_sizes_and_shapes_are_made_fit(fit: Any, before: tuple[int, int], after: tuple[int, int]) -> None:
    _, found = await fit(marked(*before), "a.png")
    assert size(found) == after


async def test_the_middle_is_what_stays_of_a_long_image(fit: Any) -> None:
    long = marked(2000, 400)
    long.paste((0, 0, 240), (900, 100, 1100, 400))
    _, found = await fit(long, "a.png")
    assert [pixel(found, x, 0.5) for x in (0.01, 0.5, 0.99)] == [(2, 2, 2), (0, 0, 6), (2, 2, 2)]


async def test_what_shines_through_is_white(fit: Any) -> None:
    image = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    image.paste((0, 0, 240, 255), (0, 0, 200, 400))
    _, found = await fit(image, "a.webp", lossless=True)
    assert (pixel(found, 0.2, 0.5), pixel(found, 0.8, 0.5)) == ((0, 0, 6), (6, 6, 6))


@pytest.mark.parametrize("mode", ["1", "I;16", "CMYK", "LA"])
async def test_colours_of_any_kind_become_rgb(fit: Any, mode: str) -> None:
    grey = Image.new("L", (320, 240), 120)
    image = Image.fromarray(np.full((240, 320), 120 * 256, np.uint16)) if mode == "I;16" else grey.convert(mode)
    _, found = await fit(image, "a.tiff")
    with Image.open(found) as made:
        assert made.mode == "RGB"
    if mode != "1":
        assert pixel(found, 0.5, 0.5) == (3, 3, 3)


async def test_too_many_bytes_become_a_jpeg(fit: Any) -> None:
    source, found = await fit(noise(2000, 1800), "a.png", compress_level=0)
    assert source.stat().st_size > 10 * 1024 * 1024
    assert (found.name, size(found)) == ("fitted.jpg", (2000, 1800))


async def test_a_huge_photo_is_made_smaller(fit: Any) -> None:
    """To 4096 pixels at first, and then on, as it has too many bytes at any quality."""
    _, found = await fit(noise(4200, 2700), "a.bmp")
    assert (found.name, size(found)) == ("fitted.jpg", (3072, 1975))


async def test_colours_keep_their_profile(fit: Any) -> None:
    profile = b"not looked into"
    _, found = await fit(marked(400, 200), "a.png", icc_profile=profile)
    with Image.open(found) as image:
        assert image.info["icc_profile"] == profile


async def test_the_same_image_gives_the_same_bytes(fit: Any, tmp_path: Path) -> None:
    source, found = await fit(noise(400, 200), "a.webp", lossless=True)
    (tmp_path / "again").mkdir()
    assert (await fitted_image(source, tmp_path / "again")).read_bytes() == found.read_bytes()


# --- What cannot be made fit -------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """A small PNG that says it has 400 million pixels."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(60_001)))
        + chunk(b"IEND", b"")
    )


def cut(name: str) -> bytes:
    out = io.BytesIO()
    noise(400, 400).save(out, name)
    return out.getvalue()[: out.tell() // 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no image that can be read"),
        (b"<html>404</html>", "is no image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 400 400\n", "is no image that can be read"),
        (cut("PNG"), "is no image that can be read"),
        (cut("JPEG"), "is no image that can be read"),
        (cut("WEBP"), "is no image that can be read"),
        (bomb(), "is 20000x20000 pixels; at most 100000000 in all are taken"),
    ],
    ids=["empty", "a web page", "a program", "half a PNG", "half a JPEG", "half a WebP", "a bomb"],
)
async def test_what_is_no_image_is_refused_by_name_and_reason(tmp_path: Path, content: bytes, said: str) -> None:
    source, folder = tmp_path / "a.png", tmp_path / "new"
    folder.mkdir()
    source.write_bytes(content)
    with pytest.raises(InvalidMedia, match=f"a\\.png {said}"):
        await fitted_image(source, folder)
    assert list(folder.iterdir()) == []


async def test_what_costs_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a.bmp"
    noise(2000, 2000).save(source)
    for limits, said in (({"memory": 100 * 2**20}, "cannot be read|memory"), ({"file_bytes": 1000}, "at most 1000")):
        monkeypatch.setattr(fitting, "IMAGE_LIMITS", replace(fitting.IMAGE_LIMITS, **limits))
        with pytest.raises(InvalidMedia, match=said):
            await fitted_image(source, tmp_path)


async def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match=r"gone\.png cannot be opened: No such file"):
        await fitted_image(tmp_path / "gone.png", tmp_path)
