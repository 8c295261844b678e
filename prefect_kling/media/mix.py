"""Music and voices with the film's own sound, by ffmpeg. Only raw samples get here, which somebody else has decoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cut import Music
from prefect_kling.media.pcm import Track
from prefect_kling.media.processes import run
from prefect_kling.media.timeline import SAMPLE_RATE

__all__ = ["mix", "mix_command"]

# Music steps back where clips or voices pass -34 dBFS: by 7/8 of what they pass it by, which is 12 dB under speech at
# -20 dBFS. Half of that takes 5 ms, all of it 40 (measured; faster clicks), and coming back 0.8 s, so that it does not
# pump between words. ffmpeg counts attack and release in milliseconds, of another measure.
DUCKING = {"threshold": 0.02, "ratio": 8, "attack": 100, "release": 1000}
# Seconds until ffmpeg is given up: at the start, and for each second of film (measured: 0.01).
STARTING, SLOWEST = 60.0, 2.0


async def mix(
    programme: Path | None,
    length: int,
    music: Music | None,
    bed: Track | None,
    voices: Sequence[tuple[Track, int]],
    out: Path,
) -> None:
    """Writes the film's sound with music and voices in it: raw interleaved float32, stereo, 48 kHz.

    Nothing is limited or made softer here, as one gain is set on the whole film afterwards, by its loudness and peaks.
    Cancelling kills ffmpeg.

    Args:
        programme: the clips' own sound, as long as the film; None for none.
        length: of the film, in samples.
        music: how the bed lies under the film; None for no music.
        bed: its sound.
        voices: each narration, and the film's sample at which it begins.
        out: to write.

    Raises:
        InvalidMedia: it cannot be mixed; the text ends with what ffmpeg said.
        OSError: it cannot be written.
    """
    command = mix_command(programme, length, music, bed, voices, out)
    ended = await run(command, timeout=STARTING + SLOWEST * length / SAMPLE_RATE)
    if ended.full:
        raise OSError(ended.full, f"The sound cannot be written: {os.strerror(ended.full)}")
    if ended.status:
        said = ended.stderr.strip().splitlines()[-4:]
        raise InvalidMedia(f"The sound cannot be mixed: ffmpeg {ended.why}. It said: {' / '.join(said) or 'nothing'}.")


def mix_command(
    programme: Path | None,
    length: int,
    music: Music | None,
    bed: Track | None,
    voices: Sequence[tuple[Track, int]],
    out: Path,
) -> list[str]:
    """The ffmpeg command of `mix`. Pure."""
    heard = [_sound(programme)] if programme is not None else []
    for voice, start in voices:
        if voice.samples:
            heard.append(_filled(_tame(_sound(voice.path)).filter("adelay", f"{start}S", all=1), length))
    own = _together(heard, length)
    if music is not None and bed is not None and bed.samples:
        own = _with_music(own, _bed(music, bed, length), length, ducking=music.ducking)
    if own is None:
        own = ffmpeg.input(f"anullsrc=r={SAMPLE_RATE}:cl=stereo", f="lavfi").filter("atrim", end_sample=length)
    output = own.output(f"file:{out.absolute()}", format="f32le", acodec="pcm_f32le", ar=SAMPLE_RATE, ac=2)
    command: list[str] = ffmpeg.compile(
        output.global_args("-nostdin", "-hide_banner", "-xerror", "-loglevel", "error"),
        cmd=imageio_ffmpeg.get_ffmpeg_exe(),
        overwrite_output=True,
    )
    return command


def _sound(pcm: Path, **options: Any) -> Any:
    where = f"file:{pcm.absolute()}"
    return ffmpeg.input(where, format="f32le", ar=SAMPLE_RATE, ac=2, protocol_whitelist="file", **options).audio


def _tame(sound: Any) -> Any:
    """Without what whole numbers cannot say: NaN, which would silence all that is mixed with it, and samples past 1."""
    return sound.filter("aformat", sample_fmts="s32")


def _filled(sound: Any, length: int) -> Any:
    """Cut, or filled with silence, to the film's length."""
    return sound.filter("apad", whole_len=length).filter("atrim", end_sample=length)


def _together(sounds: Sequence[Any], length: int) -> Any:
    if len(sounds) < 2:
        return sounds[0] if sounds else None
    return _filled(ffmpeg.filter(list(sounds), "amix", inputs=len(sounds), duration="first", normalize=0), length)


def _bed(music: Music, bed: Track, length: int) -> Any:
    short = bed.samples < SAMPLE_RATE
    looped = {"stream_loop": -1} if music.loop and not short else {}
    lasts = length if music.loop else min(bed.samples, length)
    fade = min(round(music.fade * SAMPLE_RATE), lasts // 2)
    sound = _tame(_sound(bed.path, **looped))
    if music.loop and short:
        # Going back in the file, and each round by itself through the rest, would take 0.1 ms a round.
        sound = sound.filter("aloop", loop=-1, size=bed.samples).filter("asetnsamples", n=1024, pad=0)
    sound = sound.filter("atrim", end_sample=lasts).filter("volume", f"{music.gain}dB")
    if fade:
        sound = sound.filter("afade", type="in", start_sample=0, nb_samples=fade)
        sound = sound.filter("afade", type="out", start_sample=lasts - fade, nb_samples=fade)
    return _filled(sound, length)


def _with_music(own: Any, bed: Any, length: int, *, ducking: bool) -> Any:
    if own is None:
        return bed
    if ducking:
        twice = own.filter_multi_output("asplit")
        own = twice.stream(0)
        # It loses what comes last, up to a tenth of a second (ffmpeg 9), so more than the film comes.
        both = [sound.filter("apad", pad_len=SAMPLE_RATE) for sound in (bed, twice.stream(1))]
        bed = ffmpeg.filter(both, "sidechaincompress", **DUCKING)
    return _together([own, bed], length)
