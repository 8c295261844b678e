"""Reading: what is taken as it is written, and where and how each mistake is told."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec import AbstractFileSystem

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.storyboard import reader, tree
from prefect_kling.storyboard.document import Shot, Storyboard
from prefect_kling.storyboard.inputs import image_problem
from prefect_kling.storyboard.places import Problems
from prefect_kling.storyboard.reader import MAX_BYTES, Document, document_of, read_storyboard

Read = Callable[..., Document]

ONE = "title: T\nshots:\n  - id: a\n    prompt: x\n"
SHOT = "title: T\nshots:\n  - id: a\n    "


def refused(read: Read, text: str | bytes, variables: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(StoryboardError) as caught:
        read(text, variables)
    return str(caught.value).split("\n")


MISTAKES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "1:1: the document is empty"),
    "only a comment": ("# nothing\n", "1:1: the document is empty"),
    "a word": ("hello", "1:1: a storyboard is a mapping with title and shots, not 'hello'"),
    "a list": ("- a\n", "1:1: a storyboard is a mapping with title and shots, not a list"),
    "no shots": ("title: T\nshots: []\n", "2:8: shots: there are none"),
    "shots missing": ("title: T\n", "1:1: shots: is missing"),
    "title missing": ("shots: [{id: a}]\n", "1:1: title: is missing"),
    "title empty": ("title: ''\nshots: [{id: a}]\n", "1:8: title: is empty"),
    "shots no list": ("title: T\nshots: 5\n", "2:8: shots: takes a list, not 5"),
    "defaults no mapping": (ONE + "defaults: []\n", "5:11: defaults: takes fields with values, not a list"),
    "tab first": ("\ttitle: T\n", "1:1: a tab is used as indentation"),
    "tab": ("title: T\nshots:\n\t- id: a\n", "3:1: a tab is used as indentation"),
    "colon": ("title: a: b\n", "1:9: this is not valid YAML: mapping values are not allowed"),
    "braces at the start": (SHOT + "prompt: {harbour} at dawn\n", "4:23: this is not valid YAML"),
    "braces alone": (SHOT + "prompt: {harbour}\n", "4:13: shot 'a': prompt: takes text, not a mapping; text that star"),
    "variable unquoted": (
        SHOT + "prompt: {{ x }}\n",
        "4:14: a key has to be a plain word; a variable stands in quotes",
    ),
    "quote left open": ("title: 'x\nshots: []\n", "1:8: this is not valid YAML: while scanning a quoted scalar"),
    "at sign": ("title: @x\n", "1:8: this is not valid YAML"),
    "duplicate key": ("title: T\ntitle: U\nshots: [{id: a}]\n", "2:1: 'title' is given twice, first in line 1"),
    "duplicate in a shot": (SHOT + "prompt: x\n    prompt: y\n", "5:5: 'prompt' is given twice, first in line 4"),
    "duplicate image": (SHOT + "images:\n      p: x\n      p: y\n", "6:7: 'p' is given twice, first in line 5"),
    "unknown field": (SHOT + "promt: x\n", "4:5: shot 'a': promt: there is no such field; did you mean 'prompt'?"),
    "unknown far off": (ONE + "zzz: 1\n", "5:1: zzz: there is no such field; there are: title, look"),
    "unknown in music": (ONE + "cut:\n  music:\n    gian: 1\n", "7:5: cut.music.gian: there is no such field"),
    "unknown in cut": (ONE + "cut:\n  transitoin: cut\n", "6:3: cut.transitoin: there is no such field; did you mean"),
    "unknown default": (ONE + "defaults:\n  mod: std\n", "6:3: defaults.mod: there is no such field; did you mean"),
    "unknown in a part": (SHOT + "multi_shot: [{promt: x}]\n", "4:19: shot 'a': multi_shot.0.promt: there is no such"),
    "other transition": (
        ONE + "cut: {transition: fad}\n",
        "5:19: cut.transition: there is no transition 'fad'; did you",
    ),
    "same id": (ONE + "  - id: b\n  - id: a\n", "6:9: shot 3 has the id 'a' of shot 1 in line 3; ids have to differ"),
    "bad id": ("title: T\nshots:\n  - id: a b\n", "3:9: shot 'a b': id: 'a b' is no id"),
    "number as id": ("title: T\nshots:\n  - id: 7\n", "3:9: shot 1: id: takes text, not 7; put it in quotes"),
    "id missing": ("title: T\nshots:\n  - prompt: x\n", "3:5: shot 1: id: is missing"),
    "shot no mapping": ("title: T\nshots:\n  - dawn\n", "3:5: shot 1: takes fields with values, not 'dawn'"),
    "empty value": (SHOT + "base:\n", "4:10: shot 'a': base: is empty; write the text after the colon"),
    "word as number": (SHOT + "duration: five\n", "4:15: shot 'a': duration: takes a whole number, not 'five'"),
    "fraction": (SHOT + "duration: 4.5\n", "4:15: shot 'a': duration: takes a whole number, not 4.5"),
    "too long": (SHOT + "duration: 16\n", "4:15: shot 'a': duration: may be 15 at most, not 16"),
    "negative": (SHOT + "duration: -1\n", "4:15: shot 'a': duration: has to be at least 0, not -1"),
    "zero": (SHOT + "duration: 0\n", "4:15: shot 'a': duration: 0 seconds cannot be made"),
    "default too short": (ONE + "defaults: {duration: 2}\n", "5:22: defaults.duration: has to be at least 3, not 2"),
    "number as prompt": (SHOT + "prompt: 5\n", "4:13: shot 'a': prompt: takes text, not 5; put it in quotes"),
    "truth as prompt": (SHOT + "prompt: true\n", "4:13: shot 'a': prompt: takes text, not true; put it in quotes"),
    "mode": (SHOT + "mode: prp\n", "4:11: shot 'a': mode: takes std or pro, not 'prp'; did you mean 'pro'?"),
    "model": (SHOT + "model: kling-v3\n", "4:12: shot 'a': model: takes kling-video-o1 or kling-v3-omni"),
    "shape": (SHOT + "aspect_ratio: 4:3\n", "4:19: shot 'a': aspect_ratio: takes 16:9 or 9:16 or 1:1, not '4:3'"),
    "sound": (SHOT + "sound: loud\n", "4:12: shot 'a': sound: takes on or off, not 'loud'"),
    "in_cut": (SHOT + "in_cut: maybe\n", "4:13: shot 'a': in_cut: takes true or false, not 'maybe'"),
    "images list": (SHOT + "images: [x]\n", "4:13: shot 'a': images: takes names with a value each, not a list"),
    "image name": (SHOT + "images:\n      a-b: x\n", "5:7: shot 'a': images.a-b: 'a-b' is no name"),
    "elements": (SHOT + "elements: yes\n", "4:15: shot 'a': elements: takes a list of ids, or names with an id"),
    "element": (SHOT + "elements: [1, x]\n", "4:19: shot 'a': elements.1: takes a whole number, not 'x'"),
    "element by name": (SHOT + "elements: {k: x}\n", "4:19: shot 'a': elements.k: takes a whole number, not 'x'"),
    "many elements": (SHOT + f"elements: {[1] * 21}\n", "4:15: shot 'a': elements: has too many entries; at most 20"),
    "multi_shot": (SHOT + "multi_shot: smart\n", "4:17: shot 'a': multi_shot: takes the word intelligence, or a list"),
    "multi_shot number": (SHOT + "multi_shot: 3\n", "4:17: shot 'a': multi_shot: takes the word intelligence"),
    "no parts": (SHOT + "multi_shot: []\n", "4:17: shot 'a': multi_shot: is empty; give at least one"),
    "part": (SHOT + "multi_shot:\n      - prompt: x\n", "5:9: shot 'a': multi_shot.0.duration: is missing"),
    "long part": (
        SHOT + f"multi_shot: [{{prompt: {'x' * 513}, duration: 3}}]\n",
        "4:27: shot 'a': multi_shot.0.prompt: has 513 characters; at most 512 are taken",
    ),
    "long prompt": (SHOT + f"prompt: {'x' * 2501}\n", "4:13: shot 'a': prompt: has 2,501 characters; at most 2,500"),
    "unknown in a check": (
        SHOT + "check: {blakc: 1}\n",
        "4:13: shot 'a': check.blakc: there is no such field; did you",
    ),
    "unknown in the default check": (
        ONE + "defaults: {check: {lenght: yes}}\n",
        "5:20: defaults.check.lenght: there is no such field; did you mean 'length'?",
    ),
    "word as check": (
        SHOT + "check: maybe\n",
        "4:12: shot 'a': check: takes true, false, or fields such as black: 0.5",
    ),
    "word as seconds": (
        SHOT + "check: {black: lots}\n",
        "4:20: shot 'a': check.black: takes a number of seconds, not 'l",
    ),
    "truth as seconds": (
        SHOT + "check: {black: true}\n",
        "4:20: shot 'a': check.black: takes a number of seconds, not",
    ),
    "list as seconds": (
        SHOT + "check: {black: []}\n",
        "4:20: shot 'a': check.black: takes a number of seconds, not a l",
    ),
    "too many seconds": (SHOT + "check: {black: 99}\n", "4:20: shot 'a': check.black: may be 15 at most, not 99"),
    "no function": (SHOT + "check: {function: a b}\n", "4:23: shot 'a': check.function: 'a b' names no function"),
    "one softer": (SHOT + "soften: x\n", "4:13: shot 'a': soften: takes a list, not 'x'"),
    "a large element": (
        SHOT + f"elements: ['{2**63}']\n",
        "4:16: shot 'a': elements.0: may be 9223372036854775807 at most, not",
    ),
    "second document": (ONE + "---\ntitle: U\n", "5:1: a second document starts here"),
    "tag": ("title: !!int 5\n", "1:8: the tag !!int has no meaning here"),
    "python tag": ("title: !!python/object:os.system x\n", "1:8: the tag !!python/object:os.system has no meaning"),
    "merge key": (SHOT + "<<: {mode: std}\n", "4:5: shot 'a': <<: merge keys are no part of YAML 1.2"),
    "no anchor": ("title: *x\n", "1:8: *x refers to no &x that ends before it"),
    "in itself": ("&a {x: *a}\n", "1:8: *a refers to no &a that ends before it"),
    "nested": ("a: " + "[" * 50, "1:35: this is nested more than 32 deep"),
    "nested by aliases": (
        "".join(f"a{n}: &a{n} [{f'*a{n - 1}' if n else 'x'}]\n" for n in range(40)),
        "32:12: this is nested more than 32 deep",
    ),
    "NUL": (b"title: a\0b\n", "1:9: the character U+0000 may not stand in YAML"),
    "bell": (b"x: y\ntitle: a\x07b\n", "2:9: the character U+0007 may not stand in YAML"),
    "escaped NUL": ('title: "a\\0b"\n', "1:8: the text holds a NUL character"),
    "latin-1": ("title: x\nlook: é\n".encode("latin-1"), "2:7: this is not UTF-8 text"),
    "utf-16": ("title: x\n".encode("utf-16"), "1:1: this is not UTF-8 text"),
    "too big": (b"#" * (MAX_BYTES + 1), "1:1: it has more than 5 MB"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_place(read: Read, name: str) -> None:
    text, told = MISTAKES[name]
    assert f"film.yaml:{told}" in "\n".join(line[: len(told) + 10] for line in refused(read, text))


def test_several_mistakes_are_told_at_once_in_their_order(read: Read) -> None:
    text = "title: 5\nshots:\n  - id: a\n    promt: x\n    sound: loud\n  - id: a\n    duration: 99\n"
    places = [line.split(": ")[0] for line in refused(read, text)]
    assert places == [f"film.yaml:{at}" for at in ("1:8", "4:5", "5:12", "6:9", "7:15")]


def test_at_most_twenty_mistakes_are_told(read: Read) -> None:
    lines = refused(read, "title: T\nshots:\n" + "".join(f"  - id: s{n}\n    mode: x\n" for n in range(30)))
    assert len(lines) == 21
    assert lines[-1] == "film.yaml: … and 10 more"


def test_many_mistakes_are_not_all_looked_for(read: Read) -> None:
    lines = refused(read, ONE + "".join(f"key{n}: x\n" for n in range(2000)))
    assert len(lines) == 21
    assert lines[-1] == "film.yaml: … and more than 180 others"


def test_aliases_may_stand_as_deep_as_what_they_stand_for(read: Read) -> None:
    text = SHOT + "multi_shot: &parts [{prompt: x, duration: 3}]\n  - id: b\n    multi_shot: *parts\n"
    assert read(text).storyboard.shots[0].multi_shot == read(text).storyboard.shots[1].multi_shot


def test_what_is_wrong_is_shown_without_control_characters(read: Read) -> None:
    (line,) = refused(read, ONE + '"a\\n\\e[2Jb": 1\n')
    assert line.startswith(r"film.yaml:5:1: a\n\x1b[2Jb: there is no such field")


def test_columns_count_characters(read: Read) -> None:
    assert refused(read, "title: T\nshots:\n  - {id: a, prompt: 港の夜, mode: x}\n")[0].startswith("film.yaml:3:32: ")


WORDS = [
    "16:9",
    "on",
    "off",
    "yes",
    "no",
    "y",
    "1:1",
    "1_000",
    "12:30:45",
    "2026-11-22",
    "0o8",
    "+",
    ".",
    "--",
    "1.2.3",
]


@pytest.mark.parametrize("word", WORDS)
def test_words_stay_what_the_user_wrote(read: Read, word: str) -> None:
    assert read(SHOT + f"prompt: {word}\n").storyboard.shots[0].prompt == word


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, None) for word in ("", "~", "null", "Null", "NULL")],
        *[(word, True) for word in ("true", "True", "TRUE")],
        *[(word, False) for word in ("false", "False", "FALSE")],
        ("0", 0), ("-12", -12), ("+7", 7), ("012", 12), ("0x1F", 31), ("0o17", 15),
        ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0), ("9" * 400, "9" * 400),
        ("nan", "nan"), (".inf", ".inf"), ("yes", "yes"), ("tRue", "tRue"), ("0b1", "0b1"),
    ],
)  # fmt: skip
def test_plain_words_by_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    node = tree.parse(f"x: {text}\n", Problems("x"))
    assert isinstance(node.value, dict)
    found = node.value["x"].value
    assert (found, type(found)) == (value, type(value))


def test_quoted_numbers_are_text(read: Read) -> None:
    board = read("title: '1984'\nlook: !!str 35\nshots:\n  - id: \"7\"\n    prompt: |\n      5\n").storyboard
    assert (board.title, board.look, board.shots[0].id, board.shots[0].prompt) == ("1984", "35", "7", "5\n")


def test_aliases_stand_for_what_they_name(read: Read) -> None:
    text = "title: T\nshots:\n  - id: a\n    images: &pics\n      p: https://example.com/p.png\n"
    board = read(text + "  - id: b\n    images: *pics\n").storyboard
    assert board.shots[0].images == board.shots[1].images == {"p": "https://example.com/p.png"}


def test_aliases_cannot_multiply_without_end(read: Read) -> None:
    lines = ["a: &a [" + ",".join("x" * 10) + "]"]
    lines += [f"{c}: &{c} [" + ",".join([f"*{b}"] * 10) + "]" for b, c in zip("abcdefgh", "bcdefghi", strict=True)]
    assert "this is more than a document can hold" in refused(read, "\n".join(lines))[0]


def test_json_is_read_as_well_with_its_escapes(read: Read) -> None:
    said = {"title": 'Ü "😀" \\ \\ud83d', "shots": [{"id": "a", "prompt": "x\ny\t/", "in_cut": True, "elements": [1]}]}
    for text in (json.dumps(said), json.dumps(said, indent="\t"), json.dumps(said, ensure_ascii=False)):
        assert read(text).storyboard == Storyboard.model_validate(said)


def test_a_byte_order_mark_is_no_text(read: Read) -> None:
    assert read(b"\xef\xbb\xbf" + ONE.encode()).storyboard.title == "T"
    assert refused(read, b"\xef\xbb\xbftitle: 5\nshots: [{id: a}]\n")[0].startswith("film.yaml:1:8: ")


def test_the_digest_is_of_what_is_said_not_of_how(read: Read) -> None:
    first = read(ONE)
    same = [
        "# a film\n" + ONE,
        '{"title": "T", "shots": [{"prompt": "x", "id": "a"}]}',
        ONE + "cut: {transition: cut}\n",
    ]
    assert {read(text).digest for text in same} == {first.digest}
    assert read(ONE + "look: warm\n").digest != first.digest
    varied = SHOT + 'prompt: "{{ x }}"\n'
    assert read(varied, {"x": "x"}).digest == first.digest != read(varied, {"x": "y"}).digest
    assert len(first.digest) == 64


def test_the_digest_is_of_what_is_bought_not_of_how_it_is_cut(read: Read) -> None:
    """Money is held by digest: a run that cuts the same shots in another way holds for them once, not twice."""
    first = read(ONE)
    cuts = [
        ONE + "cut: {transition: wipe, music: bed.mp3, title: A card}\n",
        ONE + "    trim: [1, 2]\n    caption: Words\n    narration: v.wav\n    transition_length: 1\n    in_cut: no\n",
    ]
    assert {read(text).digest for text in cuts} == {first.digest}


def test_positions_are_of_values_of_keys_and_of_what_is_nearest(read: Read) -> None:
    positions = read(SHOT + "images:\n      p: https://example.com/p.png\n").positions
    assert positions.of("shots", 0, "images", "p") == (5, 10)
    assert positions.of("shots", 0, "images", "p", key=True) == (5, 7)
    assert positions.of("shots", 0, "prompt") == (3, 5)
    assert positions.of("cut", "transition") == (1, 1)
    assert positions.of("shots", 7) == (3, 3)


def test_the_root_is_the_folder_of_the_document(read: Read, folder: Path) -> None:
    document = read(ONE)
    assert (document.source, document.root) == ("film.yaml", str(folder))
    by_url = read_storyboard((folder / "film.yaml").as_uri())
    assert by_url.root == str(folder)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nothing.yaml", "nothing.yaml:1:1: there is no such file"),
        (".", ".:1:1: it cannot be read: it is no regular file"),
        ("pipe", "pipe:1:1: it cannot be read: it is no regular file"),
        ("bad\0name", r"bad\x00name:1:1: it cannot be read: "),
        ("memory://nowhere/film.yaml", "memory://nowhere/film.yaml:1:1: there is no such file"),
        ("nosuch://x/film.yaml", "nosuch://x/film.yaml:1:1: it cannot be read: Protocol not known: nosuch"),
        ("http://[::/film.yaml", "http://[::/film.yaml:1:1: it cannot be read"),
    ],
)
def test_what_cannot_be_read(folder: Path, source: str, told: str) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(StoryboardError) as caught:
        read_storyboard(source)
    assert str(caught.value).startswith(told)


def test_a_document_in_an_object_store() -> None:
    with fsspec.open("memory://films/one/film.yaml", "wb") as file:
        file.write(ONE.encode())
    document = read_storyboard("memory://films/one/film.yaml")
    assert document.root == "memory://films/one/"


class _Odd(AbstractFileSystem):  # type: ignore[misc] # ships no types
    protocol = "odd"

    def _open(self, *_args: object, **_options: object) -> object:
        raise RuntimeError("no credentials were found")


def test_what_a_driver_raises_is_told() -> None:
    fsspec.register_implementation("odd", _Odd, clobber=True)
    with pytest.raises(StoryboardError, match="it cannot be read: RuntimeError: no credentials were found"):
        read_storyboard("odd://films/film.yaml")
    assert image_problem("odd://films/x.png") == "RuntimeError: no credentials were found"


class _Site(http.server.BaseHTTPRequestHandler):
    pages: ClassVar[dict[str, tuple[int, bytes]]] = {
        "/films/one.yaml": (200, ONE.encode()),
        "/broken": (500, b""),
        "/endless": (200, b"#" * (MAX_BYTES * 2)),
        "/moved": (302, b""),
    }

    def do_GET(self) -> None:
        if self.path == "/drip":
            self._drip()
            return
        status, body = self.pages.get(self.path.partition("?")[0], (404, b""))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/films/one.yaml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:  # the reader had enough
            self.close_connection = True

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"#")
        except ConnectionError:  # the reader had enough
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Nothing: the test says what matters."""


