"""The plan: what would be sent for each shot, what it costs, and every reason why not."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from prefect_kling.gateway.errors import InvalidRequest, StoryboardError
from prefect_kling.gateway.limits import VideoFacts
from prefect_kling.gateway.prices import PriceTable
from prefect_kling.storyboard.document import Cut, Defaults, Shot, Storyboard
from prefect_kling.storyboard.inputs import Place
from prefect_kling.storyboard.plan import Input, Plan, local_videos, plan
from prefect_kling.storyboard.reader import Document, Positions, document_of, read_storyboard

Read = Callable[..., Document]

PIC = "https://example.com/pic.png"
CLIP = "https://example.com/clip.mp4"


def planned(*shots: dict[str, Any], look: str = "", defaults: dict[str, Any] | None = None, **more: Any) -> Plan:
    """The plan of typed-in shots, which get the ids a, b, c … and a prompt where they have none."""
    named = [{"id": "abcdefgh"[n], "prompt": "x"} | shot for n, shot in enumerate(shots)]
    board = {"title": "T", "look": look, "defaults": defaults or {}, "shots": named}
    return plan(document_of(Storyboard.model_validate(board)), **more)


def body(*shots: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The last shot's body."""
    return planned(*shots, **more).shots[-1].request.body()


def refused(*shots: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(StoryboardError) as caught:
        planned(*shots, **more)
    return [line.removeprefix("storyboard: ") for line in str(caught.value).split("\n")]


PLAIN = {"model": "kling-v3-omni", "mode": "std", "prompt": "x"}


def test_a_plain_shot_takes_all_defaults() -> None:
    assert body({}) == PLAIN | {"duration": "5", "aspect_ratio": "16:9"}


def test_defaults_hold_and_a_shot_says_otherwise() -> None:
    mine = {"model": "kling-video-o1", "mode": "pro", "aspect_ratio": "9:16", "duration": 10, "sound": "on"}
    sent = {**mine, "duration": "10", "prompt": "x"}
    assert body({}, defaults=mine) == sent
    other = {"model": "kling-v3-omni", "mode": "std", "aspect_ratio": "1:1", "duration": 3, "sound": "off"}
    assert body(other, defaults=mine) == PLAIN | {"aspect_ratio": "1:1", "duration": "3"}


def test_an_edit_has_the_length_and_shape_of_its_input() -> None:
    shots = {"duration": 7}, {"base": "a"}, {"base": "b"}
    found = planned(*shots, defaults={"sound": "on", "keep_original_sound": "yes"})
    (_, edit, again) = found.shots
    video = {"video_url": "https://upstream.example.com/1", "refer_type": "base", "keep_original_sound": "yes"}
    assert edit.request.body() == PLAIN | {"video_list": [video]}
    assert (edit.needs, edit.inputs) == (("a",), (Input(("video_list", 0, "video_url"), "clip", "a"),))
    assert (edit.seconds, again.seconds) == (7, 7)


def test_a_feature_goes_on_in_the_inputs_look() -> None:
    video = {"video_url": "https://upstream.example.com/1", "refer_type": "feature", "keep_original_sound": "no"}
    sent = PLAIN | {"duration": "5", "aspect_ratio": "16:9", "video_list": [video]}
    assert body({}, {"feature": "a"}, defaults={"sound": "on"}) == sent


@pytest.mark.parametrize("field", ["continues", "first_frame"])
def test_a_first_frame_from_a_shot_is_its_last_one_and_brings_its_shape(field: str) -> None:
    found = planned({}, {field: "a"})
    image = {"image_url": "https://upstream.example.com/1", "type": "first_frame"}
    assert found.shots[1].request.body() == PLAIN | {"duration": "5", "image_list": [image]}
    assert found.shots[1].inputs == (Input(("image_list", 0, "image_url"), "last-frame", "a"),)
    assert found.shots[1].warnings == ()


def test_a_shape_said_beside_a_first_frame_is_sent_with_a_warning() -> None:
    shot = planned({}, {"continues": "a", "aspect_ratio": "1:1"}).shots[1]
    assert shot.request.body()["aspect_ratio"] == "1:1"
    assert [warning.split(":")[0] for warning in shot.warnings] == ["aspect_ratio"]


def test_a_length_said_for_an_edit_is_left_out_with_a_warning() -> None:
    shot = planned({}, {"base": "a", "duration": 9}).shots[1]
    assert "duration" not in shot.request.body()
    assert (shot.seconds, len(shot.warnings)) == (5, 1)


def test_images_stand_in_one_order_frames_first() -> None:
    shot = {"images": {"p": PIC + "?p", "q": PIC + "?q"}, "end_frame": PIC + "?end", "continues": "a"}
    found = planned({}, shot).shots[1]
    assert [entry.get("type") for entry in found.request.body()["image_list"]] == [
        "first_frame",
        "end_frame",
        None,
        None,
    ]
    assert [(i.place[1], i.kind, i.source) for i in found.inputs] == [
        (0, "last-frame", "a"),
        (1, "url", PIC + "?end"),
        (2, "url", PIC + "?p"),
        (3, "url", PIC + "?q"),
    ]


@pytest.mark.parametrize(
    ("shot", "prompt"),
    [
        ({"images": {"p": PIC, "q": PIC}, "prompt": "{q} by {p}"}, "<<<image_2>>> by <<<image_1>>>"),
        ({"images": {"p": PIC}, "continues": "a", "prompt": "{p}"}, "<<<image_2>>>"),
        ({"images": {"p": PIC}, "first_frame": PIC, "end_frame": PIC, "prompt": "{p}"}, "<<<image_3>>>"),
        (
            {"elements": {"k": 7, "l": 8}, "prompt": "{l}, {k}, {l}"},
            "<<<element_2>>>, <<<element_1>>>, <<<element_2>>>",
        ),
        ({"base": "a", "prompt": "Turn {base} into night"}, "Turn <<<video_1>>> into night"),
        ({"feature": "a", "prompt": "after {feature}"}, "after <<<video_1>>>"),
        ({"images": {"港": PIC}, "prompt": "{港}"}, "<<<image_1>>>"),
        ({"prompt": "{ a } {1} {} {a-b} {x"}, "{ a } {1} {} {a-b} {x"),
        ({"prompt": "<<<image_1>>>", "images": {"p": PIC}}, "<<<image_1>>>"),
    ],
)
def test_names_in_prompts_become_positions(shot: dict[str, Any], prompt: str) -> None:
    assert body({}, shot)["prompt"] == prompt


@pytest.mark.parametrize(
    ("shot", "told"),
    [
        (
            {"prompt": "{harbor}", "images": {"harbour": PIC}},
            "prompt: {harbor} names no image, element or video of this ",
        ),
        (
            {"prompt": "{harbour}"},
            "prompt: {harbour} names no image, element or video of this shot; for plain braces put",
        ),
        ({"prompt": "{base}"}, "prompt: {base} names no image"),
        ({"images": {"base": PIC}}, "images.base: {base} stands for the shot's video; give this another name"),
        ({"images": {"k": PIC}, "elements": {"k": 7}}, "elements.k: an image has the name 'k' already"),
    ],
)
def test_names_that_stand_for_nothing(shot: dict[str, Any], told: str) -> None:
    (line,) = refused({}, shot)
    assert line.startswith(f"shot 'b': {told}")


def test_the_look_is_appended_to_every_prompt_and_nothing_is_prefixed() -> None:
    assert body({"prompt": "A cliff"}, look="35mm film")["prompt"] == "A cliff, 35mm film"
    parts = [{"prompt": "one", "duration": 2}, {"prompt": "two {p}", "duration": 3}]
    sent = body({"multi_shot": parts, "prompt": "", "images": {"p": PIC}}, look="35mm film")
    assert [part["prompt"] for part in sent["multi_prompt"]] == ["one, 35mm film", "two <<<image_1>>>, 35mm film"]
    assert "prompt" not in sent


def test_a_look_alone_is_no_prompt() -> None:
    assert refused({"prompt": ""}, look="35mm film")[0].startswith("shot 'a': prompt: a prompt, an image or a video")


def test_a_look_names_no_inputs() -> None:
    told = "look: {harbour} can stand in a shot's prompt only; each shot has inputs of its own"
    assert refused({"images": {"harbour": PIC}}, look="as {harbour}") == [told]


def test_multi_shot() -> None:
    parts = [{"prompt": "one", "duration": 2}, {"prompt": "two", "duration": 4}]
    sent = body({"multi_shot": parts})
    assert (sent["multi_shot"], sent["shot_type"], sent["duration"]) == (True, "customize", "6")
    assert sent["multi_prompt"] == [
        {"index": 1, "prompt": "one", "duration": "2"},
        {"index": 2, "prompt": "two", "duration": "4"},
    ]
    sent = body({"multi_shot": "intelligence"})
    assert (sent["multi_shot"], sent["shot_type"]) == (True, "intelligence")


PARTS = [{"prompt": "one", "duration": 2}, {"prompt": "two", "duration": 4}]
RULES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to show": ({"prompt": " "}, "prompt: a prompt, an image or a video is needed"),
    "elements alone": ({"prompt": "", "elements": [7]}, "prompt: a prompt, an image or a video is needed"),
    "sound with a base": ({"base": CLIP, "sound": "on"}, "sound: 'on' cannot go with a video"),
    "sound with a feature": ({"feature": CLIP, "sound": "on"}, "sound: 'on' cannot go with a video"),
    "frame with a base": (
        {"base": CLIP, "first_frame": PIC},
        "first_frame: 'first_frame' cannot go with a b",
    ),
    "frame of a shot": ({"base": CLIP, "continues": "z"}, "continues: 'first_frame' cannot go with a base"),
    "end frame alone": ({"end_frame": PIC}, "end_frame: an end_frame needs a first_frame"),
    "eight images": ({"images": {f"p{n}": PIC for n in range(8)}}, "images: at most 7 images and elements"),
    "eight elements": ({"elements": [1] * 8}, "elements: at most 7 images and elements together, not 8"),
    "five beside a video": (
        {"base": CLIP, "elements": [1, 2, 3], "images": {"p": PIC, "q": PIC}},
        "images: at most 4 images and elements together beside a video, not 5",
    ),
    "four elements": ({"first_frame": PIC, "elements": [1] * 4}, "elements: at most 3 elements"),
    "O1 frames and elements": (
        {"model": "kling-video-o1", "first_frame": PIC, "end_frame": PIC, "elements": [1]},
        "elements: kling-video-o1 takes no elements beside a first and an end frame",
    ),
    "O1 frames and images": (
        {"model": "kling-video-o1", "first_frame": PIC, "end_frame": PIC, "images": {"p": PIC}},
        "images: kling-video-o1 takes no further images beside a first and an end frame",
    ),
    "multi_shot on O1": ({"model": "kling-video-o1", "multi_shot": PARTS}, "multi_shot: only kling-v3-omni"),
    "multi_shot lengths": ({"multi_shot": PARTS, "duration": 5}, "multi_shot: its durations add up to 6 s"),
    "multi_shot frames": (
        {"multi_shot": PARTS, "first_frame": PIC, "end_frame": PIC},
        "end_frame: no start and end frames with multi_shot",
    ),
    "multi_shot without words": (
        {"multi_shot": "intelligence", "prompt": "", "images": {"p": PIC}},
        "prompt: needed with shot_type 'intelligence'",
    ),
    "blank part": (
        {"multi_shot": [{"prompt": " ", "duration": 3}]},
        "multi_shot.0.prompt: may not be empty",
    ),
    "loopback": ({"base": "http://127.0.0.1/x.mp4"}, "base: 'http://127.0.0.1/x.mp4' cannot be used"),
    "private image": ({"images": {"p": "https://10.0.0.1/p.png"}}, "images.p: 'https://10.0.0.1/p.png'"),
    "O1 length": (
        {"model": "kling-video-o1", "duration": 12},
        "duration: kling-video-o1 takes '3' to '10'",
    ),
    "V3 length": ({"duration": 2}, "duration: kling-v3-omni takes '3' to '15', not '2'"),
    "both videos": ({"base": CLIP, "feature": CLIP}, "feature: 'base' and 'feature' cannot go together"),
    "both frames": ({"continues": "z", "first_frame": PIC}, "first_frame: 'continues' and 'first_frame' cannot"),
    "sound of nothing": ({"keep_original_sound": "yes"}, "keep_original_sound: only a shot with base or feature"),
    "file typed in": ({"base": "clips/x.mp4"}, "base: 'clips/x.mp4' is no http(s) URL, and a typed-in storyboard"),
    "own file by URL": ({"base": "file:///etc/passwd"}, "base: 'file:///etc/passwd' is no http(s) URL"),
    "bucket typed in": ({"images": {"p": "s3://b/p.png"}}, "images.p: 's3://b/p.png' is no http(s) URL"),
    "no such shot": ({"base": "zz"}, "base: there is no shot 'zz'; did you mean 'z'?"),
    "shot as image": ({"images": {"p": "z"}}, "images.p: 'z' is no http(s) URL"),
    "continues a file": ({"continues": "x.mp4"}, "continues: there is no shot 'x.mp4'"),
    "continues a URL": ({"continues": CLIP}, f"continues: there is no shot '{CLIP}'"),
    "itself": ({"base": "a"}, "base: a shot cannot need itself: a → a"),
}


