"""Where a shot's inputs are found, and that none is taken from outside of the document's folder unasked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.storyboard.document import Shot
from prefect_kling.storyboard.inputs import Unusable, references, resolved
from prefect_kling.storyboard.plan import images_to_fit, local_videos, plan
from prefect_kling.storyboard.reader import Document, read_storyboard


def source(value: str, root: str | None, *, allow_outside: bool = False) -> str:
    (reference,) = references(Shot(id="a", images={"p": value}))
    return resolved(reference, {"a": 0}, root, allow_outside=allow_outside).source


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A document's folder, itself reached through a link, with files and links in it and a file beside it."""
    real = tmp_path / "real"
    (real / "refs").mkdir(parents=True)
    (real / "refs" / "in.png").touch()
    (real / "linked.png").symlink_to("refs/in.png")
    (tmp_path / "out.png").touch()
    (tmp_path / "real-too").mkdir()
    (tmp_path / "real-too" / "x.png").touch()
    (real / "escape.png").symlink_to(tmp_path / "out.png")
    (real / "up").symlink_to("..")
    (real / "loop").symlink_to("loop")
    (tmp_path / "films").symlink_to("real")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "films"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("refs/in.png", "films/refs/in.png"),
        ("./refs//in.png", "films/refs/in.png"),
        ("refs/../linked.png", "films/linked.png"),
        ("../films/refs/in.png", "films/refs/in.png"),
        ("../real/refs/in.png", "real/refs/in.png"),
        ("{folder}/films/refs/in.png", "films/refs/in.png"),
        ("{folder}/real/refs/in.png", "real/refs/in.png"),
        ("file://{folder}/films/refs/in.png", "films/refs/in.png"),
        ("~/films/refs/in.png", "films/refs/in.png"),
        ("up/films/refs/in.png", "films/up/films/refs/in.png"),
        ("~no-such-user/in.png", "films/~no-such-user/in.png"),
        ("not there.png", "films/not there.png"),
        ("..png", "films/..png"),
        ("loop/x.png", "films/loop/x.png"),
    ],
)
def test_what_is_in_the_folder_is_taken_however_it_is_written(films: Path, value: str, found: str) -> None:
    folder = films.parent
    assert source(value.format(folder=folder), str(films)) == str(folder / found)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("../out.png", "out.png"),
        ("refs/../../out.png", "out.png"),
        ("../real-too/x.png", "real-too/x.png"),
        ("..", "."),
        ("{folder}/out.png", "out.png"),
        ("/etc/hostname", "/etc/hostname"),
        ("file:///etc/hostname", "/etc/hostname"),
        ("FILE:///etc/../etc/hostname", "/etc/hostname"),
        ("file://{folder}/films/../out.png", "out.png"),
        ("~/out.png", "out.png"),
    ],
)
def test_what_is_outside_of_the_folder_has_to_be_allowed(films: Path, value: str, found: str) -> None:
    written = value.format(folder=films.parent)
    with pytest.raises(Unusable, match=r"is outside the document's folder; move it there, or .* --allow-outside"):
        source(written, str(films))
    assert source(written, str(films), allow_outside=True) == str(films.parent / found)


@pytest.mark.parametrize("value", ["escape.png", "up/out.png", "refs/../up/real-too/x.png"])
def test_links_that_lead_outside_have_to_be_allowed(films: Path, value: str) -> None:
    with pytest.raises(Unusable, match="leads by a link outside the document's folder"):
        source(value, str(films))
    assert source(value, str(films), allow_outside=True).startswith(str(films))


@pytest.mark.parametrize(
    "value", ["local:///etc/hostname", "s3://bucket/x.png", "memory://x.png", "zip://a::file:///b"]
)
def test_other_file_systems_are_outside_too(films: Path, value: str) -> None:
    with pytest.raises(Unusable, match="is outside the document's folder"):
        source(value, str(films))
    assert source(value, str(films), allow_outside=True) == value


@pytest.mark.parametrize("value", ["http://example.com/x.png", "HTTPS://example.com/../x.png"])
def test_urls_are_for_the_gateway_and_are_never_outside(films: Path, value: str) -> None:
    for root in (str(films), None, "s3://bucket/films/", "https://films.example.com/one/"):
        assert source(value, root) == value


