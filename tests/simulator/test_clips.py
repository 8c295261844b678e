"""The clips: probed and decoded, not trusted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from prefect_kling.simulator.ball import find_ball
from prefect_kling.simulator.barcode import Stamp, read, tag_of
from prefect_kling.simulator.config import MediaSpec
from prefect_kling.simulator.encode import Abandoned
from prefect_kling.simulator.order import ClipOrder, ScriptedShot
from prefect_kling.simulator.planes import Planes
from prefect_kling.simulator.render import render
from prefect_kling.simulator.rendered import Rendered
from prefect_kling.simulator.trace import Remembered, planes_of

SMALL = (320, 180)
Make = Callable[..., tuple[Path, Rendered]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Renders one clip; fields of its order may be given."""
    numbers = itertools.count()

    def rendered(prompt: str = "The sea at dusk", *, seconds: int = 3, **fields: Any) -> tuple[Path, Rendered]:
        path = tmp_path / f"{next(numbers)}.mp4"
        continued = fields.pop("continued", None)
        order = {
            "identity": "a", "task_id": "task-a", "shots": (ScriptedShot(prompt, seconds),), "size": SMALL, **fields,
        }  # fmt: skip
        return path, render(ClipOrder(**order), path, continued)

    return rendered


def frames(path: Path) -> list[Planes]:
    with av.open(str(path)) as container:
        return [planes_of(frame) for frame in container.decode(video=0)]


def apart(first: Planes, second: Planes) -> float:
    return float(np.abs(first.whole.astype(int) - second.whole.astype(int)).mean())


def ball(planes: Planes) -> np.ndarray[Any, Any]:
    place = find_ball(planes)
    assert place is not None
    return np.array(place)


def save_last(path: Path, to: Path) -> Path:
    with av.open(str(path)) as container:
        *_, last = container.decode(video=0)
        Image.fromarray(last.to_ndarray(format="rgb24")).save(to)
    return to


def test_a_clip_is_what_the_gateway_gives(make: Make) -> None:
    """H.264 high at x264's defaults, 24 fps, one frame over, BT.709, moov at the end, no sound (gateway.md)."""
    path, rendered = make(seconds=5, size=(1280, 720))
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
        assert (stream.codec.name, context.profile, context.pix_fmt) == ("h264", "High", "yuv420p")
        assert (stream.width, stream.height, stream.frames) == (1280, 720, 121)
        assert stream.average_rate == 24
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        packets = [packet for packet in container.demux(stream) if packet.size]
    assert len(packets) == 121
    assert sum(packet.is_keyframe for packet in packets) == 1
    assert any(packet.pts != packet.dts for packet in packets)
    data = path.read_bytes()
    assert b"bframes=3" in data
    assert b"keyint=250" in data
    assert data.index(b"mdat") < data.index(b"moov")
    assert rendered.seconds == pytest.approx(121 / 24)
    assert apart(frames(path)[-1], rendered.last) < 3


def test_takes_differ_and_the_same_take_does_not(make: Make) -> None:
    first, again, other = make(identity="a")[0], make(identity="a")[0], make(identity="b")[0]
    assert first.read_bytes() == again.read_bytes()
    assert apart(frames(first)[0], frames(other)[0]) > 2


def test_prompts_show_in_the_picture(make: Make) -> None:
    dawn, night = (frames(make(prompt)[0])[0] for prompt in ("A forest at dawn", "A city at night"))
    assert dawn.y.mean() > night.y.mean() + 25


def test_a_feature_continues_the_ball_in_a_new_picture(make: Make) -> None:
    before, _ = make("A lighthouse at dawn")
    after, _ = make("The keeper inside", feature=before, identity="b")
    last, first = frames(before)[-1], frames(after)[0]
    assert np.abs(ball(last) - ball(first)).max() < 0.01
    assert apart(last, first) > 5


@pytest.mark.parametrize("known", [True, False], ids=["remembered", "found in the picture"])
def test_a_first_frame_is_continued(make: Make, tmp_path: Path, known: bool) -> None:
    """The clip opens on the still; where the still is remembered, the ball also keeps its speed."""
    before, rendered = make("A lighthouse at dawn")
    still = save_last(before, tmp_path / "last.png")
    remembered = Remembered()
    remembered.add(rendered.last, rendered.trace)
    continued = remembered.find(still) if known else None
    assert (continued == rendered.trace) is known
    after, _ = make("Storm at night", first_frame=still, continued=continued, identity="b", size=None, shrink=4)
    old, new = frames(before), frames(after)
    assert apart(old[-1], new[0]) < 4
    assert np.abs(ball(old[-1]) - ball(new[0])).max() < 0.01
    if known:
        speed_before, speed_after = ball(old[-1]) - ball(old[-4]), ball(new[3]) - ball(new[0])
        assert np.abs(speed_before - speed_after).max() < 0.02
    assert apart(new[0], new[-1]) > 8