@pytest.mark.parametrize("name", RULES)
def test_what_cannot_be_made_is_told_of_shot_and_field(name: str) -> None:
    shot, told = RULES[name]
    told_at_all = refused(shot, {"id": "z"})
    assert any(line.startswith(f"shot 'a': {told}") for line in told_at_all), told_at_all


def test_only_the_first_frames_rule_is_left_where_two_fields_give_one() -> None:
    assert len(refused({"continues": "z", "first_frame": PIC}, {"id": "z"})) == 2  # and rule 5: at most one


def test_a_prompt_that_the_look_makes_too_long() -> None:
    (line,) = refused({"prompt": "x" * 2490}, look="35mm film, overcast")
    assert line == "shot 'a': prompt: has 2,511 characters with the look and inputs' tokens; at most 2,500 are taken"
    (line,) = refused({"multi_shot": [{"prompt": "x" * 500, "duration": 5}]}, look="35mm film, overcast")
    assert line.startswith("shot 'a': multi_shot.0.prompt: has 521 characters")


def test_loopback_urls_are_for_gateways_on_loopback() -> None:
    url = "http://127.0.0.1:8000/x.mp4"
    assert planned({"base": url}, loopback=True).shots[0].inputs[0].source == url


def test_every_broken_shot_is_told_at_once_also_those_after_broken_ones() -> None:
    lines = refused(
        {"sound": "on", "base": CLIP}, {"base": "a", "sound": "on"}, {"continues": "nobody"}, {"prompt": ""}
    )
    assert sorted(line.split(":")[0] for line in lines) == ["shot 'a'", "shot 'b'", "shot 'c'", "shot 'd'"]


