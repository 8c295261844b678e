"""Splicing: picture, sound, chapters and captions in one file, each where it belongs, none holding up another."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.packet import Packet
from numpy.typing import NDArray

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.captions import cues_of, srt
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.probe import probe
from prefect_kling.media.splice import splice
from prefect_kling.media.texttrack import write_text_track
from prefect_kling.media.timeline import SAMPLE_RATE, Timeline, lay_out, samples

MakeClip = Callable[..., Path]
Watch = Callable[[Path], Any]
Wave = NDArray[np.float32]

X265 = {"x265-params": "log-level=none"}


@dataclass
class Bench:
    """Splices clips into `film`."""

    folder: Path
    pictures: list[MediaFacts]
    timeline: Timeline

    @property
    def film(self) -> Path:
        return self.folder / "film.mp4"

    @property
    def samples(self) -> int:
        return samples(self.timeline.frames, self.timeline.rate)

    def splice(self, sound: Wave | None = None, gain: float = 0.0, text: Path | None = None) -> list[int]:
        """Writes it; the frames that were told."""
        pcm = None
        if sound is not None:
            pcm = self.folder / "film.f32"
            sound.astype(np.float32).tofile(pcm)
        told: list[int] = []
        splice(self.pictures, self.timeline, pcm, gain, text, self.film, lambda: None, told.append)
        return told

    def packets(self) -> dict[str, list[tuple[Fraction, Fraction, Fraction]]]:
        """Presentation and decoding time and duration of each packet in seconds, by kind, in the file's order."""
        found: dict[str, list[tuple[Fraction, Fraction, Fraction]]] = {}
        with av.open(str(self.film)) as container:
            for packet in container.demux():
                if packet.pts is not None and packet.dts is not None:
                    base, length = packet.time_base, packet.duration or 0
                    found.setdefault(packet.stream.type, []).append(
                        (packet.pts * base, packet.dts * base, length * base)
                    )
        return found


async def bench(folder: Path, clips: list[Path], captions: tuple[str, ...] = ()) -> Bench:
    words = [*captions, *[""] * len(clips)]
    facts = await probe(clips)
    cuts = [CutClip(clip, f"Shot {n}", caption=words[n]) for n, clip in enumerate(clips)]
    return Bench(folder, facts, lay_out(cuts, facts, Cut(), facts[0].video.frame_rate))


def said(packet: Packet[Any]) -> str:
    return bytes(packet)[2:].decode()


def clicks(length: int, *marks: int) -> Wave:
    wave = np.zeros((length, 2), np.float32)
    wave[list(marks)] = 0.8
    return wave


@pytest.mark.parametrize("rate", [24, 23, 30])
async def test_the_sound_lies_on_the_pictures_clock(
    make_clip: MakeClip, tmp_path: Path, watch: Watch, rate: int
) -> None:
    """To the sample at its start, and not past the picture's end by more than a packet."""
    clips = [make_clip(f"{n}.mp4", shot=n, rate=rate, frames=13) for n in (1, 2)]
    made = await bench(tmp_path, clips)
    marks = [700, made.samples // 2, made.samples - 700]
    told = made.splice(clicks(made.samples, *marks))
    seen = watch(made.film)
    assert told == list(range(1, 27))
    assert seen.marks == [(shot, n) for shot in (1, 2) for n in range(13)]
    assert seen.times == [Fraction(n, rate) for n in range(26)]
    assert 0 <= len(seen.sound) - made.samples < 1024
    for mark in marks:
        assert abs(int(np.argmax(np.abs(seen.sound[mark - 600 : mark + 600]))) - 600) <= 1


async def test_all_tracks_together(make_clip: MakeClip, tmp_path: Path, watch: Watch) -> None:
    clips = [make_clip(f"{n}.mp4", shot=n, frames=24) for n in (1, 2, 3)]
    made = await bench(tmp_path, clips, ("", "Zwei\nZeilen", "三"))
    made.splice(clicks(made.samples, 1000), text=await write_text_track(cues_of(made.timeline), tmp_path))
    seen = watch(made.film)
    assert seen.chapters == ["Shot 0", "Shot 1", "Shot 2"]
    assert seen.marks == [(shot, n) for shot in (1, 2, 3) for n in range(24)]
    with av.open(str(made.film)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "subtitle", "data"]
        assert [chapter["start"] * (chapter["time_base"] or 0) for chapter in container.chapters()] == [0, 1, 2]
        texts = [
            (float(packet.pts * packet.time_base), float((packet.duration or 0) * packet.time_base), said(packet))
            for packet in container.demux(subtitles=0)
            if packet.pts is not None
        ]
    assert texts[-2:] == [(1, 1, "Zwei\nZeilen"), (2, 1, "三")]
    assert [text for _, _, text in texts[:-2] if text] == []


async def test_captions_end_where_they_end(make_clip: MakeClip, tmp_path: Path, ffmpeg: Callable[..., None]) -> None:
    """The last one too, which others follow in the film without one; as ffmpeg reads them."""
    clips = [make_clip(f"{n}.mp4", shot=n, frames=12) for n in range(6)]
    made = await bench(tmp_path, clips, ("", "One", "", "Two", "Three"))
    made.splice(clicks(made.samples, 1000), text=await write_text_track(cues_of(made.timeline), tmp_path))
    ffmpeg("-i", made.film, "-map", "0:s", tmp_path / "read.srt")
    assert (tmp_path / "read.srt").read_text("utf-8") == srt(cues_of(made.timeline)) + "\n"


async def test_times_rise_and_leave_no_gap(make_clip: MakeClip, tmp_path: Path) -> None:
    """B-frames included: decoding times rise in each track, pictures and sound follow each other."""
    clips = [make_clip(f"{n}.mp4", shot=n, frames=17, rate=23) for n in (1, 2)]
    made = await bench(tmp_path, [*clips, *clips], ("One", "", "Two"))
    made.splice(clicks(made.samples, 1000), text=await write_text_track(cues_of(made.timeline), tmp_path))
    packets = made.packets()
    for track in packets.values():
        decoding = [dts for _, dts, _ in track]
        assert all(before < after for before, after in itertools.pairwise(decoding))
    assert sorted(pts for pts, _, _ in packets["video"]) == [Fraction(n, 23) for n in range(68)]
    sound = packets["audio"]
    assert sound[0][0] == Fraction(-1024, SAMPLE_RATE)
    assert all(a[0] + a[2] == b[0] for a, b in itertools.pairwise(sound))
    assert sound[-1][0] + sound[-1][2] == Fraction(made.samples, SAMPLE_RATE)


async def test_no_track_runs_ahead_of_another(make_clip: MakeClip, tmp_path: Path) -> None:
    """A player that reads from the start finds picture and sound side by side, within its first second's worth."""
    clips = [make_clip(f"{n}.mp4", shot=n, frames=48) for n in (1, 2)]
    made = await bench(tmp_path, clips * 3)
    made.splice(np.random.default_rng(1).standard_normal((made.samples, 2)).astype(np.float32) * 0.1)
    with av.open(str(made.film)) as container:
        placed = sorted(
            (packet.pos, packet.stream.type, packet.dts * packet.time_base)
            for packet in container.demux()
            if packet.pos is not None and packet.dts is not None
        )
    reached = {"video": Fraction(0), "audio": Fraction(0)}
    for _, kind, time in placed:
        reached[kind] = time
        assert abs(reached["video"] - reached["audio"]) < 1.2
    data = made.film.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


async def test_a_film_without_sound_or_words_has_the_picture_alone(make_clip: MakeClip, tmp_path: Path) -> None:
    made = await bench(tmp_path, [make_clip("a.mp4", sound=0.5)])
    made.splice()
    with av.open(str(made.film)) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]  # the chapters' titles


