"""`{{ name }}` in a storyboard's texts: Jinja2's sandbox, cut down to what cannot run long or grow large.

Allowed are names, constants, `+ - ~`, comparisons, `x if y else z` and the filters below. Blocks, calls, attributes,
multiplication and ranges are refused before anything is evaluated: a sandbox keeps a template from reaching out, not
from looping or from filling the memory. What is left is counted over the whole document, and ends.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jinja2 import StrictUndefined, TemplateError, UndefinedError, nodes
from jinja2.sandbox import SandboxedEnvironment

from prefect_kling.storyboard.places import did_you_mean, short

__all__ = ["MAX_TEXT", "MAX_VALUE", "Expansion", "VariableProblem", "is_name"]

MAX_VALUE = 10_000
MAX_TEXT = 20_000
_MAX_NODES = 400
_MAX_NAMES = 100
_MAX_FILTERS = 20
# Jinja works out constants anew at each level, and Python's parser takes 200 parentheses within each other.
_MAX_DEPTH = 30
# Over all texts of a document. 2,000 prompts with a filter or two take about 2 million microseconds of work.
_MAX_WORK = 8_000_000
_MAX_FILLED = 10_000_000
# What takes a microsecond: a fifth of a sign read by Jinja, a hundredth of a node compiled, ten signs in a filter.
_PER_SIGN, _PER_NODE, _SIGNS_FILTERED = 5, 100, 10

# None of these gives more than a few times what it takes. `round` computes powers of ten, `center` pads without end.
_FILTERS = (
    "abs", "capitalize", "d", "default", "first", "float", "int", "last", "length", "lower", "replace", "string",
    "title", "trim", "truncate", "upper", "urlencode", "wordcount",
)  # fmt: skip
_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Filter, nodes.Keyword,
    nodes.Add, nodes.Sub, nodes.Concat, nodes.Neg, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not,
    nodes.CondExpr,
)  # fmt: skip
_NAME = re.compile(r"\{\{[ \t\n]*([^\W\d]\w*)[ \t\n]*\}\}")
# What Jinja reads as something other than a variable.
_RESERVED = frozenset(
    {"true", "false", "none", "True", "False", "None", "not", "and", "or", "if", "else", "in", "is", "self"}
)


_TOO_DEEP = "the template is nested too deep"


class VariableProblem(ValueError):
    """A text's variables cannot be filled in; the message says why and what to do."""