def test_cycles_are_named_and_other_mistakes_told_beside_them() -> None:
    shots = {"base": "c"}, {"feature": "a"}, {"continues": "b"}, {"end_frame": "a"}
    lines = refused(*shots)
    assert lines[0] == "shot 'a': base: shots cannot need each other in a circle: a → c → b → a"
    assert lines[1].startswith("shot 'd': end_frame: an end_frame needs a first_frame")


def test_shots_may_need_later_ones() -> None:
    found = planned({"base": "c"}, {}, {"continues": "b"})
    assert [shot.id for shot in found.shots] == ["a", "b", "c"]
    assert [shot.id for shot in found.order] == ["b", "c", "a"]
    assert found.critical_path == ("b", "c", "a")
    assert [shot.takes for shot in found.shots] == [1, 1, 1]


def test_needs_are_in_the_order_of_the_fields_and_named_once() -> None:
    shots: tuple[dict[str, Any], ...] = {}, {}, {"feature": "b", "continues": "a", "end_frame": "b"}
    assert planned(*shots).shots[2].needs == ("b", "a")


@pytest.mark.parametrize(
    ("seconds", "field", "model", "fits"),
    [
        (10, "base", "kling-v3-omni", True),
        (11, "base", "kling-v3-omni", False),
        (15, "feature", "kling-v3-omni", True),
        (11, "feature", "kling-video-o1", False),
        (10, "feature", "kling-video-o1", True),
    ],
)
def test_an_upstream_clip_has_to_be_short_enough(seconds: int, field: str, model: str, fits: bool) -> None:
    shots: tuple[dict[str, Any], ...] = {"duration": seconds}, {field: "a", "model": model}
    if fits:
        planned(*shots)
    else:
        (line,) = refused(*shots)
        assert line.startswith(f"shot 'b': {field}: the clip of 'a' cannot be sent: it is {seconds}.00 s long")


