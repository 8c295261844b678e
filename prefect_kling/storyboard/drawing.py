"""The shots of a plan and what each takes from which, drawn: as a tree of text lines, and as a Mermaid flowchart. Pure.

Both draw every shot once. Nothing recurses, so a chain may be as long as a document allows.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from prefect_kling.storyboard.inputs import Input
from prefect_kling.storyboard.plan import Plan, PlannedShot

__all__ = ["Drawing", "DrawnShot", "Edge", "edges", "mermaid", "mermaid_trouble", "tree"]

Kind = Literal["base", "feature", "continues", "end frame"]

MAX_DEPTH = 10
"""How many shots deep the tree is indented; what comes below goes on at the left."""
WIDEST_COLUMN = 44
"""Up to how many characters the tree's columns are kept in line."""

# Mermaid's own limits, which a page such as GitHub's cannot be told to lift (its settings maxTextSize and maxEdges).
MERMAID_CHARACTERS = 50_000
MERMAID_ARROWS = 500
MERMAID_TITLE = 60

# One dark text on light fills, so that it reads on a light page and on a dark one.
_CLASSES: Final[dict[str, str]] = {
    "kept": "fill:#dcfce7,stroke:#16a34a,color:#14532d",
    "new": "fill:#f8fafc,stroke:#64748b,color:#0f172a",
    "stale": "fill:#fef3c7,stroke:#d97706,color:#78350f",
    "running": "fill:#dbeafe,stroke:#2563eb,color:#1e3a8a",
    "failed": "fill:#fee2e2,stroke:#dc2626,color:#7f1d1d",
    "uncertain": "fill:#f3e8ff,stroke:#9333ea,color:#581c87",
    "lost": "fill:#e5e7eb,stroke:#111827,color:#111827",
    "critical": "stroke-width:3px",
    "source": "stroke-dasharray:5 5",
}
# All but these are written as Mermaid's entity codes: its labels are HTML, and its grammar ends at some of them.
_SPECIAL = re.compile(r"[^\w ,.:+/·-]")
# What begins like a list item is one to Mermaid, and lists are refused.
_LIST = re.compile(r"^(\d+|)([.+-])(?= )")


@dataclass(frozen=True)
class Edge:
    """One shot taking something from another.

    Attributes:
        start, end: ids of the shot that is taken from, and of the one that takes.
        kind: what is taken. A first frame that names a shot is its last frame, and so the same as `continues`.
    """

    start: str
    end: str
    kind: Kind


@dataclass(frozen=True)
class DrawnShot:
    """What a drawing shows of a shot.

    Attributes:
        id: the shot's.
        status: how it stands, in one word: a class of the flowchart.
        said: the same in all its words, such as `stale through dawn`.
        seconds: of one take.
        takes: how many are still to be bought.
        usd: what those most likely cost together.
        in_cut: whether the film shows it.
        files: names of the files that it takes in.
        notes: what else is to be said of it.
    """

    id: str
    status: str
    said: str
    seconds: int
    takes: int
    usd: Decimal
    in_cut: bool = True
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """What is drawn.

    Attributes:
        title: of the film.
        shots: in the film's order.
        edges: between them.
        critical_path: ids of the chain of shots that decides how long all of it takes.
    """

    title: str
    shots: tuple[DrawnShot, ...]
    edges: tuple[Edge, ...]
    critical_path: tuple[str, ...] = ()


def edges(plan: Plan) -> tuple[Edge, ...]:
    """What the shots of a plan take from each other, in the document's order."""
    return tuple(
        Edge(entry.source, shot.id, _kind(shot, entry)) for shot in plan.shots for entry in shot.inputs if entry.of_shot
    )


def _kind(shot: PlannedShot, entry: Input) -> Kind:
    if entry.place[0] == "video_list":
        return "base" if shot.request.base_video is not None else "feature"
    image = (shot.request.image_list or ())[int(entry.place[1])]
    return "end frame" if image.type == "end_frame" else "continues"