def test_stills_of_other_clips_are_not_taken_for_it(make: Make, tmp_path: Path) -> None:
    remembered = Remembered()
    for n, prompt in enumerate(("A lighthouse at dawn", "A city at night")):
        _, rendered = make(prompt, identity=str(n))
        remembered.add(rendered.last, rendered.trace)
    other, _ = make("A desert by day", identity="c")
    assert remembered.find(save_last(other, tmp_path / "c.png")) is None


def test_a_base_edit_keeps_frames_size_and_ball_and_changes_the_light(make: Make) -> None:
    before, _ = make("A lighthouse at dawn", size=(320, 240), sound=True)
    after, _ = make("Turn it into a storm at night", base=before, identity="b", size=None, keep_sound=True)
    old, new = frames(before), frames(after)
    assert len(old) == len(new) == 73
    assert old[0].size == new[0].size == (320, 240)
    assert min(apart(a, b) for a, b in zip(old, new, strict=True)) > 8
    for n in (0, 36, 72):
        assert np.abs(ball(old[n]) - ball(new[n])).max() < 0.02
    with av.open(str(before)) as a, av.open(str(after)) as b:
        sizes = [[packet.size for packet in container.demux(audio=0) if packet.size] for container in (a, b)]
    assert sizes[0] == sizes[1]
    silent, _ = make("Snow", base=before, identity="c")
    with av.open(str(silent)) as container:
        assert not container.streams.audio


def test_any_video_can_be_edited(make: Make, tmp_path: Path) -> None:
    """One that no simulator made, at 30 frames a second."""
    source = tmp_path / "other.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for n in range(90):
            picture = np.full((180, 320, 3), 40 + n, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    edited, _ = make("A red sunset", base=source)
    with av.open(str(edited)) as container:
        assert container.streams.video[0].average_rate == 30
        assert container.streams.video[0].frames == 90
    assert apart(frames(source)[0], frames(edited)[0]) > 5


def test_a_reference_image_is_seen(make: Make, tmp_path: Path) -> None:
    reference = tmp_path / "reference.png"
    Image.fromarray(np.tile(np.array([[[0, 190, 60]]], np.uint8), (400, 640, 1))).save(reference)
    plain, seen = (frames(make("The sea", references=given)[0])[0] for given in ((), (reference,)))
    sky = np.s_[30:60]
    assert seen.u[sky].mean() < plain.u[sky].mean() - 10
    more = frames(make("The sea", references=(reference, reference), elements=(3, 9))[0])[0]
    assert apart(more, seen) > 1


def test_an_end_frame_is_arrived_at(make: Make, tmp_path: Path) -> None:
    first, last = (save_last(make(p, identity=p)[0], tmp_path / f"{p[0]}.png") for p in ("Dawn", "Night in a city"))
    path, _ = make("Time passes", first_frame=first, end_frame=last, identity="z")
    wanted = Planes.of(np.ascontiguousarray(frames(path)[-1].whole))
    with Image.open(last) as image:
        luma = np.asarray(image.convert("L"), float)
    assert abs(wanted.y[30:150].mean() - (16 + luma[30:150].mean() * 219 / 255)) < 4


def test_several_shots_are_hard_cuts(make: Make) -> None:
    shots = (ScriptedShot("A desert by day", 1), ScriptedShot("A city at night", 2))
    path, _ = make(shots=shots)
    seen = frames(path)
    assert len(seen) == 73
    steps = [apart(a, b) for a, b in itertools.pairwise(seen)]
    assert int(np.argmax(steps)) == 23
    assert sorted(steps)[-2] * 4 < max(steps)


def test_every_frame_says_where_it_belongs(make: Make) -> None:
    shots = (ScriptedShot("Day", 1), ScriptedShot("Night", 2))
    path, _ = make(shots=shots, barcode=True, size=(640, 360))
    stamps = [read(planes.y) for planes in frames(path)]
    tag = tag_of("task-a")
    assert stamps == [Stamp(tag, int(n >= 24), n) for n in range(73)]
    edited, _ = make("Snow", base=path, barcode=True, task_id="task-b", identity="b")
    assert [read(planes.y) for planes in frames(edited)] == [Stamp(tag_of("task-b"), 0, n) for n in range(73)]


@pytest.mark.parametrize(
    ("spec", "sound", "over"),
    [("", True, (0.01, 0.06)), ("audio=short", True, (-0.53, -0.45)), ("audio=long", True, (0.47, 0.56)),
     ("silent_track=true", False, (0.01, 0.06))],
)  # fmt: skip
def test_sound_is_never_exactly_as_long_as_the_picture(
    make: Make, spec: str, sound: bool, over: tuple[float, float]
) -> None:
    path, rendered = make(sound=sound, media=MediaSpec.parse(spec))
    with av.open(str(path)) as container:
        audio = container.streams.audio[0]
        assert (audio.codec.name, audio.rate, audio.layout.name) == ("aac", 44100, "stereo")
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(audio)], axis=1)
    low, high = over
    assert low <= samples.shape[1] / 44100 - rendered.seconds <= high
    assert (float(np.abs(samples).max()) > 0.1) is sound