@pytest.mark.parametrize(
    ("shot", "seconds", "usd", "upper"),
    [
        ({}, 5, "0.3165", "0.3165"),
        ({"mode": "pro", "duration": 15}, 15, "1.2795", "1.2795"),
        ({"sound": "on"}, 5, "0.4780", "0.4780"),
        ({"base": "z"}, 4, "0.2532", "0.2532"),
        ({"base": "z", "keep_original_sound": "yes"}, 4, "0.3412", "0.3412"),
        ({"base": "z", "keep_original_sound": "yes", "model": "kling-video-o1"}, 4, "0.2532", "0.3824"),
        ({"feature": "z"}, 5, "0.3165", "0.3165"),
        ({"base": CLIP}, 10, "0.6330", "0.6330"),
        ({"multi_shot": PARTS}, 6, "0.3798", "0.3798"),
    ],
)
def test_what_shots_cost(shot: dict[str, Any], seconds: int, usd: str, upper: str) -> None:
    found = planned(shot, {"id": "z", "duration": 4})
    first = found.shots[0]
    assert (first.seconds, first.usd, first.upper_usd) == (seconds, Decimal(usd), Decimal(upper))
    assert found.usd == Decimal(usd) + Decimal("0.2532")
    assert found.upper_usd == Decimal(upper) + Decimal("0.2532")


