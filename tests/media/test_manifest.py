"""The manifest: one document, written out, and what it is like where things are missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from prefect_kling.media.cut import Cut, CutClip
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.join import Film
from prefect_kling.media.loudness import Gain, Loudness
from prefect_kling.media.manifest import ShotRecord, manifest
from prefect_kling.media.soundtrack import Soundtrack
from prefect_kling.media.timeline import lay_out
from prefect_kling.media.transitions import Transition

FADE = Transition("crossfade", Fraction(1, 2))
SOURCE = {"prompt": "A storm", "model": "kling-v3-omni", "seconds": 5, "usd": 0.42, "take": 1, "task_id": "t1"}


@pytest.fixture
def film(as_probed: Callable[..., MediaFacts]) -> Film:
    clips = [
        CutClip(Path("/clips/dawn.mp4"), "dawn"),
        CutClip(
            Path("/clips/storm.mp4"),
            "storm",
            trim=(Fraction(1), None),
            transition=FADE,
            caption="It comes",
            narration=Path("/home/somebody/voice.wav"),
        ),
    ]
    facts = [as_probed(clip.path) for clip in clips]
    timeline = lay_out(clips, facts, Cut(title="Light", fade_in=Fraction(1)), Fraction(24))
    return Film(
        path=Path("/films/lighthouse.mp4"),
        frames=timeline.frames,
        seconds=timeline.seconds,
        width=1280,
        height=720,
        frame_rate=timeline.rate,
        bytes=1000,
        sha256="f" * 64,
        method="encode",
        reason="There is a transition.",
        sound=Soundtrack(Path("/work/pcm.f32"), Loudness(-20.04, -3.0), Gain(2.0, "The peak forbids more.")),
        timeline=timeline,
    )


def test_the_document(film: Film) -> None:
    shots = [
        ShotRecord("dawn", Path("/clips/dawn.mp4"), "a" * 64),
        ShotRecord("storm", "https://cdn.example.com/storm.mp4", "b" * 64, SOURCE),
    ]
    document = manifest(film, shots, title="Lighthouse", folder=Path("/films"))
    assert json.loads(json.dumps(document, allow_nan=False)) == {
        "version": 1,
        "title": "Lighthouse",
        "film": {
            "file": "lighthouse.mp4",
            "frames": 276,
            "seconds": 11.5,
            "frame_rate": "24",
            "width": 1280,
            "height": 720,
            "bytes": 1000,
            "sha256": "f" * 64,
            "method": "encode",
            "reason": "There is a transition.",
            "fade_in_frames": 24,
            "fade_out_frames": 0,
            "sound": {
                "measured_lufs": -20.04,
                "measured_dbtp": -3.0,
                "gain_db": 2.0,
                "lufs": -18.04,
                "remark": "The peak forbids more.",
            },
        },
        "shots": [
            {
                "id": "dawn",
                "start_frame": 72,
                "end_frame": 186,
                "start_seconds": 3.0,
                "end_seconds": 7.75,
                "transition": None,
                "clip": {
                    "file": "../clips/dawn.mp4",
                    "sha256": "a" * 64,
                    "frames": 120,
                    "first_frame": 0,
                    "shown_frames": 120,
                },
                "caption": "",
                "narration": None,
                "source": {},
            },
            {
                "id": "storm",
                "start_frame": 186,
                "end_frame": 276,
                "start_seconds": 7.75,
                "end_seconds": 11.5,
                "transition": {"kind": "crossfade", "frames": 12},
                "clip": {
                    "file": "https://cdn.example.com/storm.mp4",
                    "sha256": "b" * 64,
                    "frames": 120,
                    "first_frame": 24,
                    "shown_frames": 96,
                },
                "caption": "It comes",
                "narration": "voice.wav",
                "source": SOURCE,
            },
        ],
        "cards": [
            {
                "text": "Light",
                "start_frame": 0,
                "end_frame": 72,
                "start_seconds": 0.0,
                "end_seconds": 3.0,
                "transition": None,
            }
        ],
    }


def test_silence_and_no_sound_at_all(film: Film) -> None:
    shots = [ShotRecord(name, f"/clips/{name}.mp4", "a" * 64) for name in ("dawn", "storm")]
    silence = Loudness(-70.0, float("-inf"))
    quiet = replace(film, sound=Soundtrack(Path("/work/pcm.f32"), silence, Gain(0.0, "Too quiet to be set.")))
    sound = json.loads(json.dumps(manifest(quiet, shots, title="")["film"]["sound"], allow_nan=False))
    assert sound == {
        "measured_lufs": None,
        "measured_dbtp": None,
        "gain_db": 0.0,
        "lufs": None,
        "remark": "Too quiet to be set.",
    }
    assert manifest(replace(film, sound=None), shots, title="")["film"]["sound"] is None


def test_every_clip_has_a_record(film: Film) -> None:
    with pytest.raises(ValueError, match="shorter"):
        manifest(film, [ShotRecord("dawn", "/clips/dawn.mp4", "a" * 64)], title="")


def test_clips_that_are_kept_on_no_disk_stay_where_they_are(film: Film) -> None:
    shots = [ShotRecord(name, f"s3://bucket/clips/{name}.mp4", "a" * 64) for name in ("dawn", "storm")]
    files = [shot["clip"]["file"] for shot in manifest(film, shots, title="")["shots"]]
    assert files == ["s3://bucket/clips/dawn.mp4", "s3://bucket/clips/storm.mp4"]