@pytest.fixture
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_document_on_the_web(site: str) -> None:
    document = read_storyboard(f"{site}/films/one.yaml?signature=secret")
    assert document.root == f"{site}/films/"
    assert document.source == f"{site}/films/one.yaml"
    assert read_storyboard(f"{site}/moved").storyboard.title == "T"


@pytest.mark.parametrize(
    ("page", "told"),
    [("none", "there is no such file"), ("broken", "the server answered 500"), ("endless", "it has more than 5 MB")],
)
def test_what_the_web_does_not_give(site: str, page: str, told: str) -> None:
    with pytest.raises(StoryboardError, match=f"^{site}/{page}:1:1: .*{told}"):
        read_storyboard(f"{site}/{page}?signature=secret")


def test_a_page_that_drips_is_not_waited_for(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_FETCH_SECONDS", 0.1)
    with pytest.raises(StoryboardError, match=r"/drip:1:1: it cannot be read: the server took more than 0\.1 s"):
        read_storyboard(f"{site}/drip")


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(StoryboardError) as caught:
        read_storyboard("http://me:secret@127.0.0.1:9/film.yaml?token=secret")
    assert "secret" not in str(caught.value)


def test_a_typed_in_storyboard_is_a_document_without_a_folder() -> None:
    document = document_of(Storyboard(title="T", shots=[Shot(id="a", prompt="{{ x }}")]), variables={"x": "a cliff"})
    assert document.root is None
    assert document.storyboard.shots[0].prompt == "a cliff"
    assert document.positions.of("shots", 0) is None


def test_a_typed_in_mistake_is_told_by_the_fields_name() -> None:
    board = Storyboard(title="T", shots=[Shot(id="a", prompt="{{ x }}", duration=0)])
    with pytest.raises(StoryboardError, match=r"^storyboard: shot 'a': prompt: the variable 'x' is not given"):
        document_of(board)


def test_a_typed_in_nul_is_told_by_the_fields_name() -> None:
    board = Storyboard(title="T", shots=[Shot(id="a", prompt="x\0y")])
    with pytest.raises(StoryboardError, match=r"^storyboard: shot 'a': prompt: the text holds a NUL character"):
        document_of(board)


def test_an_id_that_is_there_twice_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("title: T\nshots:\n  - id: a\n    prompt: x\n  - id: a\n    prompt: y\n")
    with pytest.raises(StoryboardError) as told:
        read_storyboard(tmp_path / "twice.yaml")
    assert [line.rpartition("twice.yaml:")[2] for line in str(told.value).splitlines()] == [
        "5:9: shot 2 has the id 'a' of shot 1 in line 3; ids have to differ"
    ]