# The tree.


def tree(drawing: Drawing) -> list[str]:
    """The drawing as lines: each shot below the one that it takes first from, in the document's order, then columns.

    What it takes besides is told in words. A `*` marks the critical path. A chain of more than `MAX_DEPTH` shots goes
    on at the left.
    """
    critical = set(drawing.critical_path)
    shots = {shot.id: shot for shot in drawing.shots}
    taken: defaultdict[str, defaultdict[str, list[Kind]]] = defaultdict(lambda: defaultdict(list))
    for edge in drawing.edges:
        taken[edge.end][edge.start].append(edge.kind)
    rows = [("  shot", "how", "s", "USD", "is")]
    for branch in _branches(drawing.shots, {name: next(iter(needs)) for name, needs in taken.items()}):
        shot, needs = shots[branch.id], dict(taken[branch.id])
        how = " + ".join(needs.pop(branch.under, []))
        rows.append(
            (
                f"{'*' if shot.id in critical else ' '} {branch.lines}{shot.id}",
                how,
                f"{shot.takes}x{shot.seconds}" if shot.takes > 1 else str(shot.seconds),
                f"{shot.usd:.4f}" if shot.takes else "",
                "; ".join(_words(shot, branch, needs)),
            )
        )
    return _in_columns(rows)


@dataclass(frozen=True)
class _Branch:
    """A shot's place in the tree: the lines before its id, and the shot it hangs below, of which it may be far away."""

    id: str
    lines: str
    under: str
    moved: bool
    goes_on: bool


def _branches(shots: Iterable[DrawnShot], parents: Mapping[str, str]) -> Iterable[_Branch]:
    """Each shot once, in the tree's order."""
    below: defaultdict[str, list[str]] = defaultdict(list)
    for shot in shots:
        below[parents.get(shot.id, "")].append(shot.id)
    # A stack for each column that is open: what hangs deepest is taken first, what was moved before the next root.
    moved: list[list[str]] = [below[""]]
    while moved:
        roots = moved[-1]
        if not roots:
            moved.pop()
            continue
        root = roots.pop(0)
        waiting = [(root, "", "", 0)]
        later: list[str] = []
        while waiting:
            name, lines, further, depth = waiting.pop()
            children = below[name]
            deep = depth == MAX_DEPTH
            yield _Branch(
                name, lines, parents.get(name, ""), moved=name in parents and not depth, goes_on=bool(deep and children)
            )
            if deep:
                later += children
                continue
            hung = [(child, f"{further}├─ ", f"{further}│  ", depth + 1) for child in children[:-1]]
            hung += [(child, f"{further}└─ ", f"{further}   ", depth + 1) for child in children[-1:]]
            waiting += reversed(hung)
        moved.append(later)


def _words(shot: DrawnShot, branch: _Branch, needs: Mapping[str, Iterable[Kind]]) -> list[str]:
    words = [shot.said]
    if branch.moved:
        words.append(f"made of {branch.under} above")
    further = [f"{kind} of {need}" for need, kinds in needs.items() for kind in kinds]
    if further or shot.files:
        words.append("with " + ", ".join([*further, *shot.files]))
    if not shot.in_cut:
        words.append("not in the film")
    if branch.goes_on:
        words.append("goes on below")
    return words + list(shot.notes)


def _in_columns(rows: list[tuple[str, str, str, str, str]]) -> list[str]:
    """Lines with their columns below each other, as far as they are narrow enough."""
    widths = [max(min(len(cell), WIDEST_COLUMN) for cell in column) for column in zip(*rows, strict=True)]
    if widths[1] == len("how") and not any(row[1] for row in rows[1:]):
        rows, widths[1] = [(row[0], "", *row[2:]) for row in rows], 0
    lines = []
    for name, how, seconds, usd, words in rows:
        cells = [name.ljust(widths[0]), how.ljust(widths[1]), seconds.rjust(widths[2]), usd.rjust(widths[3]), words]
        lines.append("  ".join(cell for cell, width in zip(cells, widths, strict=True) if width).rstrip())
    return lines