def test_an_edit_of_unknown_length_is_reckoned_at_the_most_and_says_so() -> None:
    found = planned({"base": CLIP}, {"base": "a"}, {"feature": CLIP})
    assert [shot.seconds for shot in found.shots] == [10, 10, 5]
    assert [len(shot.warnings) for shot in found.shots] == [1, 1, 0]


def test_other_prices() -> None:
    rows = {"kling-v3-omni": {"std": {"plain": "1", "sound": "2"}}}
    table = PriceTable.model_validate(rows)
    assert planned({}, prices=table).usd == 5
    assert refused({"mode": "pro"}, prices=table) == [
        "shot 'a': model: no price is known for kling-v3-omni in mode pro"
    ]


def test_a_film_shows_something() -> None:
    assert refused({"in_cut": False}) == ["no shot is in the film; in_cut is false for all of them"]
    assert [shot.in_cut for shot in planned({"in_cut": False}, {}).shots] == [False, True]


def test_filled_puts_urls_in_their_places_and_checks_again() -> None:
    shot = planned({}, {"feature": "a", "continues": "a", "images": {"p": PIC}}).shots[1]
    urls: dict[Place, str] = {("video_list", 0, "video_url"): CLIP, ("image_list", 0, "image_url"): PIC + "?last"}
    sent = shot.filled(urls).body()
    assert sent["video_list"][0]["video_url"] == CLIP
    assert [image["image_url"] for image in sent["image_list"]] == [PIC + "?last", PIC]
    assert {key: value for key, value in sent.items() if "_list" not in key} == {
        key: value for key, value in shot.request.body().items() if "_list" not in key
    }
    local = {**urls, ("video_list", 0, "video_url"): "http://127.0.0.1/x.mp4"}
    with pytest.raises(InvalidRequest, match=r"shot 'b' was not sent, and nothing was bought: .*cannot be used"):
        shot.filled(local)
    assert shot.filled(local, loopback=True).video_list is not None
    with pytest.raises(KeyError):
        shot.filled({})


# Documents with a place: files, positions.

HEAD = "title: T\nshots:\n  - id: a\n    prompt: x\n"


