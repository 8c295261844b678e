"""The rows of a series: what is taken as it is written, and where each mistake is told."""

from __future__ import annotations

import json
import re
import string
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.storyboard.document import Shot, Storyboard
from prefect_kling.storyboard.reader import MAX_BYTES, variables_named
from prefect_kling.storyboard.rows import MAX_ROWS, read_rows, rows_of

FAST = settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])

MUG_AND_LAMP = [{"product": "Mug", "price": "7.50"}, {"product": "Lamp"}]
WRITTEN = {
    "rows.csv": "product,price\nMug,7.50\nLamp,\n",
    "semicolon.csv": "product;price\nMug;7.50\nLamp;\n",
    "tab.tsv": "product\tprice\nMug\t7.50\nLamp\t\n",
    "bom.csv": "\ufeffproduct,price\r\nMug,7.50\r\nLamp,\r\n",
    "spaces.csv": "\n product , price\n Mug , 7.50 \n,\nLamp,\n\n",
    "rows.json": '[{"product": "Mug", "price": 7.50},\n {"product": "Lamp", "price": null}]',
    "rows.jsonl": '{"product": "Mug", "price": 7.50}\n\n{"product": "Lamp"}\n',
    "rows.ndjson": '{"product": "Mug", "price": 7.50}\r\n{"product": "Lamp"}',
    "rows.yaml": "- product: Mug\n  price: 7.50\n- product: Lamp\n  price:\n",
    "flow.yml": "[{product: Mug, price: 7.50}, {product: Lamp, price: null}]",
    "list": ' [{"product": "Mug", "price": 7.50}, {"product": "Lamp"}]',
    "lines": '{"product": "Mug", "price": 7.50}\n{"product": "Lamp"}\n',
    "words": "- product: Mug\n  price: 7.50\n- product: Lamp\n",
    "remark": "# The spring range.\n- product: Mug\n  price: 7.50\n- product: Lamp\n",
    "table": "product,price\nMug,7.50\nLamp,\n",
}


def file(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def values(folder: Path, name: str, text: str) -> list[dict[str, str]]:
    return [dict(row.values) for row in read_rows(file(folder, name, text))]


@pytest.mark.parametrize("name", WRITTEN)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert values(tmp_path, name, WRITTEN[name]) == MUG_AND_LAMP


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "{a},{b}\n007,16:9\non,true\n1e3,0x10\n"),
        ("rows.json", '[{{"{a}": "007", "{b}": "16:9"}}, {{"{a}": "on", "{b}": true}}, {{"{a}": 1e3, "{b}": "0x10"}}]'),
        ("rows.yaml", "- {a}: 007\n  {b}: 16:9\n- {a}: on\n  {b}: true\n- {a}: 1e3\n  {b}: 0x10\n"),
    ],
)
def test_what_looks_like_a_number_or_a_word_stays_as_it_is_written(tmp_path: Path, name: str, text: str) -> None:
    found = values(tmp_path, name, text.format(a="a", b="b"))
    assert [row["a"] for row in found] == ["007", "on", "1e3"]
    assert [row["b"] for row in found] == ["16:9", "true", "0x10"]


def test_a_quoted_null_is_a_word_and_an_empty_text_is_a_value(tmp_path: Path) -> None:
    assert values(tmp_path, "rows.yaml", "- a: 'null'\n  b: ''\n  c: ~\n") == [{"a": "null", "b": ""}]
    assert values(tmp_path, "rows.json", '[{"a": "null", "b": "", "c": null}]') == [{"a": "null", "b": ""}]


def test_rows_know_their_number_and_line(tmp_path: Path) -> None:
    text = 'product,slogan\nMug,"Holds,\nand ""holds"""\n\nLamp,x\n'
    found = read_rows(file(tmp_path, "rows.csv", text))
    assert found[0].values["slogan"] == 'Holds,\nand "holds"'
    assert [row.called for row in found] == [f"row 1 ({tmp_path}/rows.csv:2)", f"row 2 ({tmp_path}/rows.csv:5)"]
    lines = read_rows(file(tmp_path, "rows.jsonl", '{"a": 1}\n\n{"a":\n 2}\n {"a": 3}'))
    assert [row.place.rpartition(":")[2] for row in lines] == ["1", "3", "5"]
    listed = read_rows(file(tmp_path, "rows.json", '[{"a": 1}, {"a": 2},\n{"a": 3}]'))
    assert [row.place.rpartition(":")[2] for row in listed] == ["1", "1", "2"]
    mapped = read_rows(file(tmp_path, "rows.yaml", "# two\n- a: 1\n\n- a: 2\n"))
    assert [row.place.rpartition(":")[2] for row in mapped] == ["2", "4"]


