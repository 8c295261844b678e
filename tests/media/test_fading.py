"""Ends that go black, and ends that are only dark."""

from __future__ import annotations

import math

import pytest

from prefect_kling.media.fading import last_before_black

DAY, NIGHT = 0.4, 0.03


def down(top: float, frames: int, to: float = 0.0) -> list[float]:
    """A linear fade: `frames` values below `top`, the last of them `to`."""
    return [top + (to - top) * n / frames for n in range(1, frames + 1)]


def eased(top: float, frames: int) -> list[float]:
    return [top * (1 + math.cos(math.pi * n / frames)) / 2 for n in range(1, frames + 1)]


def flicker(level: float, frames: int) -> list[float]:
    return [level * (1 + 0.02 * math.sin(n * 2.4)) for n in range(frames)]


@pytest.mark.parametrize(
    ("lumas", "skipped"),
    [
        pytest.param([DAY] * 48, 0, id="an ordinary end"),
        pytest.param([DAY], 0, id="one frame"),
        pytest.param([DAY] * 60 + [0.0] * 3, 3, id="a cut to black"),
        pytest.param([DAY] * 60 + [0.0] * 100, 100, id="a long black end"),
        pytest.param([DAY] * 60 + [0.004] * 5, 5, id="black as encoders leave it"),
        pytest.param([DAY] * 60 + down(DAY, 12), 12, id="a fade of half a second"),
        pytest.param([DAY] * 60 + down(DAY, 12) + [0.0] * 10, 22, id="a fade, and black after it"),
        pytest.param([DAY] * 60 + down(DAY, 36), 36, id="a fade of a second and a half"),
        pytest.param([DAY] * 60 + [v for v in down(DAY, 8) for _ in range(2)], 16, id="a fade on twos"),
        pytest.param([NIGHT] * 60 + down(NIGHT, 12), 12, id="a night that fades"),
        pytest.param([DAY] * 30 + [0.0] * 20 + [DAY] * 30 + [0.0], 1, id="black in its middle as well"),
        pytest.param([0.0] * 48, 0, id="black throughout"),
        pytest.param([0.0], 0, id="one black frame"),
        pytest.param([0.009, 0.008] * 24, 0, id="nearly black throughout"),
        pytest.param([NIGHT] * 48, 0, id="a night throughout"),
        pytest.param([0.012] * 40 + [0.009] * 8, 0, id="a night so dark that it cannot be told from black"),
        pytest.param([NIGHT] * 30 + [0.012] * 18, 0, id="a night that gets darker"),
        pytest.param([DAY] * 60 + [NIGHT] * 3, 0, id="a cut into a night"),
        pytest.param([DAY] * 60 + down(DAY, 20, NIGHT) + [NIGHT] * 10, 0, id="dusk, then night"),
        pytest.param([DAY] * 60 + down(DAY, 24, 0.2), 0, id="a scene that dims"),
        pytest.param([DAY] * 60 + down(DAY, 24)[:21], 21, id="a fade that the end cuts short"),
        pytest.param([DAY] * 60 + down(DAY, 24)[:12], 0, id="half a fade, which may be the scene"),
    ],
)
def test_what_is_skipped_is_black_and_the_way_there(lumas: list[float], skipped: int) -> None:
    assert len(lumas) - 1 - last_before_black(lumas, 48) == skipped


def test_a_fade_that_eases_in_is_left_before_anybody_sees_it() -> None:
    lumas = [DAY] * 60 + eased(DAY, 24)
    chosen = last_before_black(lumas, 48)
    assert lumas[chosen] >= 0.97 * DAY
    assert chosen >= 59


def test_a_scene_that_flickers_is_left_near_its_end() -> None:
    lumas = flicker(DAY, 60) + [value * DAY for value in down(1, 12)]
    assert 57 <= last_before_black(lumas, 48) <= 60


def test_a_fade_longer_than_the_window_gives_its_brightest_frame() -> None:
    lumas = [DAY] * 60 + down(DAY, 80)
    first_black = next(n for n, luma in enumerate(lumas) if luma <= 0.01)
    assert last_before_black(lumas, 48) == first_black - 1 - 48


def test_a_brighter_past_does_not_matter() -> None:
    """Only what lies within the window before the black is the scene that fades."""
    lumas = [1.0] * 60 + [0.1] * 60 + down(0.1, 10)
    assert last_before_black(lumas, 48) == 119
