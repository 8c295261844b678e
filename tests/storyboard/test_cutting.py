"""From a document's cut to the cutting room's: exact, in the film's order, and told apart by a recipe."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from prefect_kling.media.cut import Cut, CutClip, Music
from prefect_kling.media.transitions import HARD, Transition
from prefect_kling.storyboard import cutting
from prefect_kling.storyboard.cutting import ShotCut, film_seconds, recipe, stretches
from prefect_kling.storyboard.document import Storyboard
from prefect_kling.storyboard.drafts import draft_of
from prefect_kling.storyboard.plan import Plan, plan
from prefect_kling.storyboard.reader import Document, document_of

Read = Callable[..., Document]


def planned(*shots: dict[str, Any], **cut: Any) -> Plan:
    """The plan of typed-in shots of 5 s, which get the ids a, b, c …"""
    named = [{"id": "abcdefgh"[n], "prompt": "x"} | shot for n, shot in enumerate(shots)]
    return plan(document_of(Storyboard.model_validate({"title": "T", "shots": named, "cut": cut})))


def kinds(found: Plan) -> list[tuple[str, str, float]]:
    return [(shot.title, shot.transition.kind, float(shot.transition.seconds)) for shot in found.shot_cuts]


def test_a_document_that_says_nothing_is_cut_as_the_cutting_room_would() -> None:
    found = planned({}, {})
    assert found.cut == Cut()
    five = Fraction(5)
    assert found.shot_cuts == (ShotCut("a", seconds=five), ShotCut("b", seconds=five))
    assert found.shot_cuts[0].at(Path("a.mp4")) == CutClip(Path("a.mp4"), "a")
    assert (found.film.poster_at, found.film.otio, float(found.film_seconds)) == (None, False, 10.0)


def test_every_field_of_the_cut_arrives(read: Read, folder: Path) -> None:
    for name in ("bed.mp3", "voice.wav", "serif.ttf"):
        (folder / name).touch()
    found = plan(
        read(
            "title: T\nshots:\n  - {id: a, prompt: x}\n"
            "  - {id: b, prompt: x, continues: a, narration: voice.wav, caption: ' Two ', trim: [0, 4.7]}\n"
            "cut:\n  transition: crossfade\n  transition_length: 0.1\n  fade_in: 0.3\n  fade_out: 1\n"
            "  size: 1080x1920\n  fit: crop\n  codec: h264\n  loudness: 0\n  sound: none\n  captions: burn\n"
            "  title: T\n  end_card: Fin\n"
            "  font: serif.ttf\n  poster_at: 2.2\n  otio: yes\n  drop_repeat: yes\n"
            "  music:\n    file: bed.mp3\n    gain: -6.5\n    loop: no\n    fade: 0.7\n    ducking: no\n"
        )
    )
    tenth = Transition("crossfade", Fraction(1, 10))
    assert found.cut == Cut(
        transition=tenth,
        fade_in=Fraction(3, 10),
        fade_out=Fraction(1),
        size=(1080, 1920),
        fit="crop",
        codec="h264",
        loudness=None,
        sound=False,
        music=Music(folder / "bed.mp3", -6.5, False, Fraction(7, 10), False),
        captions="burn",
        title="T",
        end_card="Fin",
        font=folder / "serif.ttf",
    )
    assert {
        field.name for field in dataclasses.fields(Cut) if getattr(found.cut, field.name) == getattr(Cut(), field.name)
    } == {"card_seconds"}
    _, second = found.shot_cuts
    assert second.at(Path("b.mp4")) == CutClip(
        Path("b.mp4"),
        "b",
        None,
        (Fraction(0), Fraction(47, 10)),
        tenth,
        True,
        "Two",
        folder / "voice.wav",
    )
    assert (found.film.poster_at, found.film.otio) == (Fraction(11, 5), True)


@pytest.mark.parametrize(
    ("trim", "kept", "seconds"),
    [
        ([], None, 5.0),
        ([0, 0], None, 5.0),
        ([0.1, 0], (Fraction(1, 10), None), 4.9),
        ([0, "2.5"], (Fraction(0), Fraction(5, 2)), 2.5),
        ([1, 4.04], (Fraction(1), Fraction(101, 25)), 3.04),
    ],
)
def test_a_trim_is_what_was_written(trim: list[Any], kept: object, seconds: float) -> None:
    (shot,) = planned({"trim": trim}).shot_cuts
    assert shot.trim == kept
    assert float(shot.seconds or 0) == seconds


def test_an_edit_of_a_video_that_nobody_knows_has_no_length_unless_it_is_trimmed() -> None:
    clip = "https://example.com/clip.mp4"
    found = planned({"base": clip}, {"base": clip, "trim": [1, 3]}, {"base": "a"})
    assert [shot.seconds for shot in found.shot_cuts] == [None, 2, None]
    assert float(found.film_seconds) == 22.0


def test_a_shot_says_its_own_transition_and_the_first_one_has_none() -> None:
    shots: list[dict[str, Any]] = [{}, {}, {"transition": "cut"}, {"transition": "wipe"}, {"transition_length": 1}]
    found = planned(*shots, transition="crossfade", transition_length=0.25)
    assert kinds(found) == [
        ("a", "cut", 0),
        ("b", "crossfade", 0.25),
        ("c", "cut", 0),
        ("d", "wipe", 0.25),
        ("e", "crossfade", 1),
    ]
    assert float(found.film_seconds) == 25 - 0.25 - 0.25 - 1


@pytest.mark.parametrize(
    ("said", "transition"),
    [
        ({}, Transition("crossfade", Fraction(1, 2))),
        ({"transition": "white"}, Transition("white", Fraction(1, 2))),
        ({"transition_length": 2}, Transition("crossfade", Fraction(2))),
    ],
)
def test_a_title_card_goes_over_into_the_first_shot(said: dict[str, Any], transition: Transition) -> None:
    (shot,) = planned(said, transition="crossfade", title="T").shot_cuts
    assert shot.transition == transition


def test_a_hard_cut_from_the_title_card_is_told_apart_from_nothing_said() -> None:
    """The cutting room takes a first clip without any transition to go by the cut's."""
    (shot,) = planned({"transition": "cut"}, transition="crossfade", title="T").shot_cuts
    assert shot.transition != HARD
    assert shot.transition.xfade is None
    found = planned({"transition": "cut"}, transition="crossfade", title="T")
    assert float(found.film_seconds) == 8.0