# Mermaid.


def mermaid(drawing: Drawing) -> str:
    """The drawing as a Mermaid `flowchart`, which GitHub and Mermaid's command line render.

    Shots in the film are numbered in its order, and stand in a frame of which the film is made; dashed ones are only
    sources. Thick lines are the critical path, colours say how a shot stands.
    """
    names = {shot.id: f"s{n}" for n, shot in enumerate(drawing.shots, 1)}
    shown = {shot.id: n for n, shot in enumerate((shot for shot in drawing.shots if shot.in_cut), 1)}
    lines = ["flowchart LR"]
    lines += [_node(shot, names[shot.id], 0) for shot in drawing.shots if not shot.in_cut]
    # What a frame holds is laid out across the chart's direction, unless its own is said.
    lines += ['  subgraph cut["in the film"]', "    direction LR"]
    lines += [f"  {_node(shot, names[shot.id], shown[shot.id])}" for shot in drawing.shots if shot.in_cut]
    lines += ["  end", "  style cut fill:none"]
    path = set(itertools.pairwise(drawing.critical_path))
    for (start, end), kinds in _arrows(drawing.edges).items():
        arrow = "==>" if (start, end) in path else "-->"
        lines.append(f"  {names[start]} {arrow}|{' + '.join(kinds)}| {names[end]}")
    counted = "1 shot" if len(shown) == 1 else f"{len(shown)} shots, by number"
    lines.append(f'  cut --> film(["{_escaped(_shortened(drawing.title))}<br/>{counted}"])')
    members = {
        **{status: [shot.id for shot in drawing.shots if shot.status == status] for status in _CLASSES},
        "critical": drawing.critical_path,
        "source": [shot.id for shot in drawing.shots if not shot.in_cut],
    }
    for name, ids in members.items():
        if ids:
            lines.append(f"  classDef {name} {_CLASSES[name]}")
            lines.append(f"  class {','.join(names[shot] for shot in ids)} {name}")
    return "\n".join(lines) + "\n"


def mermaid_trouble(drawing: Drawing, text: str) -> str | None:
    """Why Mermaid as pages set it up would not draw the text, or None."""
    arrows = len(_arrows(drawing.edges)) + 1
    if len(text) <= MERMAID_CHARACTERS and arrows <= MERMAID_ARROWS:
        return None
    return (
        f"The flowchart has {len(text)} characters and {arrows} arrows. GitHub draws up to {MERMAID_CHARACTERS} and "
        f"{MERMAID_ARROWS}; Mermaid's own command line draws it with maxTextSize and maxEdges set higher in its "
        "--configFile"
    )


def _arrows(edges: Iterable[Edge]) -> dict[tuple[str, str], list[Kind]]:
    """One arrow between two shots, whatever is taken."""
    found: defaultdict[tuple[str, str], list[Kind]] = defaultdict(list)
    for edge in edges:
        found[edge.start, edge.end].append(edge.kind)
    return found


def _node(shot: DrawnShot, name: str, number: int) -> str:
    parts = [f"{shot.takes} x {shot.seconds} s" if shot.takes > 1 else f"{shot.seconds} s"]
    if shot.takes:
        parts.append(f"{shot.usd:.2f} USD")
    if shot.status != "new":
        parts.append(shot.status)
    title = f"{number} · {shot.id}" if number else shot.id
    return f'  {name}["{_escaped(title)}<br/>{_escaped(", ".join(parts))}"]'


def _escaped(text: str) -> str:
    text = _SPECIAL.sub(lambda found: f"#{ord(found[0])};", " ".join(text.split()))
    return _LIST.sub(lambda found: f"{found[1]}#{ord(found[2])};", text)


def _shortened(text: str) -> str:
    return text if len(text) <= MERMAID_TITLE else text[: MERMAID_TITLE - 1] + "…"