async def test_the_gain_is_in_the_film(make_clip: MakeClip, tmp_path: Path, watch: Watch) -> None:
    made = await bench(tmp_path, [make_clip("a.mp4", frames=24)])
    tone = 0.4 * np.sin(2 * np.pi * 1000 * np.arange(made.samples) / SAMPLE_RATE)
    made.splice(np.stack([tone, tone], 1), gain=-20)
    # Both channels as one are 3 dB above each.
    assert np.abs(watch(made.film).sound[10_000:40_000]).max() == pytest.approx(0.04 * 2**0.5, rel=0.02)


async def test_hevc_keeps_the_tag_that_players_take_beside_sound_and_words(
    make_clip: MakeClip, tmp_path: Path, watch: Watch
) -> None:
    clips = [make_clip(f"{n}.mp4", shot=n, codec="libx265", options=X265) for n in (1, 2)]
    made = await bench(tmp_path, clips, ("One",))
    made.splice(clicks(made.samples, 1000), text=await write_text_track(cues_of(made.timeline), tmp_path))
    seen = watch(made.film)
    assert (seen.tag, seen.marks) == ("hvc1", [(shot, n) for shot in (1, 2) for n in range(12)])


async def test_coded_pictures_are_the_clips_own(make_clip: MakeClip, tmp_path: Path) -> None:
    clips = [make_clip(f"{n}.mp4", shot=n, noise=n == 2) for n in (1, 2)]
    made = await bench(tmp_path, clips)
    made.splice(clicks(made.samples, 1000))

    def coded(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(video=0) if packet.size]

    assert coded(made.film) == [packet for clip in clips for packet in coded(clip)]


async def test_a_clip_that_is_not_what_was_probed_is_named(make_clip: MakeClip, tmp_path: Path) -> None:
    made = await bench(tmp_path, [make_clip("a.mp4"), make_clip("b.mp4", shot=2)])
    whole = made.pictures[1]
    made.pictures[1] = replace(whole, video=replace(whole.video, frames=11))
    with pytest.raises(InvalidMedia, match=r"b\.mp4 changed since it was probed: it has 12 frames instead of 11"):
        made.splice()
    made.pictures[1] = replace(whole, bytes=whole.bytes - 1)
    with pytest.raises(InvalidMedia, match=r"b\.mp4 changed since it was probed: it has \d+ bytes"):
        made.splice()
    made.pictures[1] = whole
    whole.path.unlink()
    with pytest.raises(InvalidMedia, match=r"b\.mp4 changed since it was probed: No such file"):
        made.splice()


async def test_a_film_that_cannot_be_written_is_no_fault_of_the_clips(make_clip: MakeClip, tmp_path: Path) -> None:
    made = await bench(tmp_path, [make_clip("a.mp4")])
    made.film.mkdir()
    with pytest.raises(OSError, match="The film cannot be written: Is a directory"):
        made.splice()


async def test_it_stops_between_packets(make_clip: MakeClip, tmp_path: Path) -> None:
    made = await bench(tmp_path, [make_clip("a.mp4")])
    told: list[int] = []
    asked = iter([None] * 5)
    with pytest.raises(StopIteration):
        splice(made.pictures, made.timeline, None, 0, None, made.film, lambda: next(asked), told.append)
    assert told == [1, 2, 3, 4, 5]