def test_cards_are_part_of_the_film() -> None:
    found = planned({}, transition="crossfade", title="T", end_card="Fin")
    assert [(part.shot, float(part.before), float(part.after)) for part in stretches(found.cut, found.shot_cuts)] == [
        ("", 0, 0.5),
        ("a", 0.5, 0.5),
        ("", 0.5, 0),
    ]
    assert float(found.film_seconds) == 10.0
    assert film_seconds(found.cut, (ShotCut("a"),), {"a": Fraction(7)}) == 13 - Fraction(1, 2)


def test_words_of_nothing_but_space_are_no_words() -> None:
    found = planned({"caption": " \n"}, title=" ", end_card="\t")
    assert (found.cut.title, found.cut.end_card, found.shot_cuts[0].caption) == ("", "", "")


CONTINUED: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "it continues the one before": ([{}, {"continues": "a"}], ["b"]),
    "its first frame is the last of the one before": ([{}, {"first_frame": "a"}], ["b"]),
    "a chain": ([{}, {"continues": "a"}, {"continues": "b"}], ["b", "c"]),
    "another shot is between": ([{}, {}, {"continues": "a"}], []),
    "the film does not show what it continues": ([{"in_cut": False}, {"continues": "a"}], []),
    "what is between is not shown": ([{}, {"in_cut": False}, {"continues": "a"}], ["c"]),
    "the end of the one before is cut off": ([{"trim": [0, 4]}, {"continues": "a"}], []),
    "the beginning of the one before is cut off": ([{"trim": [1, 0]}, {"continues": "a"}], ["b"]),
    "its own beginning is cut off": ([{}, {"continues": "a", "trim": [1, 0]}], []),
    "its own end is cut off": ([{}, {"continues": "a", "trim": [0, 4]}], ["b"]),
    "it only goes on in the look": ([{}, {"feature": "a"}], []),
    "it only ends on it": ([{}, {"first_frame": "https://example.com/x.png", "end_frame": "a"}], []),
}


@pytest.mark.parametrize("name", CONTINUED)
def test_a_repeated_frame_is_dropped_where_it_is_seen_twice_and_that_is_wanted(name: str) -> None:
    shots, repeating = CONTINUED[name]
    assert [shot.title for shot in planned(*shots, drop_repeat=True).shot_cuts if shot.repeats] == repeating
    assert not any(shot.repeats for shot in planned(*shots).shot_cuts)


def test_a_film_of_some_shots_is_cut_as_they_come() -> None:
    shots: list[dict[str, Any]] = [{}, {"continues": "a", "transition": "black"}, {"continues": "b"}, {"in_cut": False}]
    whole = planned(*shots, transition="crossfade", drop_repeat=True, poster_at=8)
    part = whole.only(["b", "c"])
    assert kinds(part) == [("b", "cut", 0), ("c", "crossfade", 0.5)]
    assert [shot.repeats for shot in part.shot_cuts] == [False, True]
    assert part.film.poster_at == 8
    assert whole.only(["c"]).film.poster_at is None
    # What only others need is shown where it is asked for.
    assert kinds(whole.only(["a", "d"])) == [("a", "cut", 0), ("d", "crossfade", 0.5)]


