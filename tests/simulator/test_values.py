"""The pure parts: money, states, digests, forms, barcodes, the ball's path, scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.simulator.account import Account, NotEnough, usd
from prefect_kling.simulator.ball import Ball, ball_at, draw_ball, find_ball, start_ball, step
from prefect_kling.simulator.barcode import Stamp, read, stamp, tag_of
from prefect_kling.simulator.callbacks import retry_delays
from prefect_kling.simulator.config import MediaSpec
from prefect_kling.simulator.life import SimulatedTask, canonical_digest, task_id
from prefect_kling.simulator.multipart import parts
from prefect_kling.simulator.planes import from_rgb, to_rgb
from prefect_kling.simulator.scene import chance_of, next_scene, read_scene


def test_money_is_held_then_taken_or_given_back() -> None:
    account = Account(1_000_000)
    account.hold(400_000)
    account.hold(600_000)
    with pytest.raises(NotEnough):
        account.hold(1)
    account.take(400_000)
    account.release(600_000)
    assert (account.balance, account.frozen, account.taken) == (600_000, 0, 400_000)
    assert usd(316_500) == "0.3165"


def _task(order: dict[str, Any]) -> SimulatedTask:
    request = OmniVideoRequest.model_validate(order)
    return SimulatedTask("t", request, order, "d", 1, 1, 0.0, 10.0)


def test_a_task_goes_its_way_and_no_other(order: dict[str, Any]) -> None:
    task = _task(order)
    with pytest.raises(ValueError, match="pending cannot become completed"):
        task.become("completed", at=1.0)
    task.become("processing", at=2.0)
    task.become("completed", at=10.0)
    assert (task.completed_at, task.running) == (10.0, False)
    with pytest.raises(ValueError, match="completed cannot become failed"):
        task.become("failed", at=11.0)


def test_a_digest_is_of_what_is_ordered() -> None:
    content = {"http://127.0.0.1:1/files/a/x.png": "aa", "http://127.0.0.1:2/files/b/x.png": "aa"}
    bodies: list[dict[str, Any]] = [
        {"prompt": "x", "image_list": [{"image_url": url}], "callback_url": f"https://{n}.example"}
        for n, url in enumerate(content)
    ]
    first, second = (canonical_digest(body, content.get) for body in bodies)
    assert first == second
    assert canonical_digest({**bodies[0], "prompt": "y"}, content.get) != first
    assert task_id(1, first, 1, 5.0) != task_id(1, first, 2, 5.0)
    assert task_id(1, first, 1, 5.0) != task_id(1, first, 1, 6.0)


def test_a_form_is_split_byte_for_byte() -> None:
    content = b"\r\n--almost\r\n\x00\xff" + bytes(range(256))
    body = (
        b'--B0\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        b'--B0\r\nContent-Disposition: form-data; name="file"; filename="a b.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--B0--\r\n"
    )
    note, file = parts("multipart/form-data; boundary=B0", body)
    assert (note.name, note.filename, note.content) == ("note", None, b"hello")
    assert (file.name, file.filename, file.content_type, file.content) == ("file", "a b.png", "image/png", content)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=B", b"--B\r\n\r\nno end"),
        ("multipart/form-data; boundary=B", b"--B\r\nX: y\r\n\r\nno name\r\n--B--\r\n"),
    ],
)
def test_a_broken_form_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"form|Content-Type"):
        parts(content_type, body)


@pytest.mark.parametrize("size", [(1280, 720), (320, 180), (270, 480)])
def test_a_barcode_is_read_back(size: tuple[int, int]) -> None:
    luma = np.full((size[1], size[0]), 120, np.uint8)
    assert read(luma) is None
    stamp(luma, Stamp(tag_of("task"), 2, 4711))
    darker = (luma * 0.7 + 20).astype(np.uint8)
    assert read(darker) == Stamp(tag_of("task"), 2, 4711)


def test_the_ball_stays_in_the_picture_and_can_be_found() -> None:
    ball = start_ball(chance_of("ball"))
    for _ in range(600):
        ball = step(ball, 1 / 24)
        assert 0.1 < ball.x < 0.9
        assert 0.2 < ball.y < 0.7
    planes = from_rgb(np.full((360, 640, 3), 0.3, np.float32))
    assert find_ball(planes) is None
    draw_ball(planes, ball)
    x, y = find_ball(planes) or (0, 0)
    assert abs(x - ball.x) < 0.004
    assert abs(y - ball.y) < 0.006


def test_the_ball_moves_the_same_whether_in_one_go_or_in_two() -> None:
    ball = ball_at(0.4, 0.45)
    once, twice = step(ball, 2.0), step(step(ball, 1.2), 0.8)
    assert isinstance(once, Ball)
    assert once.x == pytest.approx(twice.x)
    assert once.vy == pytest.approx(twice.vy)


def test_colours_survive_the_planes() -> None:
    rgb = np.empty((4, 4, 3), np.float32)
    rgb[:] = (0.8, 0.5, 0.2)
    assert np.abs(to_rgb(from_rgb(rgb)) - rgb).max() < 0.02


def test_words_decide_a_scene_and_the_next_one_keeps_what_is_not_named() -> None:
    dawn = read_scene("A lighthouse on a cliff at dawn, overcast", "a")
    assert (dawn.light, dawn.place, dawn.things) == ("dawn", "sea", ("lighthouse",))
    storm = next_scene(dawn, "Turn it into a storm at night", "b", same_ground=True)
    assert (storm.light, storm.place, storm.seed) == ("storm", "sea", dawn.seed)
    assert set(storm.things) >= {"lighthouse", "rain"}
    keeper = next_scene(dawn, "Inside, the keeper climbs the stairs", "c", same_ground=False)
    assert (keeper.light, keeper.place) == ("dawn", "interior")
    assert keeper.seed != dawn.seed


def test_a_media_spec_is_read_from_text() -> None:
    spec = MediaSpec.parse("codec=hevc, tag=hev1,vfr=true,size=641x480")
    assert (spec.codec, spec.tag, spec.vfr, spec.pixels) == ("hevc", "hev1", True, (640, 480))
    assert MediaSpec.parse("fps=30", spec).codec == "hevc"
    for wrong in ("codec", "codec=av1", "colour=red", "size=big"):
        with pytest.raises(ValueError, match="media: "):
            MediaSpec.parse(wrong)


def test_callbacks_are_repeated_after_1_2_4_seconds_and_for_half_an_hour() -> None:
    delays = list(retry_delays())
    assert delays[:3] == [1, 2, 4]
    assert 29 * 60 <= sum(delays) <= 30 * 60
