"""The film as OpenTimelineIO: read back, everything lies where it lies in the film, and every file is found."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import opentimelineio as otio
import pytest

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.media.cut import Cut, CutClip, Music
from prefect_kling.media.exchange import check_installed, write_otio
from prefect_kling.media.facts import AudioFacts, MediaFacts
from prefect_kling.media.timeline import Timeline, lay_out
from prefect_kling.media.transitions import Transition

SOUND = AudioFacts(1, "aac", "LC", 44_100, 2, 215, Fraction(0), Fraction(5))
FADE, WIPE = Transition("crossfade", Fraction(1, 2)), Transition("wipe", Fraction(3, 8))
RATES = [Fraction(24), Fraction(24_000, 1001)]
AsProbed = Callable[..., MediaFacts]


def laid_out(as_probed: AsProbed, folder: Path, rate: Fraction, **cut: Any) -> tuple[Timeline, Cut]:
    """Four clips: two with sound, one trimmed, one captioned, over two transitions and two hard cuts."""
    clips = [
        CutClip(folder / "clips" / "a b.mp4", "dawn"),
        CutClip(folder / "clips" / "100%#.mp4", "storm", transition=FADE, trim=(Fraction(1), Fraction(4))),
        CutClip(folder / "clips" / "ü.mp4", "keeper", caption="He climbs"),
        CutClip(folder / "clips" / "d.mp4", "lamp", transition=WIPE, narration=folder / "voice.wav"),
    ]
    facts = [as_probed(clip.path, 121, rate) for clip in clips]
    facts[0], facts[3] = replace(facts[0], audio=SOUND), replace(facts[3], audio=SOUND)
    film = Cut(title="Lighthouse", end_card="The end", transition=FADE, **cut)
    return lay_out(clips, facts, film, rate), film


def read_back(path: Path) -> otio.schema.Timeline:
    return otio.adapters.read_from_file(str(path))


def frames(time: otio.opentime.RationalTime) -> int:
    assert time.value == int(time.value)
    return int(time.value)


def items(track: otio.schema.Track) -> list[Any]:
    return [child for child in track if not isinstance(child, otio.schema.Transition)]


@pytest.mark.parametrize("rate", RATES)
def test_what_is_read_back_lies_where_it_lies_in_the_film(as_probed: AsProbed, tmp_path: Path, rate: Fraction) -> None:
    timeline, cut = laid_out(as_probed, tmp_path, rate)
    out = tmp_path / "film.otio"
    write_otio(timeline, cut, out, "Lighthouse", folder=out.parent)
    document = read_back(out)
    picture, sound = document.tracks[0], document.tracks[1]
    assert (document.name, frames(document.duration())) == ("Lighthouse", timeline.frames)
    nothing = otio.opentime.RationalTime(0, float(rate))
    for track in (picture, sound):
        assert frames(track.duration()) == timeline.frames
        assert len(items(track)) == len(timeline.scenes)
        for item, scene in zip(items(track), timeline.scenes, strict=True):
            lies = item.trimmed_range_in_parent()
            assert lies == item.range_in_parent()
            assert (frames(lies.start_time), frames(lies.end_time_exclusive())) == scene.seen
            assert lies.start_time.rate == float(rate)
    for item, scene in zip(items(picture), timeline.scenes, strict=True):
        # With its transitions it shows exactly the frames that the film shows of it, and the file has all of them.
        before, after = picture.handles_of_child(item)
        begins = item.source_range.start_time - (before or nothing)
        ends = item.source_range.end_time_exclusive() + (after or nothing)
        assert (frames(begins), frames(ends)) == (scene.first, scene.first + scene.frames)
        whole = item.available_range()
        assert whole.start_time <= begins
        assert ends <= whole.end_time_exclusive()
    assert [frames(items(picture)[n].available_range().duration) for n in (0, 1, 5)] == [72, 121, 72]
    assert [type(item).__name__ for item in items(sound)] == ["Gap", "Clip", "Gap", "Gap", "Clip", "Gap"]
    assert [item.name for item in items(picture)] == ["Card", "dawn", "storm", "keeper", "lamp", "Card"]


def test_words_and_transitions_are_named(as_probed: AsProbed, tmp_path: Path) -> None:
    timeline, cut = laid_out(as_probed, tmp_path, Fraction(24), fade_in=Fraction(1), loudness=-14.0)
    write_otio(timeline, cut, tmp_path / "film.otio", "Lighthouse", folder=tmp_path)
    document = read_back(tmp_path / "film.otio")
    picture = document.tracks[0]
    assert [(m.name, m.marked_range == c.source_range) for c in items(picture) for m in c.markers] == [
        ("Lighthouse", True),
        ("He climbs", True),
        ("The end", True),
    ]
    card = items(picture)[0].media_reference
    assert (card.generator_kind, card.parameters["text"]) == ("card", "Lighthouse")
    found = [child for child in picture if isinstance(child, otio.schema.Transition)]
    assert [(t.name, t.transition_type) for t in found] == [
        ("crossfade", "SMPTE_Dissolve"),
        ("crossfade", "SMPTE_Dissolve"),
        ("wipe", "Custom_Transition"),
        ("crossfade", "SMPTE_Dissolve"),
    ]
    assert [frames(t.duration()) for t in found] == [12, 12, 9, 12]
    assert dict(document.metadata["prefect-kling"]) == {
        "version": 1,
        "frame_rate": "24",
        "frames": timeline.frames,
        "fade_in_frames": 24,
        "fade_out_frames": 0,
        "fit": "pad",
        "loudness": -14.0,
    }


def test_files_are_found_from_where_the_document_lies(as_probed: AsProbed, tmp_path: Path) -> None:
    """Whatever their names hold; and nothing names the folder above them, so that all of it can be moved."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "films").mkdir()
    timeline, cut = laid_out(as_probed, tmp_path, Fraction(24))
    out = tmp_path / "films" / "film.otio"
    write_otio(timeline, cut, out, "Lighthouse", folder=out.parent)
    assert str(tmp_path) not in out.read_text("utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["film.otio"]
    document = read_back(out)
    clips = [clip for clip in items(document.tracks[0]) if clip.name != "Card"]
    assert [clip.media_reference.target_url for clip in clips] == [
        "../clips/a%20b.mp4",
        "../clips/100%25%23.mp4",
        "../clips/%C3%BC.mp4",
        "../clips/d.mp4",
    ]
    paths = [otio.url_utils.filepath_from_url(clip.media_reference.target_url) for clip in clips]
    shown = [scene.source.path for scene in timeline.scenes if isinstance(scene.source, MediaFacts)]
    assert [(out.parent / path).resolve() for path in paths] == [path.resolve() for path in shown]


def test_files_that_are_kept_elsewhere_are_named_where_they_are_kept(as_probed: AsProbed, tmp_path: Path) -> None:
    timeline, cut = laid_out(as_probed, tmp_path, Fraction(24))
    first, second, third, fourth = (s.source.path for s in timeline.scenes if isinstance(s.source, MediaFacts))
    locations = {
        first: "https://cdn.example.com/clips/dawn.mp4?v=1",
        second: "/kling/clips/storm 1.mp4",
        third: "s3://bucket/keeper.mp4",
    }
    out, home = tmp_path / "film.otio", Path("/kling/films")
    write_otio(timeline, cut, out, "Lighthouse", folder=home, locations=locations)
    document = read_back(out)
    urls = [clip.media_reference.target_url for clip in items(document.tracks[0]) if clip.name != "Card"]
    assert urls[:3] == [
        "https://cdn.example.com/clips/dawn.mp4?v=1",
        "../clips/storm%201.mp4",
        "s3://bucket/keeper.mp4",
    ]
    assert (home / urls[3]).resolve() == fourth.resolve()
    write_otio(timeline, cut, out, "Lighthouse", folder=None, locations=locations)
    assert str(tmp_path) not in out.read_text("utf-8")
    assert '"target_url": "d.mp4"' in out.read_text("utf-8")


def test_music_and_voices(as_probed: AsProbed, tmp_path: Path) -> None:
    bed, voice = tmp_path / "bed.mp3", tmp_path / "voice.wav"
    clips = [CutClip(tmp_path / f"{n}.mp4", str(n), narration=voice if n != 1 else None) for n in range(4)]
    facts = [as_probed(clip.path) for clip in clips]
    cut = Cut(music=Music(bed, gain=-9.0), sound=False)
    timeline = lay_out(clips, facts, cut, Fraction(24))
    out = tmp_path / "film.otio"

    def tracks(**more: Any) -> dict[str, list[list[tuple[str, int]]]]:
        write_otio(timeline, cut, out, "Film", folder=tmp_path, **more)
        found: dict[str, list[list[tuple[str, int]]]] = {}
        document = read_back(out)
        for track in document.tracks:
            found.setdefault(track.name, []).append([(item.name, frames(item.duration())) for item in items(track)])
        return found

    known = tracks(lengths={bed: Fraction(9), voice: Fraction(6)})
    assert list(known) == ["Picture", "Narration", "Music"]
    assert known["Music"] == [[("bed", 216), ("bed", 216), ("bed", 48)]]
    # The third begins before the second is over.
    assert known["Narration"] == [[("voice", 144), ("", 96), ("voice", 144)], [("", 360), ("voice", 120)]]
    unknown = tracks()
    assert unknown["Music"] == [[("bed", 480)]]
    assert unknown["Narration"] == [[("voice", 240), ("voice", 120), ("voice", 120)]]
    document = read_back(out)
    assert dict(document.tracks[-1].metadata["prefect-kling"]) == {
        "gain_db": -9.0,
        "fade_seconds": 2.0,
        "ducking": True,
    }


def test_it_travels_with_its_media_as_one_file(
    shots: list[Path], as_probed: AsProbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [CutClip(shot, shot.stem) for shot in shots]
    cut = Cut()
    timeline = lay_out(clips, [as_probed(clip.path, 12) for clip in clips], cut, Fraction(24))
    write_otio(timeline, cut, tmp_path / "film.otio", "Film", folder=tmp_path)
    monkeypatch.chdir(tmp_path)  # that adapter looks for relative names from there
    otio.adapters.write_to_file(read_back(tmp_path / "film.otio"), "film.otioz")
    packed = otio.adapters.read_from_file("film.otioz")
    assert [clip.media_reference.target_url for clip in packed.find_clips()] == [f"media/{s.name}" for s in shots]
    assert [frames(clip.range_in_parent().start_time) for clip in packed.find_clips()] == [0, 12, 24]


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    with pytest.raises(StoryboardError, match=r"pip install 'prefect-kling\[edit\]'"):
        check_installed()
