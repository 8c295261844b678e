"""Captions as a track of text that players of MP4 know (3GPP TS 26.245, `tx3g`), made by ffmpeg from SubRip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ffmpeg
import imageio_ffmpeg

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.captions import Cue, srt
from prefect_kling.media.processes import run

__all__ = ["write_text_track"]

ENOUGH = 60.0  # seconds
# ffmpeg counts a text's time in microseconds, in which MP4 can hold no gap of more than 35 minutes. Fewer ticks than
# the film's other tracks have would not do: its muxer takes theirs for the text's, and ends captions a second time.
CLOCK = {"bsf:s": "setts=time_base=1/90000"}


async def write_text_track(cues: Sequence[Cue], folder: Path) -> Path:
    """An MP4 with nothing but the text track in it.

    Args:
        cues: at least one.
        folder: to make it in.

    Raises:
        InvalidMedia: ffmpeg does not take them; the text ends with what it said.
        OSError: the folder cannot be written.
    """
    words, out = folder / "captions.srt", folder / "captions.mp4"
    words.write_text(srt(cues), "utf-8")
    ended = await run(_command(words, out), timeout=ENOUGH)
    if ended.status:
        raise InvalidMedia(f"The captions cannot be made a track: ffmpeg {ended.why} ({ended.stderr.strip()[-200:]})")
    return out


def _command(words: Path, out: Path) -> list[str]:
    text = ffmpeg.input(f"file:{words.absolute()}", format="srt", protocol_whitelist="file")
    track = text.output(f"file:{out.absolute()}", format="mp4", scodec="mov_text", **CLOCK)
    command: list[str] = ffmpeg.compile(
        track.global_args("-nostdin", "-hide_banner", "-loglevel", "error"),
        cmd=imageio_ffmpeg.get_ffmpeg_exe(),
        overwrite_output=True,
    )
    return command
