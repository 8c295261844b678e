"""x264's settings, from a clip to another that is like it; nothing that a file says gets any further than that."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_kling.media.probe import probe
from prefect_kling.media.x264 import parameters

WRITTEN = "x264 - core 165 - H.264/MPEG-4 AVC codec - options: "
SETTING = re.compile(r"[a-z0-9-]+=[a-z0-9.,-]+")


def encoded(path: Path, source: str, *options: str) -> Path:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-f", "lavfi", "-i", source]
    subprocess.run([*command, "-frames:v", "6", "-pix_fmt", "yuv420p", *options, str(path)], check=True, timeout=60)
    return path


@pytest.mark.parametrize(
    "options",
    [
        "",
        "-preset ultrafast",
        "-preset fast",
        "-preset slow",
        "-preset veryslow",
        "-tune film",
        "-tune animation -crf 30",
        "-tune grain",
        "-bf 0",
        "-b:v 500k",
        "-qp 20",
        "-maxrate 1M -bufsize 2M",
        "-g 48 -profile:v main",
        "-profile:v baseline",
        "-profile:v main -level 4.0",
        "-tune zerolatency -threads 2 -s 320x180",
        "-tune zerolatency -threads 2 -s 320x180 -maxrate 1M -bufsize 1M",
        "-b:v 500k -minrate 500k -maxrate 500k -bufsize 500k -nal-hrd cbr",
        "-pix_fmt yuv420p10le",
        "-x264-params nal-hrd=vbr:vbv-maxrate=1000:vbv-bufsize=1000",
        "-x264-params no-deblock=1:direct=temporal:me=umh:psy-rd=0.1,0.1",
    ],
)
async def test_another_picture_gets_the_very_same_parameter_sets(options: str, tmp_path: Path) -> None:
    first = encoded(tmp_path / "first.mp4", "testsrc2=s=160x90:r=24", *options.split())
    (usual,) = await probe([first])
    settings = parameters(usual.video.encoder, usual.video.level)
    assert settings is not None
    size = f"{usual.video.width}x{usual.video.height}"
    alike = ("-pix_fmt", usual.video.pixel_format, "-s", size, "-x264-params", settings)
    second = encoded(tmp_path / "second.mp4", "mandelbrot=s=160x90:r=24", *alike)
    (other,) = await probe([second])
    assert other.copy_key == usual.copy_key


async def test_clips_that_av_makes_are_told_as_well(make_clip: Callable[..., Path]) -> None:
    (facts,) = await probe([make_clip()])
    assert "ref=3:deblock=0,0:partitions=i4x4,i8x8,p8x8,b8x8:me=hex" in str(parameters(facts.video.encoder))


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "Lavc62 libx265",
        WRITTEN,
        f"{WRITTEN}cabac=1",
        f"{WRITTEN}rc=2pass cabac=1",
        f"{WRITTEN}rc=crf frobnicate=1",
        f"{WRITTEN}rc=crf crf=23:stats=/etc/passwd",
        f"{WRITTEN}rc=crf crf=1e9",
        f"{WRITTEN}rc=crf crf=99",
        f"{WRITTEN}rc=crf ref=9999999",
        f"{WRITTEN}rc=crf ref=\N{ARABIC-INDIC DIGIT THREE}",
        f"{WRITTEN}rc=crf me_range=4096",
        f"{WRITTEN}rc=crf rc_lookahead=250",
        f"{WRITTEN}rc=crf cqm=2",
        f"{WRITTEN}rc=crf interlaced=tff",
        f"{WRITTEN}rc=crf open_gop=1",
        f"{WRITTEN}rc=crf deblock=1:0",
        f"{WRITTEN}rc=crf analyse=0x3:0xffff",
        f"{WRITTEN}rc=crf direct=9",
        f"{WRITTEN}rc=crf stats=/tmp/x",
    ],
)
def test_what_is_not_known_gives_nothing(text: str | None) -> None:
    assert parameters(text) is None


def test_a_level_that_there_is_not_gives_nothing() -> None:
    """x264 would refuse it, and with it the clip."""
    assert parameters(f"{WRITTEN}rc=crf crf=23.0", 31) == "crf=23.0:level=31"
    assert [parameters(f"{WRITTEN}rc=crf crf=23.0", level) for level in (0, 14, 255, -1)] == [None] * 4


@given(st.text(max_size=200))
def test_nothing_breaks_out_of_the_settings(text: str) -> None:
    found = parameters(f"{WRITTEN}rc=crf crf=23.0 {text}")
    assert found is None or all(SETTING.fullmatch(setting) for setting in found.split(":"))


@given(st.lists(st.tuples(st.sampled_from(["ref", "me", "deblock", "psy_rd", "aq", "keyint", "deadzone"]), st.text())))
def test_nothing_breaks_out_of_a_known_setting(pairs: list[tuple[str, str]]) -> None:
    text = " ".join(f"{name}={value}" for name, value in pairs)
    found = parameters(f"{WRITTEN}rc=crf crf=23.0 subme=7 trellis=1 {text}")
    assert found is None or all(SETTING.fullmatch(setting) for setting in found.split(":"))
