"""Captions: when they are read, how their lines are broken, and files that players read back as they were meant."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.subtitles.subtitle import AssSubtitle
from hypothesis import given
from hypothesis import strategies as st

from prefect_kling.media.captions import Cue, cues_of, srt, vtt
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.linebreaks import broken, columns
from prefect_kling.media.timeline import lay_out
from prefect_kling.media.transitions import Transition


def test_a_caption_is_read_while_its_shot_is_seen(as_probed: Callable[..., MediaFacts]) -> None:
    """Transitions count half, cards not at all, and a shot without words leaves a gap."""
    over = Transition("fade", Fraction(1, 2))
    clips = [
        CutClip(Path("a"), "a", caption="One"),
        CutClip(Path("b"), "b"),
        CutClip(Path("c"), "c", caption=" Two \n\n lines ", transition=over),
        CutClip(Path("d"), "d", caption="\n \n"),
    ]
    cut = Cut(title="Title", card_seconds=Fraction(1))
    timeline = lay_out(clips, [as_probed(clip.path, 48) for clip in clips], cut, Fraction(24))
    assert cues_of(timeline) == (
        Cue(Fraction(1), Fraction(3), "One"),
        Cue(Fraction(19, 4), Fraction(13, 2), "Two\nlines"),
    )


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("He lights the lamp", ["He lights the lamp"]),
        (
            "He climbs the stairs while the storm outside grows louder and louder",
            ["He climbs the stairs while the storm", "outside grows louder and louder"],
        ),
        ("- Who is there?\n- Me.", ["- Who is there?", "- Me."]),
        ("a" * 100, ["a" * 42, "a" * 42, "a" * 16]),
        ("灯台守は嵐の中で階段を上り、ランプに火を灯す。", ["灯台守は嵐の中で階段を上", "り、ランプに火を灯す。"]),
        ("灯" * 21 + "。", ["灯" * 11, "灯" * 10 + "。"]),
        ("cafe\u0301 " * 8, [("cafe\u0301 " * 8).strip()]),
    ],
    ids=["none", "short", "even", "dialogue", "one word", "no spaces", "no line begins with a stop", "accents"],
)
def test_lines(text: str, lines: list[str]) -> None:
    assert broken(text, 42, columns) == lines


@given(st.text(alphabet=st.sampled_from("ab,。灯 "), max_size=150), st.integers(4, 42))
def test_lines_lose_no_letter_and_are_no_longer_than_they_may_be(text: str, width: int) -> None:
    lines = broken(text, width, columns)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(line == line.strip() and 0 < columns(line) <= width for line in lines)


CUES = [
    Cue(Fraction(0), Fraction(115, 24), "Plain,\nin two lines"),
    Cue(Fraction(115, 24), Fraction(10), "1 < 2 & 3 > 2"),
    Cue(Fraction(10), Fraction(3700), "An arrow --> and a tag <i>not slanted</i>, {\\an8}down here\n\n\nand on"),
]
SRT = """\
1
00:00:00,000 --> 00:00:04,791
Plain,
in two lines

2
00:00:04,791 --> 00:00:10,000
1 < 2 & 3 > 2

3
00:00:10,000 --> 01:01:40,000
An arrow → and a tag <\N{WORD JOINER}i>not slanted<\N{WORD JOINER}/i>, {\N{WORD JOINER}\\an8}down here
and on
"""
VTT = """\
WEBVTT

00:00:00.000 --> 00:00:04.791
Plain,
in two lines

00:00:04.791 --> 00:00:10.000
1 &lt; 2 &amp; 3 &gt; 2

00:00:10.000 --> 01:01:40.000
An arrow --&gt; and a tag &lt;i&gt;not slanted&lt;/i&gt;, {\\an8}down here
and on
"""


def test_subrip() -> None:
    assert srt(CUES) == SRT
    assert srt(()) == ""


def test_webvtt() -> None:
    assert vtt(CUES) == VTT
    assert vtt(()) == "WEBVTT\n"


@pytest.mark.parametrize(("name", "text"), [("srt", SRT), ("vtt", VTT)])
def test_players_read_every_cue_at_its_time(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / f"film.{name}"
    path.write_text(text, "utf-8")
    with av.open(str(path)) as subtitles:
        track = subtitles.streams.subtitles[0]
        packets = [packet for packet in subtitles.demux(track) if packet.size]
        assert [(packet.pts, packet.duration) for packet in packets] == [(0, 4791), (4791, 5209), (10_000, 3_690_000)]
        lines = [line for packet in packets for line in track.codec_context.decode2(packet) or ()]
        dialogues = [line.dialogue.decode() for line in lines if isinstance(line, AssSubtitle)]
    assert dialogues[0] == "Plain,\nin two lines"
    assert dialogues[1] == "1 < 2 & 3 > 2"
    assert dialogues[2].count("not slanted") == 1
    assert r"{\i1}" not in dialogues[2]


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans()), min_size=1, max_size=30), st.sampled_from([24, 25, 30]))
def test_rounding_never_makes_two_overlap(lengths: list[tuple[int, bool]], rate: int) -> None:
    cues, at = [], 0
    for frames, worded in lengths:
        if worded:
            cues.append(Cue(Fraction(at * 1000, rate * 1001), Fraction((at + frames) * 1000, rate * 1001), "x"))
        at += frames
    times = [time for line in vtt(cues).splitlines() if "-->" in line for time in line.split(" --> ")]
    assert times == sorted(times)
    assert all(start < end for start, end in zip(times[::2], times[1::2], strict=True))