class Expansion:
    """Fills variables into texts and remembers which were used.

    Args:
        variables: name to value; values of more than 10,000 characters are refused.

    Raises:
        VariableProblem: a name or a value that cannot be one.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        for name, value in variables.items():
            if not isinstance(value, str):
                raise VariableProblem(f"the variable '{short(str(name))}' has to be text, not {type(value).__name__}")
            if not is_name(name):
                raise VariableProblem(f"'{short(name)}' cannot be a variable's name; use letters, digits and _")
            if len(value) > MAX_VALUE:
                raise VariableProblem(f"the variable '{short(name)}' has more than {MAX_VALUE:,} characters")
            if not _is_text(value):
                raise VariableProblem(f"the variable '{short(name)}' holds what is no text: NUL, or half a character")
        self._values = dict(variables)
        self._environment: SandboxedEnvironment | None = None
        self._work = self._length = 0
        self.named: set[str] = set()
        self.failed = False

    def text(self, text: str) -> str:
        """`text` with its variables filled in.

        Raises:
            VariableProblem: an unknown variable, or a template that is wrong or does more than it may.
        """
        try:
            return self._filled(text)
        except VariableProblem:
            self.failed = True
            raise

    def look(self, text: str) -> None:
        """Adds the variables that a text names to `named`, without filling them in.

        Raises:
            VariableProblem: the template is wrong or does more than it may.
        """
        if "{{" not in text or len(text) > MAX_TEXT:
            return
        self.named |= set(_NAME.findall(text)) if _is_simple(text) else self._parsed(text)[1]

    def unused(self) -> list[str]:
        """What is wrong with the variables that were given and that no text named, a sentence each.

        Nothing where a text could not be filled in: it may be the one that meant them.
        """
        if self.failed:
            return []
        return [
            f"the variable '{name}' is used nowhere in this document"
            + (did_you_mean(name, sorted(self.named)) if self.named else "; it uses no variables at all")
            for name in self._values
            if name not in self.named
        ]

    def _filled(self, text: str) -> str:
        if "\0" in text:
            raise VariableProblem("the text holds a NUL character; remove it")
        if "{{" not in text and "{%" not in text:
            return text
        if "{%" in text:
            raise VariableProblem("{% blocks %} are not allowed; only {{ variables }} and filters are")
        if len(text) > MAX_TEXT:
            raise VariableProblem(f"a text with variables may have {MAX_TEXT:,} characters, not {len(text):,}")
        filled = _NAME.sub(lambda match: self._value(match[1]), text) if _is_simple(text) else self._rendered(text)
        if len(filled) > MAX_TEXT:
            raise VariableProblem(f"with its variables the text has {len(filled):,} characters; at most {MAX_TEXT:,}")
        if not _is_text(filled):
            raise VariableProblem("with its variables this is no text: it holds NUL, or half a character")
        self._length += len(filled)
        if self._length > _MAX_FILLED:
            raise VariableProblem(f"with its variables the document has more than {_MAX_FILLED:,} characters")
        return filled

    def _value(self, name: str) -> str:
        self.named.add(name)
        if name not in self._values:
            raise VariableProblem(_undefined(name, self._values))
        return self._values[name]

    def _rendered(self, text: str) -> str:
        environment, names, template = self._parsed(text)
        self.named |= names
        try:
            with _readable():
                return environment.from_string(template).render(self._values)
        except UndefinedError as error:
            raise VariableProblem(self._told(error)) from error

    def _parsed(self, text: str) -> tuple[SandboxedEnvironment, set[str], nodes.Template]:
        """A template, the names that it uses, and what renders it."""
        environment = self._environment = self._environment or _environment(self._spend)
        self._spend(_PER_SIGN * len(text))
        with _readable():
            template = environment.parse(text)
            names, size = _checked(template)
        self._spend(_PER_NODE * size)
        return environment, names, template

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > _MAX_WORK:
            raise VariableProblem("the document's templates take too long; compute such things before, and give them")

    def _told(self, error: UndefinedError) -> str:
        missing = re.match(r"'(\w+)' is undefined", error.message or "")
        return _undefined(missing[1], self._values) if missing else f"the template cannot be filled in: {error}"


@contextmanager
def _readable() -> Iterator[None]:
    """Tells whatever Jinja finds wrong with a template as a `VariableProblem`, but for undefined names."""
    try:
        yield
    except (VariableProblem, UndefinedError):
        raise
    except (TemplateError, TypeError, ValueError, ArithmeticError, AssertionError) as error:
        raise VariableProblem(f"the template cannot be read: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise VariableProblem(_TOO_DEEP) from error


def _is_simple(text: str) -> bool:
    """Whether a text holds nothing but names: compiling takes 1 ms, and there may be thousands of such texts."""
    rest = _NAME.sub("", text)
    return "{{" not in rest and "}}" not in rest and not _RESERVED.intersection(_NAME.findall(text))


def is_name(name: str) -> bool:
    """Whether a variable can be called so."""
    return name.isidentifier() and name not in _RESERVED


def _undefined(name: str, values: Mapping[str, str]) -> str:
    hint = did_you_mean(name, values) if values else ""
    return f"the variable '{short(name)}' is not given; give it with --set {short(name)}=VALUE{hint}"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _environment(spend: Callable[[int], None]) -> SandboxedEnvironment:
    # Comments would eat text such as {#1}; nothing that a document may hold starts one with these signs.
    environment = SandboxedEnvironment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        comment_start_string="\0#",
        comment_end_string="#\0",
        cache_size=0,
    )
    # `range` or `dict` would stand in the text as a Python object where somebody forgot to give a variable.
    environment.globals.clear()
    environment.filters["replace"] = _replace
    for name in _FILTERS:
        environment.filters[name] = _bounded(name, environment.filters[name], spend)
    return environment


def _bounded(name: str, plain: Callable[..., Any], spend: Callable[[int], None]) -> Callable[..., Any]:
    """A filter that takes texts of a bounded length; Jinja's marks on it are kept."""

    @functools.wraps(plain)
    def bounded(*given: object, **named: object) -> object:
        signs = sum(len(value) for value in (*given, *named.values()) if isinstance(value, str))
        if signs > MAX_TEXT:
            raise VariableProblem(f"the filter '{name}' takes {MAX_TEXT:,} characters, not {signs:,}")
        spend(signs // _SIGNS_FILTERED)
        return plain(*given, **named)

    return bounded


def _replace(value: object, old: object, new: object) -> str:
    text, before, after = str(value), str(old), str(new)
    if len(text) + text.count(before) * len(after) > MAX_TEXT:
        raise VariableProblem(f"replace makes the text longer than {MAX_TEXT:,} characters")
    return text.replace(before, after)


def _checked(template: nodes.Template) -> tuple[set[str], int]:
    """The names that a template uses, and its size in nodes.

    Raises:
        VariableProblem: it does more than it may.
    """
    names: set[str] = set()
    mentions = filters = count = 0
    for node, depth in _walk(template):
        count += 1
        if count > _MAX_NODES:
            raise VariableProblem("the template is too large; compute such things before, and give the result")
        if depth > _MAX_DEPTH:
            raise VariableProblem(_TOO_DEEP)
        _check_node(node)
        filters += isinstance(node, nodes.Filter)
        if isinstance(node, nodes.Name):
            mentions += 1
            names.add(node.name)
    if mentions > _MAX_NAMES or filters > _MAX_FILTERS:
        raise VariableProblem(f"a text may use {_MAX_NAMES} variables and {_MAX_FILTERS} filters, and this uses more")
    return names, count


def _check_node(node: nodes.Node) -> None:
    if not isinstance(node, _ALLOWED):
        raise VariableProblem(
            f"{type(node).__name__.lower()} is not allowed; only names, constants, + - ~, comparisons and filters"
        )
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        raise VariableProblem(f"the filter '{short(node.name)}' is not allowed{did_you_mean(node.name, _FILTERS)}")
    if isinstance(node, nodes.Name) and node.name == "self":
        raise VariableProblem("'self' cannot be a variable's name")
    if isinstance(node, nodes.Const) and isinstance(node.value, float) and not math.isfinite(node.value):
        raise VariableProblem("the template has a number that is too large")


def _walk(template: nodes.Template) -> Iterator[tuple[nodes.Node, int]]:
    waiting: list[tuple[nodes.Node, int]] = [(template, 0)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        waiting.extend((child, depth + 1) for child in node.iter_child_nodes())
