"""`{{ name }}`: what it can do, and that it can do nothing else, quickly."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.storyboard.reader import Document
from prefect_kling.storyboard.variables import Expansion, VariableProblem

Read = Callable[..., Document]

VALUES = {"product": "Lamp", "seconds": "4", "empty": ""}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("no variable, {harbour} and }} stay", "no variable, {harbour} and }} stay"),
        ("A {{ product }} at dawn", "A Lamp at dawn"),
        ("{{product}}{{ product }}", "LampLamp"),
        ("{{ product|upper }}", "LAMP"),
        ("{{ product | replace('L', 'C') | lower }}", "camp"),
        ("{{ other | default('nothing') }}", "nothing"),
        ("{{ seconds|int + 1 }}", "5"),
        ("{{ product ~ '!' }}", "Lamp!"),
        ("{{ 'lit' if product == 'Lamp' else 'dark' }}", "lit"),
        ("{{ '{{ x }}' }}", "{{ x }}"),
        ("{{ true }}", "True"),
        ("a {# no comment #} {{ product }}", "a {# no comment #} Lamp"),
        ("{# {{ product|lower }} #}", "{# lamp #}"),
        ("{{ product|truncate(3, leeway=0) }}", "..."),
        ("{{ " + "-" * 28 + "1 }}", "1"),
        ("{{ empty }}\n", "\n"),
        ("{{ product|lower }}\n", "lamp\n"),
    ],
)
def test_texts_are_filled(text: str, filled: str) -> None:
    assert Expansion(VALUES).text(text) == filled


def test_values_are_not_filled_again() -> None:
    assert Expansion({"x": "{{ y }}", "y": "z"}).text("{{ x }}") == "{{ y }}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "{{ produkt }}",
            "the variable 'produkt' is not given; give it with --set produkt=VALUE; did you mean 'product'",
        ),
        ("{{ produkt|upper }}", "the variable 'produkt' is not given"),
        ("{{ product", "the template cannot be read"),
        ("{{ product product }}", "the template cannot be read"),
        ("{{ }}", "the template cannot be read"),
        ("{% for x in 'ab' %}{{ x }}{% endfor %}", "{% blocks %} are not allowed"),
        ("{{ 'a' * 10**9 }}", "mul is not allowed"),
        ("{{ 10**10**10 }}", "pow is not allowed"),
        ("{{ '%1000000000d' % 1 }}", "mod is not allowed"),
        ("{{ range(10**9) }}", "call is not allowed"),
        ("{{ product.__class__ }}", "getattr is not allowed"),
        ("{{ product['__class__'] }}", "getitem is not allowed"),
        ("{{ [1, 2] }}", "list is not allowed"),
        ("{{ product is defined }}", "test is not allowed"),
        ("{{ product|center(1000000000) }}", "the filter 'center' is not allowed"),
        ("{{ 5|round(999999999, 'ceil') }}", "the filter 'round' is not allowed"),
        ("{{ product|uper }}", "the filter 'uper' is not allowed; did you mean 'upper'?"),
        ("{{ product|replace('', 'x' ~ big) }}", "replace makes the text longer than 20,000 characters"),
        ("{{ big ~ big ~ big }}", "with its variables the text has 30,000 characters"),
        ("{{ big }}{{ big }}{{ big }}", "with its variables the text has 30,000 characters"),
        ("{{ product" + "|urlencode" * 21 + " }}", "a text may use 100 variables and 20 filters"),
        ("{{ " + "~".join(["big"] * 101) + " }}", "a text may use 100 variables"),
        ("{{ " + "~".join("1" * 500) + " }}", "the template is too large"),
        ("{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}", "the template is nested too deep"),
        ("{{ " + "not " * 4000 + "1 }}", "the template is nested too deep"),
        ("{{ 1 }}" + "x" * 20_000, "a text with variables may have 20,000 characters"),
        ("{{ " + "9" * 5000 + " }}", "the template cannot be read"),
        ("{{ 1 + 'a' }}", "the template cannot be read"),
        ("{{ product|truncate(1) }}", "the template cannot be read: expected length >= 3, got 1"),
        ("{{ 1e999|int }}", "the template has a number that is too large"),
        ("{{ '\\0' }}", "this is no text: it holds NUL"),
        ("{{ '\\ud800' }}", "this is no text: it holds NUL, or half a character"),
        ("{{ " + "not " * 300 + "product }}", "the template is nested too deep"),
        ("{{ " + "-" * 300 + "product }}", "the template is nested too deep"),
        ("{{ " + "(product if product else " * 40 + "1" + ")" * 40 + " }}", "the template is nested too deep"),
        ("{{ (big ~ big ~ big)|urlencode }}", "the filter 'urlencode' takes 20,000 characters, not 30,000"),
        ("{{ 'a'|default(default_value=big ~ big ~ big) }}", "the filter 'default' takes 20,000 characters"),
        ("{{ self }}", "'self' cannot be a variable's name"),
        *(
            (f"{{{{ {name}|string }}}}", f"the variable '{name}' is not given")
            for name in ("range", "dict", "lipsum", "cycler", "joiner", "namespace")
        ),
    ],
)
def test_texts_are_refused(text: str, told: str) -> None:
    with pytest.raises(VariableProblem) as caught:
        Expansion({"product": "Lamp", "big": "x" * 10_000}).text(text)
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a-b", "1a", "true", "if", "self"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(VariableProblem, match="cannot be a variable's name"):
        Expansion({name: "x"})


@pytest.mark.parametrize("value", [5, None, "x" * 10_001, "a\0", "a\udcff"])
def test_values_that_are_none(value: object) -> None:
    with pytest.raises(VariableProblem):
        Expansion({"x": value})  # type: ignore[dict-item]


FORMS = {
    "not": ("not ", ""),
    "minus": ("-", ""),
    "if": ("(x if x else ", ")"),
    "condition": ("(x if ", " else x)"),
    "concatenated": ("(x ~ ", ")"),
    "added": ("(x + ", ")"),
    "argument": ("x|d(", ")"),
    "filtered": ("(", "|d(x)|string)"),
    "compared": ("(x == ", ")"),
    "and": ("(x and ", ")"),
    "contained": ("(x in ", ")"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("depth", [1, 9, 14, 20, 27, 28, 29, 30, 60, 100])
@pytest.mark.timeout(10)
def test_what_is_nested_is_filled_in_or_refused(form: str, depth: int) -> None:
    before, after = FORMS[form]
    try:
        Expansion({"x": "1"}).text("{{ " + before * depth + "x" + after * depth + " }}")
    except VariableProblem as error:
        told = str(error)
        assert "nested too deep" in told or "a text may use" in told or "cannot be read" in told
        assert depth > 1 or "cannot be read" in told


def test_the_templates_of_a_whole_document_take_bounded_time() -> None:
    texts = ["{{ x|upper|lower|title|trim|upper|lower|title|trim|truncate(5) }}"] * 100_000
    with pytest.raises(VariableProblem, match="the document's templates take too long"):
        list(map(Expansion({"x": "é" * 10_000}).text, texts))


def test_what_a_whole_document_becomes_is_bounded() -> None:
    with pytest.raises(VariableProblem, match="with its variables the document has more than 10,000,000 characters"):
        list(map(Expansion({"x": "y" * 10_000}).text, ["{{ x }}"] * 1001))


TEXT = 'title: "{{ name }}"\nshots:\n  - id: "{{ name|lower }}"\n    prompt: x\n    duration: "{{ seconds }}"\n'


def test_variables_fill_any_text_of_a_document(read: Read) -> None:
    board = read(TEXT, {"name": "Dawn", "seconds": "7"}).storyboard
    assert (board.title, board.shots[0].id, board.shots[0].duration) == ("Dawn", "dawn", 7)


def test_a_missing_variable_is_told_at_each_place_and_nothing_else_is(read: Read) -> None:
    with pytest.raises(StoryboardError) as caught:
        read(TEXT)
    assert [line.split(": ")[0] for line in str(caught.value).split("\n")] == [
        "film.yaml:1:8",
        "film.yaml:3:9",
        "film.yaml:5:15",
    ]


def test_a_variable_that_nothing_uses_is_a_mistake(read: Read) -> None:
    with pytest.raises(StoryboardError) as caught:
        read(TEXT, {"name": "Dawn", "seconds": "7", "second": "7"})
    told = "film.yaml:1:1: the variable 'second' is used nowhere in this document; did you mean 'seconds'?"
    assert str(caught.value) == told
    with pytest.raises(StoryboardError, match="is used nowhere in this document; it uses no variables at all"):
        read("title: T\nshots: [{id: a, prompt: x}]\n", {"x": "y"})


def test_what_a_variable_made_of_a_value_is_checked_at_its_place(read: Read) -> None:
    with pytest.raises(
        StoryboardError, match=r"film\.yaml:5:15: shot 'dawn': duration: takes a whole number, not 'soon'"
    ):
        read(TEXT, {"name": "Dawn", "seconds": "soon"})