def test_rows_are_read_from_wherever_storyboards_are() -> None:
    with fsspec.open("memory://rows-tests/rows.csv", "wb") as there:
        there.write(b"a\n1\n")
    assert [row.place for row in read_rows("memory://rows-tests/rows.csv")] == ["memory://rows-tests/rows.csv:2"]


MISTAKES: dict[str, tuple[str, str | bytes, str]] = {
    "nothing": ("rows.csv", "", "1:1: there are no rows"),
    "only a header": ("rows.csv", "a,b\n", "1:1: there are no rows"),
    "an empty list": ("rows.json", "[]", "1:1: there are no rows"),
    "an empty page": ("rows.yaml", "# nothing\n", "1:1: the document is empty"),
    "unnamed column": ("rows.csv", "a,,b\n1,2,3\n", "1:1: column 2 has no name"),
    "column twice": ("rows.csv", "a,b,a\n1,2,3\n", "1:1: column 3: 'a' is there already"),
    "column no name": ("rows.csv", "a,the price\n1,2\n", "1:1: column 2: 'the price' cannot be a variable's name"),
    "column reserved": ("rows.csv", "a,none\n1,2\n", "1:1: column 2: 'none' cannot be a variable's name"),
    "too few": ("rows.csv", "a,b\n1,2\n3\n", "3:1: the header names 2 columns, and this line has 1"),
    "too many": (
        "rows.csv",
        "a;b\n1;2;3\n",
        "2:1: the header names 2 columns, and this line has 3; a value with a semicolon in",
    ),
    "open quote": ("rows.csv", 'a,b\n1,"2\n', "2:1: this is no CSV: unexpected end of data"),
    "bad quote": ("rows.csv", 'a,b\n1,"2" x\n', "2:1: this is no CSV: ',' expected after '\"'"),
    "not UTF-8": ("rows.csv", b"a\n\xff\n", "2:1: this is not UTF-8 text"),
    "too big": ("rows.csv", b"a" * (MAX_BYTES + 1), "1:1: it has more than 5 MB"),
    "key twice": ("rows.json", '[{"a": 1, "a": 2}]', "1:2: 'a' is given twice"),
    "key twice in YAML": ("rows.yaml", "- a: 1\n  a: 2\n", "2:3: 'a' is given twice"),
    "key no name": ("rows.jsonl", '{"a": 1}\n{"a-b": 1}\n', "2:1: 'a-b' cannot be a variable's name"),
    "list as value": ("rows.json", '[{"a": [1]}]', "1:2: 'a' has to be text or a number"),
    "mapping as value": ("rows.yaml", "- a: 1\n- a: {b: c}\n", "2:6: 'a' has to be text or a number"),
    "row no object": ("rows.json", '[{"a": 1},\n"x"]', "2:1: a row is an object"),
    "row no mapping": ("rows.yaml", "- a: 1\n- x\n", "2:3: a row is a mapping"),
    "rows no list": ("rows.yaml", "a: 1\n", "1:1: rows are a list of mappings"),
    "an object around": ("rows.json", '{"rows": [{"a": 1}]}', "1:1: 'rows' has to be text or a number"),
    "no comma": ("rows.json", '[{"a": 1} {"a": 2}]', "1:11: this is no JSON: a comma is missing"),
    "list left open": ("rows.json", '[{"a": 1}\n', "2:1: this is no JSON: a comma is missing, or the list is not"),
    "something follows": ("rows.json", '[{"a": 1}]\n x', "2:2: this is no JSON: something follows the list"),
    "broken JSON": ("rows.json", '[{"a": 1},\n{"a" 2}]', "2:6: this is no JSON: Expecting ':' delimiter"),
    "not a number": ("rows.json", '[{"a": NaN}]', "1:2: this is no JSON: NaN is no number"),
    "too deep": ("rows.json", "[" * 100_000, "1:2: this is nested too deep"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_told_at_its_place(tmp_path: Path, mistake: str) -> None:
    name, text, told = MISTAKES[mistake]
    source = file(tmp_path, name, text)
    with pytest.raises(StoryboardError) as caught:
        read_rows(source)
    assert str(caught.value).startswith(f"{source}:{told}"), str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(StoryboardError, match=r"^nowhere\.csv:1:1: there is no such file"):
        read_rows("nowhere.csv")


@pytest.mark.parametrize(
    ("name", "row", "begin", "end"), [("r.csv", "1\n", "a\n", ""), ("r.json", '{"a":1},', "[", "]")]
)
def test_so_many_rows_and_no_more(tmp_path: Path, name: str, row: str, begin: str, end: str) -> None:
    assert len(read_rows(file(tmp_path, name, begin + row * MAX_ROWS + end))) == MAX_ROWS
    with pytest.raises(StoryboardError, match="more than 10,000 rows"):
        read_rows(file(tmp_path, name, begin + row * (MAX_ROWS + 1) + end))


def test_rows_that_are_given_are_texts_as_well() -> None:
    (row,) = rows_of([{"a": "x", "b": 7, "c": 1.5, "d": True, "e": None, "f": Decimal("1.50")}])
    assert row.values == {"a": "x", "b": "7", "c": "1.5", "d": "true", "f": "1.50"}
    assert row.called == "row 1"


@pytest.mark.parametrize(
    ("given_rows", "told"),
    [
        ([], "rows: there are no rows"),
        ([{"a": 1}, {"a": [1]}], "rows: row 2: 'a' has to be text or a number"),
        ([{"a b": 1}], "rows: row 1: 'a b' cannot be a variable's name"),
        ([{"a": 1}] * (MAX_ROWS + 1), "rows: these are more than 10,000 rows"),
    ],
)
def test_what_is_wrong_with_rows_that_are_given(given_rows: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(StoryboardError, match=f"^{re.escape(told)}"):
        rows_of(given_rows)


def answered(folder: Path, name: str, data: bytes) -> None:
    source = file(folder, name, data)
    try:
        found = read_rows(source)
    except StoryboardError as error:
        for line in str(error).split("\n"):
            assert re.match(rf"{re.escape(source)}(:\d+:\d+)?: \S", line), line
        return
    assert [row.number for row in found] == [*range(1, len(found) + 1)]
    for row in found:
        assert all(name.isidentifier() and isinstance(value, str) for name, value in row.values.items())


NAMES = st.sampled_from(["rows.csv", "rows.json", "rows.jsonl", "rows.yaml", "rows"])
SIGNS = st.text(st.sampled_from(string.ascii_lowercase[:3] + "0 \n\r\t:-?,;[]{}#&*|>'\"\\~.é港\x85\0"), max_size=60)


@FAST
@given(NAMES, st.binary(max_size=300))
def test_any_bytes_end_in_rows_or_a_refusal(tmp_path: Path, name: str, data: bytes) -> None:
    answered(tmp_path, name, data)


@FAST
@given(NAMES, st.lists(SIGNS | st.sampled_from(["a,b\n", "- a: 1\n", '{"a": 1}\n', '[{"a": null}', '"', "1,2\n"])))
def test_any_text_ends_in_rows_or_a_refusal(tmp_path: Path, name: str, parts: list[str]) -> None:
    answered(tmp_path, name, "".join(parts).encode())


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).map(str.strip).filter(bool)


@FAST
@given(st.lists(st.fixed_dictionaries({"a": CELLS, "b": CELLS}), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_any_values_arrive_as_they_were_written(tmp_path: Path, given_rows: list[dict[str, str]], sign: str) -> None:
    quoted = [sign.join('"' + row[name].replace('"', '""') + '"' for name in "ab") for row in given_rows]
    assert values(tmp_path, "rows.csv", "\n".join([sign.join("ab"), *quoted])) == given_rows
    assert values(tmp_path, "rows.json", json.dumps(given_rows)) == given_rows
    assert values(tmp_path, "rows.jsonl", "\n".join(map(json.dumps, given_rows))) == given_rows
    assert [dict(row.values) for row in rows_of(given_rows)] == given_rows


# Which columns a document uses.

NAMED = """\
title: "{{ product }} film"
look: "{{ look | default('plain') }}"
shots:
  - id: a
    prompt: "{{ city if city else 'home' }} with {coast}, {{ broken( }}"
  - id: b
    prompt: "{{ missing }} and {{ other }}"
    images:
      coast: "refs/{{ picture }}"
"""


def test_the_variables_that_a_document_names(tmp_path: Path) -> None:
    named = {"product", "look", "missing", "other", "picture"}
    assert variables_named(file(tmp_path, "film.yaml", NAMED)) == named
    assert variables_named(file(tmp_path, "film.yaml", NAMED.replace(", {{ broken( }}", ""))) == named | {"city"}
    typed = Storyboard(title="{{ product }}", shots=[Shot(id="a", prompt="{{ city | default('x') }}")])
    assert variables_named(typed) == {"product", "city"}


def test_a_document_that_cannot_be_read_names_none() -> None:
    with pytest.raises(StoryboardError, match="there is no such file"):
        variables_named("nowhere.yaml")


def test_the_largest_files_are_read_in_bounded_time(tmp_path: Path) -> None:
    wide = "[" + ",".join('{"a":"' + "x" * 450 + '"}' for _ in range(MAX_ROWS)) + "]"
    assert len(wide) < MAX_BYTES
    assert len(read_rows(file(tmp_path, "wide.json", wide))) == MAX_ROWS