def told(document: Document, **more: Any) -> list[str]:
    with pytest.raises(StoryboardError) as caught:
        plan(document, **more)
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("    sound: on\n    base: https://example.com/x.mp4\n", "5:12: shot 'a': sound: 'on' cannot go"),
        ("    duration: 12\n    model: kling-video-o1\n", "5:15: shot 'a': duration: "),
        ("    model: kling-video-o1\ndefaults:\n  duration: 12\n", "7:13: shot 'a': duration: "),
        ("    images:\n      p: nowhere.png\n", "6:10: shot 'a': images.p: there is no file '"),
        ("    base: aa\n", "5:11: shot 'a': base: there is no file '"),
        ("    continues: aa\n", "5:16: shot 'a': continues: there is no shot 'aa'; did you mean 'a'?"),
        ("    end_frame: https://example.com/x.png\n", "5:16: shot 'a': end_frame: an end_frame needs"),
        ("    base: b\n  - id: b\n    prompt: x\n    base: a\n", "5:11: shot 'a': base: shots cannot need each other"),
        ("    images:\n      p: https://10.0.0.1/x.png\n", "6:10: shot 'a': images.p: "),
        ("look: as {x}\n", "5:7: look: {x} can stand in"),
        ("    in_cut: false\n", "3:3: no shot is in the film"),
        (
            "    multi_shot:\n      - prompt: '{x}'\n        duration: 5\n",
            "6:17: shot 'a': multi_shot.0.prompt: {x} nam",
        ),
    ],
)
def test_mistakes_have_the_place_of_what_is_to_be_changed(read: Read, text: str, place: str) -> None:
    assert told(read(HEAD + text))[0].startswith(f"film.yaml:{place}")


def test_a_shot_without_the_field_is_the_place(read: Read) -> None:
    (line,) = told(read("title: T\nshots:\n  - id: a\n    prompt: x\n  - id: b\n"))
    assert line.startswith("film.yaml:5:5: shot 'b': prompt: a prompt, an image or a video is needed")


def test_a_shots_id_wins_over_a_file_of_that_name(read: Read, folder: Path) -> None:
    (folder / "b").write_bytes(b"")
    found = plan(read(HEAD + "    base: b\n  - id: b\n    prompt: x\n"))
    assert found.shots[0].inputs[0].kind == "clip"


def test_local_images_are_checked_and_found_beside_the_document(
    folder: Path, picture: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("films/refs/harbour.png")
    (folder / "films" / "film.yaml").write_text(HEAD + "    images:\n      p: refs/../refs/harbour.png\n")
    monkeypatch.chdir("/")
    found = plan(read_storyboard(folder / "films" / "film.yaml"))
    source = str(folder / "films" / "refs" / "harbour.png")
    assert found.shots[0].inputs == (Input(("image_list", 0, "image_url"), "file", source),)


def test_a_file_url_in_a_local_document_is_a_path(read: Read, folder: Path, picture: Callable[..., str]) -> None:
    url = (folder / picture()).as_uri()
    found = plan(read(HEAD + f"    images:\n      p: {url}\n"))
    assert found.shots[0].inputs[0].source == str(folder / "harbour.png")


@pytest.mark.parametrize(
    ("size", "reason"), [((299, 400), "each side needs at least 300"), ((1000, 300), "its sides may differ by 1:2.5")]
)
def test_images_that_the_gateway_refuses(
    read: Read, picture: Callable[..., str], size: tuple[int, int], reason: str
) -> None:
    text = HEAD + f"    first_frame: {picture(size=size)}\n"
    assert reason in told(read(text))[0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "not a readable image"), (b"GIF89a" + b"\0" * 20, ""), (b"x" * 10485761, "it has more than 10 MB")],
)
def test_files_that_are_no_images(read: Read, folder: Path, data: bytes, reason: str) -> None:
    (folder / "p.png").write_bytes(data)
    (line,) = told(read(HEAD + "    first_frame: p.png\n"))
    assert line.startswith("film.yaml:5:18: shot 'a': first_frame: 'p.png' cannot be sent: ")
    assert reason in line


FACTS = VideoFacts(6.4, 1280, 720, 24, 1_000_000)


