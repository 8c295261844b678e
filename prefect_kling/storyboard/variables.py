"""`{{ name }}` in a storyboard's texts: Jinja2's sandbox, cut down to what cannot run long or grow large.

Allowed are names, constants, `+ - ~`, comparisons, `x if y else z` and the filters below. Blocks, calls, attributes,
multiplication and ranges are refused before anything is evaluated: a sandbox keeps a template from reaching out, not
from looping or from filling the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from jinja2 import StrictUndefined, TemplateError, UndefinedError, nodes
from jinja2.sandbox import SandboxedEnvironment

from prefect_kling.storyboard.places import did_you_mean, short

__all__ = ["MAX_TEXT", "MAX_VALUE", "Expansion", "VariableProblem"]

MAX_VALUE = 10_000
MAX_TEXT = 20_000
_MAX_NODES = 400
_MAX_NAMES = 100
_MAX_FILTERS = 20

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
_RESERVED = frozenset({"true", "false", "none", "True", "False", "None", "not", "and", "or", "if", "else", "in", "is"})


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
            if not name.isidentifier() or name in _RESERVED:
                raise VariableProblem(f"'{short(name)}' cannot be a variable's name; use letters, digits and _")
            if len(value) > MAX_VALUE or "\0" in value:
                raise VariableProblem(f"the variable '{short(name)}' is too long or holds a NUL character")
        self._values = dict(variables)
        self._environment: SandboxedEnvironment | None = None
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
        if "{{" not in text and "{%" not in text:
            return text
        if "{%" in text:
            raise VariableProblem("{% blocks %} are not allowed; only {{ variables }} and filters are")
        if len(text) > MAX_TEXT:
            raise VariableProblem(f"a text with variables may have {MAX_TEXT:,} characters, not {len(text):,}")
        # Compiling a template takes 1 ms, and there may be thousands of texts that hold nothing but names.
        rest = _NAME.sub("", text)
        if "{{" not in rest and "}}" not in rest and not _RESERVED.intersection(_NAME.findall(text)):
            filled = _NAME.sub(lambda match: self._value(match[1]), text)
        else:
            filled = self._rendered(text)
        if len(filled) > MAX_TEXT:
            raise VariableProblem(f"with its variables the text has {len(filled):,} characters; at most {MAX_TEXT:,}")
        return filled

    def _value(self, name: str) -> str:
        self.named.add(name)
        if name not in self._values:
            raise VariableProblem(_undefined(name, self._values))
        return self._values[name]

    def _rendered(self, text: str) -> str:
        environment = self._environment = self._environment or _environment()
        try:
            template = environment.parse(text)
            self.named |= _checked(template)
            return environment.from_string(template).render(self._values)
        except UndefinedError as error:
            raise VariableProblem(self._told(error)) from error
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            if isinstance(error, VariableProblem):
                raise
            raise VariableProblem(f"the template cannot be read: {error}") from error
        except (RecursionError, MemoryError) as error:
            raise VariableProblem("the template is nested too deep") from error

    def _told(self, error: UndefinedError) -> str:
        missing = re.match(r"'(\w+)' is undefined", error.message or "")
        return _undefined(missing[1], self._values) if missing else f"the template cannot be filled in: {error}"


def _undefined(name: str, values: Mapping[str, str]) -> str:
    hint = did_you_mean(name, values) if values else ""
    return f"the variable '{short(name)}' is not given; give it with --set {short(name)}=VALUE{hint}"


def _environment() -> SandboxedEnvironment:
    # Comments would eat text such as {#1}; nothing that a document may hold starts one with these signs.
    environment = SandboxedEnvironment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        comment_start_string="\0#",
        comment_end_string="#\0",
        cache_size=0,
    )
    environment.filters["replace"] = _replace
    return environment


def _replace(value: object, old: object, new: object) -> str:
    text, before, after = str(value), str(old), str(new)
    if len(text) + text.count(before) * len(after) > MAX_TEXT:
        raise VariableProblem(f"replace makes the text longer than {MAX_TEXT:,} characters")
    return text.replace(before, after)


def _checked(template: nodes.Template) -> set[str]:
    names: set[str] = set()
    mentions = filters = 0
    for count, node in enumerate(_walk(template)):
        if count > _MAX_NODES:
            raise VariableProblem("the template is too large; compute such things before, and give the result")
        if not isinstance(node, _ALLOWED):
            raise VariableProblem(
                f"{type(node).__name__.lower()} is not allowed; only names, constants, + - ~, comparisons and filters"
            )
        filters += isinstance(node, nodes.Filter)
        if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
            raise VariableProblem(f"the filter '{short(node.name)}' is not allowed{did_you_mean(node.name, _FILTERS)}")
        if isinstance(node, nodes.Name):
            mentions += 1
            names.add(node.name)
    if mentions > _MAX_NAMES or filters > _MAX_FILTERS:
        raise VariableProblem(f"a text may use {_MAX_NAMES} variables and {_MAX_FILTERS} filters, and this uses more")
    return names


def _walk(template: nodes.Template) -> Iterator[nodes.Node]:
    waiting: list[nodes.Node] = [template]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.iter_child_nodes())
