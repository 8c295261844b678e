"""Where everything lies in the film: contiguous but for transitions, to the frame and to the sample."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media import reencode
from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.reencode import parts_of
from prefect_kling.media.timeline import Card, Timeline, film_frames, lay_out, samples
from prefect_kling.media.transitions import KINDS, SHORT_NAMES, Transition

AsProbed = Callable[..., MediaFacts]
RATE = Fraction(24)


def laid(as_probed: AsProbed, cut: Cut | None = None, *wanted: dict[str, Any], frames: int = 48) -> Timeline:
    clips = [CutClip(Path(f"/{n}.mp4"), f"shot {n}", **said) for n, said in enumerate(wanted)]
    facts = [of_length(as_probed(clip.path), frames) for clip in clips]
    return lay_out(clips, facts, cut or Cut(), RATE)


def of_length(facts: MediaFacts, frames: int) -> MediaFacts:
    seconds = frames / RATE
    video = replace(facts.video, frames=frames, packets=frames, seconds=seconds, frame_rate=RATE)
    return replace(facts, seconds=seconds, video=video)


def test_clips_lie_behind_each_other(as_probed: AsProbed) -> None:
    timeline = laid(as_probed, None, {}, {"trim": (Fraction(1), None)}, {"repeats": True})
    assert [(s.first, s.frames, s.start, s.whole) for s in timeline.scenes] == [
        (0, 48, 0, True),
        (24, 24, 48, False),
        (1, 47, 72, False),
    ]
    assert [(c.title, c.start, c.end) for c in timeline.chapters] == [
        ("shot 0", 0, 48),
        ("shot 1", 48, 72),
        ("shot 2", 72, 119),
    ]


def test_a_transition_is_shared_and_counts_half_for_each_shot(as_probed: AsProbed) -> None:
    wipe = Transition("wipe", Fraction(1, 2))
    timeline = laid(as_probed, None, {"transition": wipe}, {"transition": wipe}, {})
    assert [(s.start, s.before, s.after) for s in timeline.scenes] == [(0, 0, 12), (36, 12, 0), (84, 0, 0)]
    assert timeline.frames == 3 * 48 - 12
    assert [s.seen for s in timeline.scenes] == [(0, 42), (42, 84), (84, 132)]


def test_cards_belong_to_the_chapters_beside_them(as_probed: AsProbed) -> None:
    cut = Cut(title="A", end_card="B", transition=Transition("crossfade", Fraction(1, 2)))
    timeline = laid(as_probed, cut, {})
    assert [type(scene.source) for scene in timeline.scenes] == [Card, MediaFacts, Card]
    assert timeline.frames == 72 + 48 + 72 - 2 * 12
    assert [(c.start, c.end) for c in timeline.chapters] == [(0, timeline.frames)]


@pytest.mark.parametrize(
    ("cut", "wanted", "says"),
    [
        (Cut(), {"trim": (Fraction(3), None)}, "Nothing is left of /1.mp4"),
        (Cut(), {"trim": (Fraction(0), Fraction(5))}, "trimmed to 0 to 5 s, but lasts 2 s only"),
        (Cut(), {"transition": Transition("wipe", Fraction(2))}, "0.mp4 has 48 frames in the film"),
        (Cut(fade_in=Fraction(3), fade_out=Fraction(3)), {}, "fewer than fade_in and fade_out together take"),
    ],
)
def test_what_does_not_fit_is_refused(as_probed: AsProbed, cut: Cut, wanted: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidMedia, match=re.escape(says)):
        laid(as_probed, cut, {}, wanted)


def test_a_clip_keeps_all_its_frames_at_its_own_rate_and_its_length_at_another(as_probed: AsProbed) -> None:
    clip = of_length(as_probed(Path("/a.mp4")), 121)
    assert film_frames(clip, RATE) == 121
    assert film_frames(clip, Fraction(30)) == 151


LENGTHS = st.lists(
    st.tuples(st.integers(12, 60), st.sampled_from([0, 0, 2, 3, 4]), st.integers(0, 3)), min_size=1, max_size=30
)


@given(LENGTHS, st.sampled_from([Fraction(24), Fraction(24000, 1001), Fraction(23)]))
def test_whatever_the_cut_the_film_is_as_long_as_its_parts(
    as_probed: AsProbed, lengths: list[tuple[int, int, int]], rate: Fraction
) -> None:
    plain = as_probed(Path("/a.mp4"))
    clips, facts = [], []
    for frames, shared, trimmed in lengths:
        video = replace(plain.video, frames=frames, packets=frames, seconds=frames / rate, frame_rate=rate)
        facts.append(replace(plain, seconds=frames / rate, video=video))
        transition = Transition("fade", shared / rate) if shared else Transition()
        clips.append(CutClip(plain.path, "", transition=transition, trim=(trimmed / rate, None)))
    timeline = lay_out(clips, facts, Cut(), rate)
    shared = sum(length[1] for length in lengths[1:])
    assert timeline.frames == sum(length[0] - length[2] for length in lengths) - shared
    for before, after in itertools.pairwise(timeline.scenes):
        assert after.start == before.end - after.before
        assert before.after == after.before
    chapters = timeline.chapters
    assert (chapters[0].start, chapters[-1].end) == (0, timeline.frames)
    assert all(a.end == b.start and a.start < a.end for a, b in itertools.pairwise(chapters))
    assert abs(samples(timeline.frames, rate) - timeline.seconds * 48_000) <= Fraction(1, 2)
    _parts_cover(timeline)


def _parts_cover(timeline: Timeline) -> None:
    """Every frame is in one part, in order; a part that begins within a clip begins at a frame of its own."""
    position = 0
    shown: dict[int, int] = {}
    for part in parts_of(timeline):
        assert part.start == position
        assert 1 <= len(part.pieces) <= reencode.CLIPS_AT_ONCE + 1
        assert part.pieces[0].before == 0
        for piece in part.pieces:
            assert piece.first == shown.get(piece.scene, 0)
            assert piece.frames > 0
            shown[piece.scene] = piece.first + piece.frames
        first = part.pieces[0]
        scene = timeline.scenes[first.scene]
        assert first.first == 0 or scene.before <= first.first <= scene.frames - scene.after
        position += part.frames
    assert position == timeline.frames
    assert shown == {number: scene.frames for number, scene in enumerate(timeline.scenes)}


def test_a_fade_is_never_in_two_parts(as_probed: AsProbed) -> None:
    wipe = {"transition": Transition("wipe", Fraction(1, 4))}
    timeline = laid(as_probed, Cut(fade_in=Fraction(30), fade_out=Fraction(9)), *([wipe] * 40))
    for part in parts_of(timeline):
        assert part.start == 0 or timeline.fade_in <= part.start <= timeline.frames - timeline.fade_out


def test_there_is_every_kind_of_transition_that_ffmpeg_has() -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-h", "filter=xfade"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    there = set(re.findall(r"^     (\w+) +-?\d+ ", said, re.MULTILINE)) - {"custom"}
    assert set(KINDS) - {"cut", *SHORT_NAMES} == there
    assert set(SHORT_NAMES.values()) <= there


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no transition 'explode'"):
        Transition("explode", Fraction(1))
