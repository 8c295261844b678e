"""Clips that complete, are billed, and are bad: each in its own way, and in no other."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from prefect_kling.media.checks import Wanted, faults_of
from prefect_kling.media.probe import probe
from prefect_kling.simulator.config import MediaSpec
from prefect_kling.simulator.faults import SPOILING_FAULTS
from prefect_kling.simulator.order import ClipOrder, ScriptedShot
from prefect_kling.simulator.planes import Planes
from prefect_kling.simulator.render import render
from prefect_kling.simulator.spoiling import spoil
from prefect_kling.simulator.trace import planes_of, read_trace

FRAMES = 73
ORDERED = Wanted(seconds=3, size=(320, 180), frames=True, decodes=True, black=0.5, frozen=2.0, sound=True)


def clip(path: Path, *, media: str = "", sound: bool = True) -> tuple[Path, MediaSpec]:
    spec = MediaSpec.parse(media)
    shots = (ScriptedShot("The sea at dusk", 3),)
    order = ClipOrder(identity="a", task_id="a", shots=shots, size=(320, 180), sound=sound, media=spec)
    render(order, path)
    return path, spec


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A clip of three seconds with sound, as a file's bytes."""
    return clip(tmp_path_factory.mktemp("good") / "clip.mp4")[0].read_bytes()


@pytest.fixture(scope="module")
def spoiled(good: bytes, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`spoiled(fault)` gives the clip with it, and what `spoil` returned; made once."""

    @functools.cache
    def make(fault: str) -> tuple[Path, float]:
        path = tmp_path_factory.mktemp("spoiled") / "clip.mp4"
        path.write_bytes(good)
        return path, spoil(path, fault, MediaSpec())

    return make


def frames(path: Path) -> list[Planes]:
    with av.open(str(path)) as container:
        return [planes_of(frame) for frame in container.decode(video=0)]


def loudest(path: Path) -> tuple[float, float]:
    """The sound's highest peak and its length in seconds."""
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    return float(np.abs(samples).max()), samples.shape[1] / 44_100


def changes(seen: list[Planes]) -> float:
    return max(float(np.abs(b.y.astype(int) - a.y.astype(int)).mean()) for a, b in itertools.pairwise(seen))


def test_a_black_clip_is_black_and_can_be_heard(spoiled: Any) -> None:
    path, seconds = spoiled("black")
    seen = frames(path)
    assert (len(seen), seconds) == (FRAMES, pytest.approx(FRAMES / 24))
    assert max(int(planes.y.max()) for planes in seen) <= 17
    assert loudest(path)[0] > 0.1
    assert read_trace(path) is None


def test_a_frozen_clip_shows_one_picture(spoiled: Any, good: bytes, tmp_path: Path) -> None:
    path, _ = spoiled("frozen")
    (tmp_path / "good.mp4").write_bytes(good)
    seen = frames(path)
    assert len(seen) == FRAMES
    assert changes(seen) < 0.3 < changes(frames(tmp_path / "good.mp4"))
    assert seen[0].y.mean() > 40


def test_a_mute_clip_has_silence_in_place_of_sound(spoiled: Any) -> None:
    path, _ = spoiled("mute")
    assert loudest(path)[0] < 1e-4
    assert changes(frames(path)) > 0.3
    assert read_trace(path) is not None


def test_a_short_clip_is_half_as_long_with_its_sound(spoiled: Any) -> None:
    path, seconds = spoiled("short")
    assert (len(frames(path)), seconds) == (36, 1.5)
    peak, length = loudest(path)
    assert peak > 0.1
    assert length == pytest.approx(1.5, abs=0.05)


async def test_a_corrupt_clip_can_be_probed_and_not_decoded(spoiled: Any, good: bytes) -> None:
    path, seconds = spoiled("corrupt")
    assert seconds == pytest.approx(FRAMES / 24)
    [found] = await probe([path])
    assert (found.video.frames, found.video.constant) == (FRAMES, True)
    data = path.read_bytes()
    assert len(data) == len(good)
    assert data[data.index(b"moov") :] == good[good.index(b"moov") :]
    options = {"err_detect": "explode"}
    with av.open(str(path), options=options) as container:
        container.streams.video[0].codec_context.options = options
        with pytest.raises(av.FFmpegError):
            list(container.decode(video=0))
    assert loudest(path)[0] > 0.1


def test_a_clip_that_fades_out_is_whole_until_its_last_half_second(spoiled: Any, good: bytes, tmp_path: Path) -> None:
    path, _ = spoiled("fade-out")
    (tmp_path / "good.mp4").write_bytes(good)
    before, after = frames(tmp_path / "good.mp4"), frames(path)
    levels = [float(planes.y.mean()) for planes in after]
    assert len(levels) == FRAMES
    assert abs(levels[-13] - before[-13].y.mean()) < 1
    assert levels[-1] < 17
    assert all(later < earlier for earlier, later in itertools.pairwise(levels[-13:]))


@pytest.mark.parametrize(
    ("media", "fault"),
    [
        ("codec=hevc", "corrupt"),
        ("vfr=true", "fade-out"),
        ("hidden_frames=24", "corrupt"),
        ("hidden_frames=24", "frozen"),
    ],
)
async def test_clips_of_any_kind_can_be_spoiled(tmp_path: Path, media: str, fault: str) -> None:
    path, spec = clip(tmp_path / "clip.mp4", media=media, sound=False)
    [before] = await probe([path])
    spoil(path, fault, spec)
    [after] = await probe([path])
    kept = ("frames", "codec", "constant", "shown_size")
    assert [getattr(after.video, name) for name in kept] == [getattr(before.video, name) for name in kept]
    assert float(after.video.frame_rate) == pytest.approx(float(before.video.frame_rate), rel=0.01)
    assert after.audio is None


async def test_a_bad_clip_is_completed_and_billed(simulate: Any, finish: Any, order: dict[str, Any]) -> None:
    faults = ",".join(f"{fault}=@{n}" for n, fault in enumerate(SPOILING_FAULTS, 1))
    async with simulate(faults=faults, shrink=8) as (simulator, client):
        ended = [await finish(client, order) for _ in SPOILING_FAULTS]
        assert [data["state"] for data in ended] == ["completed"] * 6
        stats = simulator.service.stats()
        assert (stats["faults"], stats["states"]) == (dict.fromkeys(SPOILING_FAULTS, 1), {"completed": 6})
        assert stats["micro_usd"]["billed"] == 6 * 189_900
        assert [task["problems"] for task in stats["tasks"].values()] == [[]] * 6


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("black", "it is black from 0.00 to 3.04 s"),
        ("frozen", "it is frozen from 0.00 to 3.04 s"),
        ("mute", "its sound cannot be heard"),
        ("short", "it is 1.50 s long instead of 3 s"),
        ("corrupt", "it cannot be decoded after "),
    ],
)
async def test_the_checks_of_the_cutting_room_find_it(spoiled: Any, fault: str, said: str) -> None:
    path, _ = spoiled(fault)
    [found] = await faults_of(path, ORDERED)
    assert found.startswith(said)


async def test_they_find_nothing_in_a_good_clip(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(good)
    assert await faults_of(path, ORDERED) == ()