def test_local_videos_are_named_for_probing_and_then_judged_by_their_facts(read: Read, folder: Path) -> None:
    (folder / "clip.mp4").write_bytes(b"")
    document = read(
        HEAD + "    base: clip.mp4\n  - id: b\n    prompt: x\n    feature: clip.mp4\n  - id: c\n    base: none.mp4\n"
    )
    path = str(folder / "clip.mp4")
    assert local_videos(document) == (path,)
    document = read(HEAD + "    base: clip.mp4\n")
    (shot,) = plan(document, videos={path: FACTS}).shots
    assert (shot.seconds, shot.usd, shot.warnings) == (6, Decimal("0.3798"), ())
    assert plan(document).shots[0].seconds == 10
    for facts in (VideoFacts(12, 1280, 720, 24, 1), VideoFacts(5, 640, 480, 24, 1), VideoFacts(5, 1280, 720, 12, 1)):
        (line,) = told(document, videos={path: facts})
        assert line.startswith(f"film.yaml:5:11: shot 'a': base: '{path}' cannot be sent: it ")


def test_neither_shots_nor_urls_nor_images_are_local_videos(read: Read, picture: Callable[..., str]) -> None:
    text = f"    base: {CLIP}\n  - id: b\n    feature: a\n    first_frame: {picture()}\n"
    assert local_videos(read(HEAD + text)) == ()


def far(root: str, **shot: Any) -> Document:
    """A document that came from elsewhere."""
    board = Storyboard(title="T", defaults=Defaults(), cut=Cut(), shots=[Shot(id="a", prompt="x", **shot)])
    return Document(board, root + "film.yaml", root, "0" * 64, Positions())


@pytest.mark.parametrize(
    ("root", "value", "kind", "source"),
    [
        ("https://example.com/films/", "clips/x.mp4", "url", "https://example.com/films/clips/x.mp4"),
        ("https://example.com/films/", "../x.mp4", "url", "https://example.com/x.mp4"),
        ("https://example.com/films/", "/x.mp4", "url", "https://example.com/x.mp4"),
        ("https://example.com/films/", CLIP, "url", CLIP),
        ("s3://bucket/films/", "clips/x.mp4", "file", "s3://bucket/films/clips/x.mp4"),
        ("s3://bucket/films/", "s3://bucket/films/x.mp4", "file", "s3://bucket/films/x.mp4"),
        ("s3://bucket/films/", CLIP, "url", CLIP),
    ],
)
def test_paths_of_a_document_from_elsewhere_lead_there(root: str, value: str, kind: str, source: str) -> None:
    (entry,) = plan(far(root, base=value)).shots[0].inputs
    assert (entry.kind, entry.source) == (kind, source)
    assert local_videos(far(root, base=value)) == ()


@pytest.mark.parametrize(
    ("root", "value", "reason"),
    [
        ("https://example.com/films/", "file:///etc/passwd", "is out of reach for a document that comes from https://"),
        ("https://example.com/films/", "s3://bucket/x.mp4", "is out of reach"),
        ("s3://bucket/films/", "file:///etc/passwd", "is out of reach for a document that comes from s3://"),
        ("https://example.com/films/", "dwan", "there is no shot 'dwan'"),
        ("s3://bucket/films/", "dwan", "there is no shot 'dwan'"),
        ("https://example.com/films/", "//[x/y.mp4", "makes no URL"),
        ("https://10.0.0.1/films/", "x.mp4", "is a private or reserved address"),
    ],
)
def test_a_document_from_elsewhere_cannot_reach_this_machine(root: str, value: str, reason: str) -> None:
    (line,) = told(far(root, base=value))
    assert reason in line


def test_a_thousand_shots_in_one_chain(read: Read) -> None:
    fields = ("continues", "feature", "base")
    shots = [
        f"  - id: s{n}\n    prompt: shot {n}\n" + (f"    {fields[n % 3]}: s{n - 1}\n" if n else "") for n in range(1000)
    ]
    found = plan(read("title: T\nlook: 35mm\nshots:\n" + "".join(shots)))
    assert len(found.order) == len(found.critical_path) == 1000
    assert found.usd == Decimal("0.3165") * 1000