@pytest.mark.parametrize(("tag", "codec"), [("hvc1", "hevc"), ("hev1", "hevc"), ("avc1", "h264")])
def test_a_codec_and_tag_can_be_asked_for(make: Make, tag: str, codec: str) -> None:
    path, _ = make(media=MediaSpec.parse(f"codec={codec},tag={tag}"))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.codec_context.codec_tag) == (codec, tag)
        assert len(list(container.decode(stream))) == 73


def test_other_encoder_options_rate_and_size_can_be_asked_for(make: Make) -> None:
    path, _ = make(media=MediaSpec.parse("options=bframes=0:keyint=24,fps=30"), size=(200, 100))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert (stream.width, stream.height) == (200, 100)
        assert stream.average_rate == 30
    assert len(packets) == 91
    assert all(packet.pts == packet.dts for packet in packets)
    assert sum(packet.is_keyframe for packet in packets) == 4


def test_an_edit_list_hides_frames(make: Make) -> None:
    path, _ = make(media=MediaSpec(hidden_frames=24))
    assert b"elst" in path.read_bytes()
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert len(packets) == 73
    assert len(frames(path)) == 49


def test_frame_spacing_can_vary(make: Make) -> None:
    path, _ = make(media=MediaSpec(vfr=True))
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0) if frame.time is not None]
    steps = {round((b - a) * 24) for a, b in itertools.pairwise(times)}
    assert steps == {1, 2}
    assert times[-1] == pytest.approx(72 / 24)


def test_rendering_stops_when_nobody_wants_it(make: Make, tmp_path: Path) -> None:
    asked = iter([False, False, True])
    order = ClipOrder(identity="a", task_id="a", shots=(ScriptedShot("Sea", 15),), size=SMALL)
    with pytest.raises(Abandoned):
        render(order, tmp_path / "a.mp4", abandoned=lambda: next(asked))


async def test_a_public_video_has_a_stand_in(simulate: Any, finish: Any, order: dict[str, Any]) -> None:
    video = {"video_url": "https://videos.example.com/waves-at-night.mp4", "refer_type": "feature"}
    async with simulate() as (_, client):
        assert (await finish(client, {**order, "video_list": [video]}))["state"] == "completed"


async def test_a_request_chooses_its_own_media(
    simulate: Any, finish: Any, order: dict[str, Any], tmp_path: Path
) -> None:
    async with simulate() as (_, client):
        data = await finish(client, {**order, "external_task_id": "media:codec=hevc,silent_track=true"})
        path = tmp_path / "clip.mp4"
        path.write_bytes((await client.get(data["resultUrls"][0])).content)
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec.name == "hevc"
            assert len(container.streams.audio) == 1
        wrong = await client.post("video/generations", json={**order, "external_task_id": "media:codec=av1"})
        assert (wrong.status_code, "external_task_id" in wrong.json()["msg"]) == (400, True)


async def test_shots_chain_over_http_and_the_edit_is_billed_by_its_input(
    simulate: Any, finish: Any, order: dict[str, Any]
) -> None:
    async with simulate() as (simulator, client):
        first = await finish(client, {**order, "duration": "4"})
        (url,) = first["resultUrls"]
        base = {"model": "kling-v3-omni", "prompt": "Storm", "video_list": [{"video_url": url, "refer_type": "base"}]}
        edit = await finish(client, base)
        assert edit["state"] == "completed", simulator.service.stats()
        stats = simulator.service.stats()
        assert stats["micro_usd"]["billed"] == 2 * 4 * 63_300
        assert [task["problems"] for task in stats["tasks"].values()] == [[], []]


async def test_two_simulators_with_one_seed_make_the_same_clips_in_any_order(
    simulate: Any, finish: Any, order: dict[str, Any]
) -> None:
    made: list[dict[str, Any]] = []
    prompts = ["Dawn over a harbour", "A forest in fog"]
    for asked in (prompts, prompts[::-1]):
        async with simulate(seed=4) as (simulator, client):
            ids = {prompt: (await finish(client, {**order, "prompt": prompt}))["taskId"] for prompt in asked}
            made.append({prompt: simulator.service.tasks[ids[prompt]].sha256 for prompt in prompts})
    assert made[0] == made[1]
