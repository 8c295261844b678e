"""Captions as a track: what is read, and when, is what was written, in any script."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import pytest

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.captions import Cue, srt
from prefect_kling.media.texttrack import write_text_track

SHOWN = re.compile(r"\d+\n(\S+) --> (\S+)\n(.*?)(?=\n\n\d+\n|\s*\Z)", re.DOTALL)


def read_back(film: Path) -> list[tuple[Fraction, Fraction, str]]:
    """The texts of a film's first text track by ffmpeg, and when each is seen."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-i", f"file:{film}"]
    listed = subprocess.run([*command, "-map", "0:s:0", "-f", "srt", "-"], check=True, capture_output=True, timeout=60)
    return [(seconds(start), seconds(end), text) for start, end, text in SHOWN.findall(listed.stdout.decode())]


def seconds(clock: str) -> Fraction:
    hours, minutes, rest = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + Fraction(rest.replace(",", "."))


def written(cues: Sequence[Cue]) -> list[tuple[Fraction, Fraction, str]]:
    """What is to be read back: times are in milliseconds, rounded down."""
    return [(Fraction(int(c.start * 1000), 1000), Fraction(int(c.end * 1000), 1000), c.text) for c in cues]


async def test_times_and_gaps_come_back(tmp_path: Path) -> None:
    rate = Fraction(24_000, 1001)
    cues = [
        Cue(Fraction(0), 7 / rate, "From the first frame on"),
        Cue(7 / rate, 50 / rate, "At once"),
        Cue(Fraction(77, 24), Fraction(4), "After a gap"),
        Cue(Fraction(3700), Fraction(3701), "After an hour"),
    ]
    assert read_back(await write_text_track(cues, tmp_path)) == written(cues)


async def test_a_film_that_begins_without_words_shows_none(tmp_path: Path) -> None:
    cues = [Cue(Fraction(5, 2), Fraction(3), "Late")]
    track = await write_text_track(cues, tmp_path)
    assert read_back(track) == written(cues)
    with av.open(str(track)) as container:
        packets = [packet for packet in container.demux(subtitles=0) if packet.pts is not None]
    assert [(packet.pts, packet.time_base, bytes(packet)[2:].decode()) for packet in packets if packet.size > 2] == [
        (225_000, Fraction(1, 90_000), "Late")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Grüße, Ελλάδα, мир, Việt",
        "灯台守は嵐の中で\n階段を上る",
        "שלום, עולם!\nمرحبا بالعالم",  # noqa: RUF001
        "🌊 👩‍🚒 🇳🇴 é",
        '"Quoted" & <3, 100 % \\ {so} it\'s',
        "1\n00:00:01,000",
        "- One\n- Two\n- Three",
        "x" * 3000,
    ],
    ids=["accents", "Japanese", "right to left", "emoji", "signs", "like a cue", "three lines", "long"],
)
async def test_words_come_back(tmp_path: Path, text: str) -> None:
    cues = [Cue(Fraction(1), Fraction(2), text), Cue(Fraction(2), Fraction(3), "Next")]
    assert read_back(await write_text_track(cues, tmp_path)) == written(cues)


async def test_what_looks_like_markup_stays_what_it_is(tmp_path: Path) -> None:
    """But for the letters that nobody sees, by which `srt` keeps it apart, and the arrow that would end a cue."""
    text = "<i>not</i> {\\an8}italic --> here"
    track = await write_text_track([Cue(Fraction(1), Fraction(2), text)], tmp_path)
    [(_, _, read)] = read_back(track)
    assert read.replace("\N{WORD JOINER}", "").replace("→", "-->") == text


async def test_folders_of_any_name(tmp_path: Path) -> None:
    for name in ('it\'s "so"', "100% %d", "-y", "a\nb", "a:b,c"):
        (tmp_path / name).mkdir()
        cues = [Cue(Fraction(0), Fraction(1), name)]
        assert (await write_text_track(cues, tmp_path / name)).parent == tmp_path / name


async def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    cues = [Cue(Fraction(0), Fraction(1), "One")]
    with pytest.raises(FileNotFoundError):
        await write_text_track(cues, tmp_path / "gone")
    (tmp_path / "captions.mp4").mkdir()
    with pytest.raises(
        InvalidMedia, match=r"The captions cannot be made a track: ffmpeg ended with status \d+ \(.*directory"
    ):
        await write_text_track(cues, tmp_path)


def test_the_words_are_those_of_the_file_beside_the_film() -> None:
    """One writer for both: the track is made from SubRip."""
    assert "00:00:01,000 --> 00:00:02,000\nOne\n" in srt([Cue(Fraction(1), Fraction(2), "One")])
