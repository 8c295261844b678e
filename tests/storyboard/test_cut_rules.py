"""What cannot be cut is told with its place before anything is bought; what merely does nothing is a warning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.gateway.limits import VideoFacts
from prefect_kling.storyboard.document import Storyboard
from prefect_kling.storyboard.plan import Plan, plan
from prefect_kling.storyboard.reader import Document, document_of, read_storyboard

Read = Callable[..., Document]

ONE = "title: T\nshots:\n  - id: a\n    prompt: x\n"
TWO = ONE + "  - id: b\n    prompt: x\n"


def refused(document: Document, **more: Any) -> list[str]:
    with pytest.raises(StoryboardError) as caught:
        plan(document, **more)
    return str(caught.value).split("\n")


MISTAKES = {
    "a transition into the first shot": (
        ONE + "    transition: wipe\n",
        "5:17: shot 'a': transition: this is the film's first shot, and nothing goes over into",
    ),
    "a transition into the first shot that is shown": (
        ONE + "    in_cut: no\n  - id: b\n    prompt: x\n    transition: black\n",
        "8:17: shot 'b': transition: this is the film's first shot",
    ),
    "in after out": (
        TWO + "    trim: [3, 2.5]\n",
        "7:11: shot 'b': trim: in (3 s) has to be before out (2.5 s)",
    ),
    "a trim beyond the end": (
        TWO + "    trim: [3, 5.5]\n",
        "7:11: shot 'b': trim: its clip lasts 5 s, and this goes to 5.5 s",
    ),
    "nothing left": (
        TWO + "    trim: [5, 0]\n",
        "7:11: shot 'b': trim: its clip lasts 5 s, so nothing is left of it",
    ),
    "a trim of an edit": (
        TWO + "    base: a\n    trim: [0, 6]\n",
        "8:11: shot 'b': trim: its clip lasts 5 s, and this goes to 6 s",
    ),
    "transitions on both sides": (
        TWO + "    trim: [1, 3]\n  - id: c\n    prompt: x\ncut:\n  transition: crossfade\n  transition_length: 1\n",
        "12:22: cut.transition_length: shot 'b' is seen for 2 s, and the transitions around it",
    ),
    "a shot's own transition": (
        TWO + "    trim: [1, 3]\n    transition: wipe\n    transition_length: 2\n",
        "9:24: shot 'b': transition_length: shot 'b' is seen for 2 s",
    ),
    "the next shot's transition": (
        TWO + "    trim: [1, 2]\n  - id: c\n    prompt: x\n    transition: wipe\ncut:\n  transition_length: 1\n",
        "10:17: shot 'c': transition: shot 'b' is seen for 1 s",
    ),
    "a card": (
        ONE + "cut:\n  title: T\n  transition: crossfade\n  transition_length: 3\n",
        "8:22: cut.transition_length: a card is seen for 3 s, and the transitions around it ta",
    ),
    "an end card": (
        ONE + "cut:\n  end_card: T\n  transition: crossfade\n  transition_length: 3\n",
        "8:22: cut.transition_length: a card is seen for 3 s",
    ),
    "fades": (
        ONE + "    duration: 3\ncut:\n  fade_in: 1.5\n  fade_out: 1.6\n",
        "8:13: cut.fade_out: the film lasts 3 s, less than fade_in and fade_out together take",
    ),
    "a poster": (
        TWO + "cut:\n  poster_at: 10\n",
        "8:14: cut.poster_at: the film lasts 10 s, so there is no picture",
    ),
    "music without a file": (
        TWO + "cut:\n  music:\n    gain: -6\n",
        "9:5: cut.music: no file is named; say file: bed.mp3",
    ),
    "music that is not there": (
        TWO + "cut:\n  music: bed.mp3\n",
        "8:10: cut.music.file: there is no file '",
    ),
    "music of a folder": (
        TWO + "cut:\n  music: .\n",
        "8:10: cut.music.file: ",
    ),
    "music outside": (
        TWO + "cut:\n  music:\n    file: ../bed.mp3\n",
        "9:11: cut.music.file: '../bed.mp3' is outside the document's folder; move it there, o",
    ),
    "music of the web": (
        TWO + "cut:\n  music: https://example.com/bed.mp3\n",
        "8:10: cut.music.file: 'https://example.com/bed.mp3' is a URL; download it, and name t",
    ),
    "music of an object store": (
        TWO + "cut:\n  music: s3://bucket/bed.mp3\n",
        "8:10: cut.music.file: 's3://bucket/bed.mp3'",
    ),
    "a name that is too long": (
        TWO + f"    narration: {'v' * 300}.wav\n",
        "7:16: shot 'b': narration: there is no file '",
    ),
    "narration that is not there": (
        TWO + "    narration: v.wav\n",
        "7:16: shot 'b': narration: there is no file '",
    ),
    "a font that is none": (
        TWO + "cut:\n  font: film.yaml\n",
        "8:9: cut.font: a font is a TrueType or OpenType file, with a name that ends in .ttf, ",
    ),
    "a font that is not there": (
        TWO + "cut:\n  font: serif.TTF\n",
        "8:9: cut.font: there is no file '",
    ),
    "no kind of transition": (
        TWO + "cut:\n  transition: crosfade\n",
        "8:15: cut.transition: there is no transition 'crosfade'; did you mean 'crossfade'?",
    ),
    "nothing like a kind of transition": (
        TWO + "    transition: 7up\n",
        "7:17: shot 'b': transition: there is no transition '7up'; there are: cut, crossfade, ",
    ),
    "no size": (
        TWO + "cut:\n  size: wide\n",
        "8:9: cut.size: 'wide' is no size; write WIDTHxHEIGHT in pixels",
    ),
    "an odd size": (
        TWO + "cut:\n  size: 101x100\n",
        "8:9: cut.size: width and height have to be even, as",
    ),
    "a louder film": (
        TWO + "cut:\n  loudness: -3\n",
        "8:13: cut.loudness: takes -36 to -6 LUFS, or 0 to leave the level",
    ),
    "a loudness in words": (
        TWO + "cut:\n  loudness: loud\n",
        "8:13: cut.loudness: takes a number of LUFS, not 'loud'",
    ),
    "a gain that is none": (
        TWO + "cut:\n  music:\n    gain: true\n",
        "9:11: cut.music.gain: takes a number of dB, not true",
    ),
    "a field of music that there is not": (
        TWO + "cut:\n  music:\n    gian: 1\n",
        "9:5: cut.music.gian: there is no such field; did you mean 'gain'?",
    ),
    "music in a list": (
        TWO + "cut:\n  music: [bed.mp3]\n",
        "8:10: cut.music: takes a file, or fields such as file: bed.mp3 and gain: -12, not a l",
    ),
    "a trim of one number": (
        TWO + "    trim: 2\n",
        "7:11: shot 'b': trim: takes two numbers of seconds, [in, out]; out 0 means to the cli",
    ),
    "a trim in words": (
        TWO + "    trim: [1, later]\n",
        "7:15: shot 'b': trim.1: takes a number of seconds, not 'later'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_cut_is_told_at_its_place(read: Read, name: str) -> None:
    text, told = MISTAKES[name]
    with pytest.raises(StoryboardError) as caught:
        plan(read(text))
    (line,) = str(caught.value).split("\n")
    assert line.startswith(f"film.yaml:{told}")


GOOD = {
    "transitions that leave a little": TWO + "    trim: [1, 3.1]\n  - id: c\n    prompt: x\ncut:\n"
    "  transition: crossfade\n  transition_length: 1\n",
    "a title card before the first transition": "title: T\nshots:\n  - id: a\n    prompt: x\n    transition: wipe\n"
    "cut:\n  title: T\n",
    "an explicit hard cut first": "title: T\nshots:\n  - id: a\n    prompt: x\n    transition: cut\n",
    "fades that take the whole film": TWO + "cut:\n  fade_in: 5\n  fade_out: 5\n",
    "a poster in the last second": TWO + "cut:\n  poster_at: 9.9\n",
    "a trim to the end": TWO + "    trim: [4.5, 5]\n",
    "nobody knows how long it is": TWO + "    base: https://example.com/v.mp4\n    trim: [9, 0]\n"
    "cut:\n  fade_out: 10\n  poster_at: 60\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_cut_is_taken(read: Read, name: str) -> None:
    assert plan(read(GOOD[name])).shots


def test_an_edit_of_a_probed_file_is_held_against_its_own_length(read: Read, folder: Path) -> None:
    (folder / "v.mp4").touch()
    videos = {str(folder / "v.mp4"): VideoFacts(4.25, 1280, 720, 24, 1000)}
    text = TWO + "    base: v.mp4\n    trim: [0, {}]\n"
    assert float(plan(read(text.format(4.25)), videos=videos).film_seconds) == 9.25
    (line,) = refused(read(text.format(4.3)), videos=videos)
    assert line.endswith("its clip lasts 4.25 s, and this goes to 4.3 s")


def test_files_may_be_elsewhere_where_that_is_allowed(folder: Path) -> None:
    (folder / "films").mkdir()
    (folder / "bed.mp3").touch()
    (folder / "films" / "film.yaml").write_text(TWO + "cut:\n  music: ../bed.mp3\n")
    found = plan(read_storyboard("films/film.yaml", allow_outside=True))
    assert found.cut.music is not None
    assert found.cut.music.path == folder / "bed.mp3"
    (folder / "films" / "film.yaml").write_text(TWO + "cut:\n  music: memory://bed.mp3\n")
    (line,) = refused(read_storyboard("films/film.yaml", allow_outside=True))
    assert line.endswith("'memory://bed.mp3' is no file on this machine; copy it there, and name the copy")


def test_a_link_that_leads_outside_is_not_followed(read: Read, folder: Path, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside") / "bed.mp3"
    outside.touch()
    (folder / "bed.mp3").symlink_to(outside)
    (line,) = refused(read(TWO + "cut:\n  music: bed.mp3\n"))
    assert "'bed.mp3' leads by a link outside the document's folder" in line


@pytest.mark.parametrize(("root", "comes"), [(None, "was typed in"), ("https://example.com/", "comes from https://")])
def test_only_a_document_on_this_machine_names_files_for_the_film(root: str | None, comes: str) -> None:
    typed = document_of(
        Storyboard.model_validate({"title": "T", "shots": [{"id": "a", "prompt": "x"}], "cut": {"music": "bed.mp3"}})
    )
    (line,) = refused(Document(typed.storyboard, "film", root, typed.digest))
    assert line == (
        f"film: cut.music.file: 'bed.mp3' has to be a file beside the document, and this one {comes}; save it as a "
        "file on this machine, with the file beside it"
    )


def warned(found: Plan) -> dict[str, tuple[str, ...]]:
    return {shot.id: shot.warnings for shot in found.shots if shot.warnings}


def test_what_has_no_effect_is_a_warning(read: Read) -> None:
    text = (
        TWO + "    transition_length: 1\n  - id: c\n    prompt: x\n    in_cut: no\n    caption: x\n    trim: [1, 2]\n"
    )
    assert warned(plan(read(text))) == {
        "b": ("transition_length: it has no effect on a hard cut; say a transition as well",),
        "c": tuple(f"{name}: it has no effect, as the film does not show this shot" for name in ("trim", "caption")),
    }
    assert warned(plan(read(TWO + "    transition_length: 1\ncut:\n  transition: wipe\n"))) == {}


SHORT = (
    "title: T\nshots:\n  - id: a\n    prompt: x\n    trim: [0, 1]\n  - id: b\n    prompt: x\n  - id: c\n    prompt: x\n"
    "    transition: wipe\n    transition_length: 2\ncut:\n  fade_out: 3\n"
)


def test_a_film_of_some_shots_is_checked_as_it_would_be_cut(read: Read) -> None:
    document = read(SHORT)
    whole = plan(document)
    for ids in (["a", "b"], ["b", "c"], ["c"], ["a", "b", "c"]):
        whole.only(ids).check_film(document)
    with pytest.raises(StoryboardError) as caught:
        whole.only(["a", "c"]).check_film(document)
    assert str(caught.value) == (
        "film.yaml:11:24: shot 'c': transition_length: in a film of these shots alone, shot 'a' is seen for 1 s, and "
        "the transitions around it take 2 s, so that nothing of it is seen alone; make them shorter, or cut hard"
    )
    with pytest.raises(
        StoryboardError, match=r"13:13: cut\.fade_out: in a film of these shots alone, the film lasts 1 s"
    ):
        whole.only(["a"]).check_film(document)


def test_variables_fill_in_the_cut(read: Read) -> None:
    text = (
        TWO
        + '    caption: "{{ words }}"\n    trim: ["{{ from }}", "{{ to }}"]\n'
        + 'cut:\n  loudness: "{{ level }}"\n  title: "{{ words }}"\n'
    )
    found = plan(read(text, {"words": "Two\nlines", "from": "0.5", "to": "3", "level": "-23"}))
    assert (found.cut.loudness, found.cut.title) == (-23, "Two\nlines")
    assert (found.shot_cuts[1].caption, float(found.shot_cuts[1].seconds or 0)) == ("Two\nlines", 2.5)
