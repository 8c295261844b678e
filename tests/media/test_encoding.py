"""What is told when ffmpeg fails: which clip it was, in its own words."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.encoding import encoded
from prefect_kling.media.picture import Images
from prefect_kling.media.probe import probe
from prefect_kling.media.reencode import parts_of, reencode
from prefect_kling.media.target import target_of
from prefect_kling.media.timeline import lay_out


async def test_the_clip_that_cannot_be_decoded_is_named(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    clips = [make_clip(f"{shot}.mp4", shot=shot) for shot in (1, 2, 3)]
    facts = await probe(clips)
    data = bytearray(clips[1].read_bytes())
    pictures = data.index(b"mdat") + 4
    data[pictures + 100 : pictures + 1000] = bytes(900)
    clips[1].write_bytes(data)
    cut, target = Cut(), target_of(facts, Cut())
    timeline = lay_out([CutClip(clip, "") for clip in clips], facts, cut, target.frame_rate)
    (part,) = parts_of(timeline)
    with pytest.raises(InvalidMedia) as caught:
        await reencode(timeline, part, target, Images(), tmp_path / "out.mp4", lambda _: None)
    says = str(caught.value)
    assert re.match(rf"{re.escape(str(clips[1]))} cannot be encoded: ffmpeg ended with status \d+\. It said: \[", says)
    assert "Invalid data found" in says
    assert "0x" not in says


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("", "The clips cannot be encoded: ffmpeg ended with status 3. It said: nothing."),
        ("[libx264 @ 0xbeef] no", r"The clips .* It said: \[libx264\] no\."),
        ("[h264 @ 0x1] bad\n[vist#1:0/h264 @ 0x2] worse\n[vist#0:0/h264 @ 0x3] ended", "/b.mp4 cannot be encoded"),
        ("[in#0 @ 0x2] moved", "/a.mp4 cannot be encoded"),
        ("[vist#7:0/h264 @ 0x2] of no input", "The clips cannot be encoded"),
        ("film of [in#1] as a title", "The clips cannot be encoded"),
        ("\n".join(map(str, range(20))), "It said: 0 / 1 / 14 / 15 / 16 / 17 / 18 / 19"),
    ],
)
async def test_what_was_said_names_its_clip_by_the_number_of_its_input(said: str, named: str) -> None:
    program = "import sys; sys.stderr.write(sys.argv[1]); sys.exit(3)"
    command = [sys.executable, "-c", program, said, "-i", "file:/a.mp4", "-f", "mov", "-i", "file:/b.mp4", "out"]
    with pytest.raises(InvalidMedia, match=named):
        await encoded(command, Fraction(1), lambda _: None)