@pytest.mark.parametrize("value", ["file://etc/hostname", "file://"])
def test_a_file_url_has_a_path(films: Path, value: str) -> None:
    for allowed in (False, True):
        with pytest.raises(Unusable, match="write file:///PATH"):
            source(value, str(films), allow_outside=allowed)


STORE = "s3://bucket/films/"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("refs/in.png", "s3://bucket/films/refs/in.png"),
        ("/refs/in.png", "s3://bucket/films/refs/in.png"),
        ("refs/../in.png", "s3://bucket/films/in.png"),
        ("s3://bucket/films//in.png", "s3://bucket/films//in.png"),
        ("S3://bucket/films/in.png", "S3://bucket/films/in.png"),
    ],
)
def test_what_is_in_an_object_stores_folder_is_taken(value: str, found: str) -> None:
    assert source(value, STORE) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("../in.png", "s3://bucket/in.png"),
        ("../films-too/in.png", "s3://bucket/films-too/in.png"),
        ("../../../in.png", "s3://bucket/in.png"),
        ("s3://bucket/in.png", "s3://bucket/in.png"),
        ("s3://bucket/films/../in.png", "s3://bucket/films/../in.png"),
        ("s3://other/films/in.png", "s3://other/films/in.png"),
    ],
)
def test_what_is_outside_of_an_object_stores_folder_has_to_be_allowed(value: str, found: str) -> None:
    with pytest.raises(Unusable, match="is outside the document's folder"):
        source(value, STORE)
    assert source(value, STORE, allow_outside=True) == found


@pytest.mark.parametrize(
    "value", ["file:///etc/hostname", "in.zip::file:///etc/hostname", "s3://bucket/films/x::zip://y"]
)
def test_a_document_from_elsewhere_reaches_this_machine_in_no_case(value: str) -> None:
    for allowed in (False, True):
        with pytest.raises(Unusable, match=r"is out of reach|chains file systems"):
            source(value, STORE, allow_outside=allowed)


@pytest.mark.parametrize("value", ["/etc/hostname", "file:///etc/hostname", "../x.png", "x.png"])
def test_a_typed_in_storyboard_has_no_files_in_any_case(value: str) -> None:
    for allowed in (False, True):
        with pytest.raises(Unusable, match=r"is no http\(s\) URL"):
            source(value, None, allow_outside=allowed)


BOARD = (
    "title: T\nshots:\n  - id: a\n    prompt: x\n    fit: yes\n    feature: ../clip.mp4\n    first_frame: ../big.png\n"
)


def test_a_document_is_read_with_or_without_leave(tmp_path: Path, picture: Callable[..., str]) -> None:
    picture("big.png")
    (tmp_path / "clip.mp4").touch()
    file = tmp_path / "films" / "film.yaml"
    file.parent.mkdir()
    file.write_text(BOARD)
    kept = read_storyboard(file)
    with pytest.raises(StoryboardError) as caught:
        plan(kept)
    assert [line.removeprefix(f"{file}:")[:30] for line in str(caught.value).split("\n")] == [
        "6:14: shot 'a': feature: '../c",
        "7:18: shot 'a': first_frame: '",
    ]
    # Nothing outside is opened on the way to that answer.
    assert (local_videos(kept), images_to_fit(kept)) == ((), ())
    allowed = read_storyboard(file, allow_outside=True)
    assert local_videos(allowed) == (str(tmp_path / "clip.mp4"),)
    assert [entry.source for entry in plan(allowed).shots[0].inputs] == [
        str(tmp_path / "clip.mp4"),
        str(tmp_path / "big.png"),
    ]
    assert allowed.digest == kept.digest


@pytest.mark.parametrize("field", ["base", "first_frame", "narration"])
def test_a_name_longer_than_any_files_is_a_file_that_is_not_there(read: Callable[..., Document], field: str) -> None:
    with pytest.raises(StoryboardError, match=r"^film\.yaml:5:.*: there is no file '"):
        plan(read(f"title: T\nshots:\n  - id: a\n    prompt: x\n    {field}: {'v' * 300}.mp4\n"))