def test_a_draft_is_cut_the_same() -> None:
    shots = [{"id": "a", "prompt": "x", "trim": [1, 0]}, {"id": "b", "prompt": "x", "transition": "wipe"}]
    document = document_of(Storyboard.model_validate({"title": "T", "shots": shots, "cut": {"title": "T"}}))
    assert plan(draft_of(document)).film == plan(document).film


def test_a_document_that_is_cut_in_another_way_buys_the_same() -> None:
    shots = [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "x", "continues": "a"}]
    of_the_cut = {"trim": [1, 0], "caption": "x", "transition": "wipe", "transition_length": 1}
    other = [shots[0], shots[1] | of_the_cut]
    plain = document_of(Storyboard.model_validate({"title": "T", "shots": shots}))
    cut = document_of(Storyboard.model_validate({"title": "T", "shots": other, "cut": {"loudness": -23, "title": "T"}}))
    assert plan(cut).shots == plan(plain).shots
    assert plan(cut).film != plan(plain).film
    assert cut.digest == plain.digest


BED, VOICE, FONT = Path("bed.mp3"), Path("voice.wav"), Path("serif.ttf")
DIGESTS = {BED: "b" * 64, VOICE: "c" * 64, FONT: "d" * 64, Path("other.mp3"): "e" * 64}
PLAIN_CUT = Cut(music=Music(BED))
PLAIN_CLIP = ShotCut("a")
OTHER_CUT: dict[str, Any] = {
    "transition": Transition("wipe", Fraction(1, 2)),
    "fade_in": Fraction(1, 3),
    "fade_out": Fraction(1, 3),
    "size": (64, 64),
    "fit": "crop",
    "codec": "h264",
    "loudness": None,
    "sound": False,
    "music": None,
    "captions": "burn",
    "title": "T",
    "end_card": "Fin",
    "card_seconds": Fraction(2),
    "font": FONT,
}
OTHER_MUSIC: dict[str, Any] = {
    "path": Path("other.mp3"),
    "gain": -11.5,
    "loop": False,
    "fade": Fraction(0),
    "ducking": False,
}
OTHER_CLIP: dict[str, Any] = {
    "title": "b",
    "trim": (Fraction(0), None),
    "transition": Transition("wipe", Fraction(1)),
    "repeats": True,
    "caption": "Words",
    "narration": VOICE,
}


def names(kind: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_every_field_that_changes_the_film_is_in_the_recipe_or_listed_with_a_reason() -> None:
    assert names(Cut) == OTHER_CUT.keys()
    assert names(Music) == OTHER_MUSIC.keys()
    assert names(CutClip) == OTHER_CLIP.keys() | cutting.NOT_IN_RECIPE.keys()
    assert all(cutting.NOT_IN_RECIPE.values())
    plain = recipe(PLAIN_CUT, [PLAIN_CLIP], DIGESTS)
    beds = [dataclasses.replace(Music(BED), **{name: other}) for name, other in OTHER_MUSIC.items()]
    cuts = [dataclasses.replace(PLAIN_CUT, **{name: other}) for name, other in OTHER_CUT.items()]
    clips = [dataclasses.replace(PLAIN_CLIP, **{name: other}) for name, other in OTHER_CLIP.items()]
    others = [recipe(cut, [PLAIN_CLIP], DIGESTS) for cut in (*cuts, *(Cut(music=bed) for bed in beds))]
    others += [recipe(PLAIN_CUT, [clip], DIGESTS) for clip in clips]
    told = [json.dumps(found, sort_keys=True) for found in (plain, *others)]
    assert len(set(told)) == len(told)


def test_what_a_recipe_is_of_is_there_or_derived() -> None:
    """`ShotCut` says besides what only the plan needs."""
    assert names(ShotCut) - names(CutClip) == {"starts_on", "seconds"}
    same = dataclasses.replace(PLAIN_CLIP, starts_on="x", seconds=Fraction(3))
    assert recipe(Cut(), [same], {}) == recipe(Cut(), [PLAIN_CLIP], {})


def test_a_recipe_goes_by_what_files_hold_and_travels_as_json() -> None:
    moved = {BED: "9" * 64, Path("elsewhere.mp3"): DIGESTS[BED]}
    here = recipe(PLAIN_CUT, [PLAIN_CLIP], DIGESTS)
    assert json.loads(json.dumps(here)) == here
    assert recipe(Cut(music=Music(Path("elsewhere.mp3"))), [PLAIN_CLIP], moved) == here
    assert recipe(PLAIN_CUT, [PLAIN_CLIP], moved) != here
    with pytest.raises(KeyError):
        recipe(Cut(font=FONT), [PLAIN_CLIP], {})
