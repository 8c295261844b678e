"""The clips' sounds in a row: each at its sample, no click between them, no dip over a transition, nothing drifting."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.pcm import Track
from prefect_kling.media.programme import write_programme
from prefect_kling.media.timeline import SAMPLE_RATE, Timeline, lay_out, samples
from prefect_kling.media.transitions import HARD, Transition

Wave = NDArray[np.float32]

FADE = 240
"""5 ms in samples."""


@dataclass(frozen=True)
class Hearing:
    """Lays sounds into a film."""

    folder: Path
    as_probed: Callable[..., MediaFacts]

    def timeline(
        self,
        lengths: Sequence[int],
        rate: Fraction = Fraction(24),
        transitions: Sequence[Transition] = (),
        trims: Sequence[tuple[Fraction, Fraction | None] | None] = (),
        cut: Cut | None = None,
    ) -> Timeline:
        """Clips of so many frames; `transitions` into each but the first."""
        into = [HARD, *transitions, *[HARD] * len(lengths)]
        cuts = [*trims, *[None] * len(lengths)]
        clips = [CutClip(Path(str(n)), str(n), trim=cuts[n], transition=into[n]) for n in range(len(lengths))]
        facts = [self.as_probed(clip.path, frames, rate) for clip, frames in zip(clips, lengths, strict=True)]
        return lay_out(clips, facts, cut or Cut(), rate)

    def track(self, wave: Wave) -> Track:
        path = self.folder / f"{len(list(self.folder.iterdir()))}.f32"
        wave.astype(np.float32).tofile(path)
        return Track(path, len(wave))

    def heard(self, timeline: Timeline, sounds: Sequence[Wave | None]) -> Wave:
        out = self.folder / "programme.f32"
        tracks = [None if sound is None else self.track(sound) for sound in sounds]
        write_programme(timeline, tracks, out, lambda: None)
        return np.fromfile(out, np.float32).reshape(-1, 2)


@pytest.fixture
def hearing(tmp_path: Path, as_probed: Callable[..., MediaFacts]) -> Hearing:
    return Hearing(tmp_path, as_probed)


def steady(length: int, level: float = 1.0) -> Wave:
    """A level that does not move, so that what is heard is how loud it was made."""
    return np.full((length, 2), level, np.float32)


def noise(length: int, seed: int) -> Wave:
    return (np.random.default_rng(seed).standard_normal((length, 2)) * 0.1).astype(np.float32)


def tone(length: int, hertz: float, level: float = 0.5) -> Wave:
    wave = level * np.sin(2 * np.pi * hertz * (np.arange(length) + 7) / SAMPLE_RATE)
    return np.stack([wave, wave], 1).astype(np.float32)


def decibels(wave: NDArray[np.floating]) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))))


# --- Where --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    rate=st.sampled_from([Fraction(23), Fraction(24_000, 1001), Fraction(30_000, 1001), Fraction(7, 3), Fraction(24)]),
)
def test_nothing_drifts_at_any_rate(hearing: Hearing, lengths: list[int], rate: Fraction) -> None:
    """Each clip has a click in its middle, and it is where the film's clock says, to the sample."""
    timeline = hearing.timeline(lengths, rate)
    sounds, expected = [], []
    for scene in timeline.scenes:
        length = samples(scene.frames, rate) + 1
        sounds.append(np.zeros((length, 2), np.float32))
        sounds[-1][length // 2] = 1
        expected.append(round(scene.start * SAMPLE_RATE / rate) + length // 2)
    film = hearing.heard(timeline, sounds)
    assert len(film) == round(sum(lengths) * SAMPLE_RATE / rate)
    assert np.flatnonzero(film[:, 0]).tolist() == expected
    assert np.array_equal(film[:, 0], film[:, 1])


def test_a_trimmed_clip_begins_with_the_sound_of_its_first_frame(hearing: Hearing) -> None:
    timeline = hearing.timeline([24, 48], trims=[None, (Fraction(1, 2), Fraction(3, 2))])
    first, second = np.zeros((48_000, 2), np.float32), np.zeros((96_000, 2), np.float32)
    second[[30_000, 80_000]] = 1  # the other click is behind the trim
    film = hearing.heard(timeline, [first, second])
    assert len(film) == 96_000
    assert np.flatnonzero(film[:, 0]).tolist() == [48_000 + 30_000 - 24_000]


def test_left_and_right_stay_apart(hearing: Hearing) -> None:
    wave = noise(48_000, 1)
    wave[:, 1] *= -0.5
    film = hearing.heard(hearing.timeline([24]), [wave])
    assert np.array_equal(film[FADE:-FADE], wave[FADE:-FADE])


def test_what_has_no_sound_is_silent_and_moves_nothing(hearing: Hearing) -> None:
    """None, a sound of no samples, and one that a trim cuts off altogether."""
    timeline = hearing.timeline([24] * 5, trims=[None, None, None, (Fraction(1, 2), None)])
    film = hearing.heard(timeline, [None, steady(0), steady(48_000), steady(20_000), steady(48_000)])
    quiet = [slice(0, 96_000), slice(144_000, 168_000)]
    assert [bool(film[part].any()) for part in quiet] == [False, False]
    assert film[120_000].tolist() == film[190_000].tolist() == [1, 1]
    assert len(film) == 4 * 48_000 + 24_000


def test_a_film_without_any_sound_is_silence_of_its_length(hearing: Hearing) -> None:
    film = hearing.heard(hearing.timeline([7, 9], Fraction(23)), [None, None])
    assert film.shape == (round(16 * SAMPLE_RATE / 23), 2)
    assert not film.any()


def test_sound_longer_than_its_picture_is_cut_off(hearing: Hearing) -> None:
    film = hearing.heard(hearing.timeline([24, 24]), [steady(90_000), None])
    assert film[40_000, 0] == 1
    assert not film[48_000:].any()


# --- Joins --------------------------------------------------------------------------------------------------------


def test_hard_joins_and_the_films_ends_fade_in_five_milliseconds(hearing: Hearing) -> None:
    film = hearing.heard(hearing.timeline([24, 24]), [steady(48_000), steady(48_000)])[:, 0]
    rise = (np.arange(FADE) + 0.5) / FADE
    for start in (0, 48_000):
        assert film[start : start + FADE] == pytest.approx(rise, abs=1e-6)
        assert film[start + 48_000 - FADE : start + 48_000] == pytest.approx(rise[::-1], abs=1e-6)
        assert (film[start + FADE : start + 48_000 - FADE] == 1).all()


def test_sound_that_ends_early_fades_where_it_ends(hearing: Hearing) -> None:
    film = hearing.heard(hearing.timeline([24, 24]), [steady(30_000), steady(48_000)])[:, 0]
    fall = (np.arange(FADE)[::-1] + 0.5) / FADE
    assert film[30_000 - FADE : 30_000] == pytest.approx(fall, abs=1e-6)
    assert not film[30_000:48_000].any()


def test_sound_shorter_than_its_fades_is_heard_a_little(hearing: Hearing) -> None:
    film = hearing.heard(hearing.timeline([24]), [steady(100)])[:, 0]
    assert 0 < film[:100].max() < 0.25
    assert not film[100:].any()


def test_a_join_of_two_tones_does_not_click(hearing: Hearing) -> None:
    """A hard join of these has -41 dB of what a click is made of, above 4 kHz, beside the tones."""
    film = hearing.heard(hearing.timeline([24, 24]), [tone(48_000, 440), tone(48_000, 550)])[:, 0]
    around = film[48_000 - 4096 : 48_000 + 4096].astype(np.float64) * np.hanning(8192)
    power = np.abs(np.fft.rfft(around)) ** 2
    hertz = np.fft.rfftfreq(8192, 1 / SAMPLE_RATE)
    assert 10 * np.log10(power[hertz > 4000].sum() / power.sum()) < -52


# --- Transitions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(24_000, 1001)], ids=str)
def test_noise_is_as_loud_over_a_crossfade_as_beside_it(hearing: Hearing, rate: Fraction) -> None:
    """Equal power: these are different sounds."""
    timeline = hearing.timeline([48, 48], rate, [Transition("fade", Fraction(1))])
    length = samples(48, rate)
    film = hearing.heard(timeline, [noise(length, 1), noise(length, 2)])
    assert len(film) == samples(72, rate)
    windows = [decibels(film[start : start + 4800]) for start in range(FADE, len(film) - 4800 - FADE, 2400)]
    assert max(windows) - min(windows) < 0.5
    assert np.mean(windows) == pytest.approx(-20, abs=0.1)


def test_a_crossfade_is_the_two_quarters_of_a_circle(hearing: Hearing) -> None:
    timeline = hearing.timeline([48, 48], transitions=[Transition("wipe", Fraction(1, 2))])
    begins = samples(timeline.scenes[1].start, timeline.rate)
    going = hearing.heard(timeline, [steady(96_000), None])[begins : begins + 24_000, 0]
    coming = hearing.heard(timeline, [None, steady(96_000)])[begins : begins + 24_000, 0]
    assert going**2 + coming**2 == pytest.approx(np.ones(24_000), abs=1e-6)
    assert going[[0, 12_000, -1]] == pytest.approx([1, 0.5**0.5, 0], abs=1e-3)


@pytest.mark.parametrize("kind", ["black", "fadewhite", "fadegrays"])
def test_through_black_one_sound_goes_before_the_other_comes(hearing: Hearing, kind: str) -> None:
    timeline = hearing.timeline([48, 48], transitions=[Transition(kind, Fraction(1))])
    going = hearing.heard(timeline, [steady(96_000), None])[:, 0]
    coming = hearing.heard(timeline, [None, steady(96_000)])[:, 0]
    begins, middle, ends = 48_000, 72_000, 96_000
    assert going[[begins - 1, begins + 12_000]] == pytest.approx([1, 0.5**0.5], abs=1e-3)
    assert np.abs(going[middle - 1 :]).max() < 1e-3
    assert np.abs(coming[: middle + 1]).max() < 1e-3
    assert coming[[middle + 12_000, ends]] == pytest.approx([0.5**0.5, 1], abs=1e-3)


def test_sound_that_ends_within_a_transition_ends_softly(hearing: Hearing) -> None:
    timeline = hearing.timeline([48, 48], transitions=[Transition("fade", Fraction(1))])
    film = hearing.heard(timeline, [steady(60_000), None])[:, 0]
    assert not film[60_000:].any()
    assert np.abs(np.diff(film[50_000:60_100])).max() < 1.5 / FADE


def test_a_clip_between_two_transitions_comes_and_goes(hearing: Hearing) -> None:
    over = Transition("fade", Fraction(1, 2))
    film = hearing.heard(hearing.timeline([48, 48, 48], transitions=[over, over]), [None, steady(96_000), None])[:, 0]
    assert film[[72_000, 84_000, 96_000, 144_000, 156_000, 167_999]] == pytest.approx(
        [0, 0.5**0.5, 1, 1, 0.5**0.5, 0], abs=1e-3
    )


def test_the_films_fades_are_linear(hearing: Hearing) -> None:
    timeline = hearing.timeline([96], cut=Cut(fade_in=Fraction(1), fade_out=Fraction(2)))
    film = hearing.heard(timeline, [steady(192_000)])[:, 0]
    assert film[[12_000, 24_000, 48_000, 95_999, 144_000, 168_000]] == pytest.approx(
        [0.25, 0.5, 1, 1, 0.5, 0.25], abs=1e-3
    )
    assert film[[0, -1]] == pytest.approx([0, 0], abs=1e-4)


# --- Limits -------------------------------------------------------------------------------------------------------


def test_what_is_no_number_is_silence_and_what_is_damage_is_bounded(hearing: Hearing) -> None:
    """As a file of floats may hold anything, and one sample of 1e30 would take all the rest's loudness."""
    wave = steady(48_000, 0.5)
    wave[20_000:20_004, 0] = [np.nan, np.inf, -np.inf, 1e30]
    film = hearing.heard(hearing.timeline([24]), [wave])
    assert film[19_999:20_005, 0].tolist() == [0.5, 0, 4, -4, 4, 0.5]
    assert (film[FADE:-FADE, 1] == 0.5).all()


def test_a_long_film_takes_no_more_memory(hearing: Hearing) -> None:
    """A minute and a half, 35 MB, each clip used six times over."""
    timeline = hearing.timeline([360] * 6)
    track = hearing.track(noise(15 * SAMPLE_RATE, 3))
    out = hearing.folder / "programme.f32"
    tracemalloc.start()
    try:
        write_programme(timeline, [track] * 6, out, lambda: None)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert out.stat().st_size == 90 * SAMPLE_RATE * 8
    assert most < 12_000_000


def test_it_stops_where_it_is_not_wanted_any_more(hearing: Hearing) -> None:
    timeline = hearing.timeline([240])
    asked = iter([None, None])
    out = hearing.folder / "programme.f32"
    with pytest.raises(StopIteration):
        write_programme(timeline, [None], out, lambda: next(asked))
    assert out.stat().st_size == 2 * SAMPLE_RATE * 8
