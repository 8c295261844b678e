"""The DAG drawn: as a tree for a terminal, and as a flowchart that Mermaid itself reads."""

from __future__ import annotations

import html
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_kling.storyboard.drawing import (
    MAX_DEPTH,
    MERMAID_ARROWS,
    WIDEST_COLUMN,
    Drawing,
    DrawnShot,
    Edge,
    Kind,
    edges,
    mermaid,
    mermaid_trouble,
    tree,
)
from prefect_kling.storyboard.plan import plan
from prefect_kling.storyboard.reader import Document

Read = Callable[..., Document]

VERSION = "11.17.2"


def shot(name: str, status: str = "new", *, takes: int | None = None, said: str = "", **more: Any) -> DrawnShot:
    takes = int(status in ("new", "stale")) if takes is None else takes
    return DrawnShot(name, status, said or status, 5, takes, Decimal("0.3165") * takes, **more)


def drawing(*shots: DrawnShot, taken: Sequence[tuple[str, Kind, str]] = (), path: Iterable[str] = ()) -> Drawing:
    return Drawing("Film", shots, tuple(Edge(start, end, kind) for start, kind, end in taken), tuple(path))


SMALL = drawing(
    shot("dawn", "kept"),
    shot("storm", "stale", said="stale through dawn"),
    shot("sketch", in_cut=False, takes=2, files=("harbour.png",)),
    shot("calm", notes=("kling-video-o1 pro",)),
    shot("lamp", "uncertain"),
    taken=[
        ("dawn", "base", "storm"),
        ("storm", "continues", "calm"),
        ("dawn", "end frame", "calm"),
        ("sketch", "continues", "lamp"),
        ("sketch", "end frame", "lamp"),
    ],
    path=("storm", "calm"),
)


def test_what_shots_take_from_each_other(read: Read) -> None:
    planned = plan(
        read("""\
title: T
shots:
  - {id: late, prompt: x, base: a}
  - {id: a, prompt: x}
  - {id: b, prompt: x, feature: a}
  - {id: c, prompt: x, continues: a, end_frame: b}
  - {id: d, prompt: x, first_frame: a, end_frame: "https://example.com/x.png"}
  - {id: e, prompt: x, feature: b, first_frame: c}
""")
    )
    assert edges(planned) == (
        Edge("a", "late", "base"),
        Edge("a", "b", "feature"),
        Edge("a", "c", "continues"),
        Edge("b", "c", "end frame"),
        Edge("a", "d", "continues"),
        Edge("b", "e", "feature"),
        Edge("c", "e", "continues"),
    )


# The tree.


def test_each_shot_hangs_below_what_it_takes_first() -> None:
    assert tree(SMALL) == [
        "  shot        how                      s     USD  is",
        "  dawn                                 5          kept",
        "* └─ storm    base                     5  0.3165  stale through dawn",
        "*    └─ calm  continues                5  0.3165  new; with end frame of dawn; kling-video-o1 pro",
        "  sketch                             2x5  0.6330  new; with harbour.png; not in the film",
        "  └─ lamp     continues + end frame    5          uncertain",
    ]


def test_shots_that_take_nothing_from_each_other_have_no_column_for_how() -> None:
    assert tree(drawing(shot("b"), shot("a"))) == [
        "  shot  s     USD  is",
        "  b     5  0.3165  new",
        "  a     5  0.3165  new",
    ]


def test_siblings_are_in_the_documents_order() -> None:
    taken: list[tuple[str, Kind, str]] = [
        ("a", "base", "d"),
        ("a", "base", "b"),
        ("b", "base", "c"),
        ("e", "base", "f"),
    ]
    lines = tree(drawing(*map(shot, "fdbaec"), taken=taken))
    assert [line[2:10].rstrip() for line in lines[1:]] == ["a", "├─ d", "└─ b", "   └─ c", "e", "└─ f"]


def chain(length: int, name: str = "s{}") -> Drawing:
    ids = [name.format(n) for n in range(length)]
    taken: list[tuple[str, Kind, str]] = [(one, "base", other) for one, other in itertools.pairwise(ids)]
    return drawing(*map(shot, ids), taken=taken, path=ids)


def test_a_long_chain_goes_on_at_the_left() -> None:
    lines = tree(chain(2000))
    assert [found[0] for line in lines[1:] if (found := re.search(r"s\d+", line))] == [f"s{n}" for n in range(2000)]
    assert max(map(len, lines)) <= 80
    last, first = lines[1 + MAX_DEPTH], lines[2 + MAX_DEPTH]
    assert last.endswith(f"s{MAX_DEPTH}    base  5  0.3165  new; goes on below")
    assert first.startswith(f"* s{MAX_DEPTH + 1} ")
    assert first.endswith(f"base  5  0.3165  new; made of s{MAX_DEPTH} above")


def test_one_long_name_does_not_push_all_columns_away() -> None:
    lines = tree(drawing(shot("x" * 64), shot("a")))
    assert len(lines[2]) == WIDEST_COLUMN + len("  5  0.3165  new")


NAMES = [f"s{n}" for n in range(12)]


@st.composite
def drawings(draw: st.DrawFn) -> Drawing:
    """Any DAG: each shot takes from some that come before it in an order of its own."""
    kinds: tuple[Kind, ...] = ("base", "feature", "continues", "end frame")
    order = draw(st.permutations(NAMES))
    taken = [
        Edge(start, end, draw(st.sampled_from(kinds)))
        for n, end in enumerate(order)
        for start in draw(st.lists(st.sampled_from(order[:n]), unique=True, max_size=3) if n else st.just([]))
    ]
    shots = tuple(shot(name, in_cut=draw(st.booleans())) for name in NAMES)
    return Drawing(draw(st.text(max_size=80)), shots, tuple(taken), ())


@given(drawings())
def test_every_shot_is_drawn_once_and_everything_it_takes_is_told(drawn: Drawing) -> None:
    lines = tree(drawn)[1:]
    rows = {found[1]: line for line in lines if (found := re.match(r"[* ] (?:[├└│─ ]*)(s\d+) ", line))}
    assert len(lines) == len(NAMES)
    assert set(rows) == set(NAMES)
    for edge in drawn.edges:
        assert edge.kind in rows[edge.end]


# Mermaid.


def test_a_flowchart_shows_order_costs_how_shots_stand_and_what_takes_longest() -> None:
    assert (
        mermaid(SMALL)
        == """\
flowchart LR
  s3["sketch<br/>2 x 5 s, 0.63 USD"]
  subgraph cut["in the film"]
    direction LR
    s1["1 · dawn<br/>5 s, kept"]
    s2["2 · storm<br/>5 s, 0.32 USD, stale"]
    s4["3 · calm<br/>5 s, 0.32 USD"]
    s5["4 · lamp<br/>5 s, uncertain"]
  end
  style cut fill:none
  s1 -->|base| s2
  s2 ==>|continues| s4
  s1 -->|end frame| s4
  s3 -->|continues + end frame| s5
  cut --> film(["Film<br/>4 shots, by number"])
  classDef kept fill:#dcfce7,stroke:#16a34a,color:#14532d
  class s1 kept
  classDef new fill:#f8fafc,stroke:#64748b,color:#0f172a
  class s3,s4 new
  classDef stale fill:#fef3c7,stroke:#d97706,color:#78350f
  class s2 stale
  classDef uncertain fill:#f3e8ff,stroke:#9333ea,color:#581c87
  class s5 uncertain
  classDef critical stroke-width:3px
  class s2,s4 critical
  classDef source stroke-dasharray:5 5
  class s3 source
"""
    )


LABEL = r'"(?:[\w ,.:+/·-]|#\d+;|<br/>)+"'
GRAMMAR = re.compile(
    "|".join(
        (
            "flowchart LR",
            rf"(  ){{1,2}}s\d+\[{LABEL}\]",
            r'  subgraph cut\["in the film"\]|    direction LR|  end|  style cut fill:none',
            r"  s\d+ (-->|==>)\|[a-z]+([ +]+[a-z]+)*\| s\d+",
            rf"  cut --> film\(\[{LABEL}\]\)",
            r"  classDef [a-z]+ [a-z-]+:[#\w ]+(,[a-z-]+:[#\w ]+)*",
            r"  class s\d+(,s\d+)* [a-z]+",
        )
    )
)


@given(drawings())
def test_no_title_leaves_its_label(drawn: Drawing) -> None:
    text = mermaid(drawn)
    assert [line for line in text.split("\n")[:-1] if not GRAMMAR.fullmatch(line)] == []


def test_pages_draw_only_so_much() -> None:
    small, large = chain(20), chain(600)
    assert mermaid_trouble(small, mermaid(small)) is None
    assert "600 arrows" in str(mermaid_trouble(large, mermaid(large)))
    wordy = chain(490, "x" * 58 + "-{}")
    text = mermaid(wordy)
    assert f"{len(text)} characters" in str(mermaid_trouble(wordy, text))


# Mermaid's text functions ask for a browser's DOM to take scripts out of labels; here nobody looks at them.
READER = """
Function.prototype.sanitize = (text) => text;
Function.prototype.addHook = () => {};
const { default: mermaid } = await import(process.argv[2]);
let given = "";
for await (const chunk of process.stdin) given += chunk;
const found = [];
for (const text of JSON.parse(given)) {
  await mermaid.parse(text);
  const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
  found.push({
    shapes: [...db.getVertices().values()].map((v) => [v.id, v.text, v.type ?? "", v.classes]),
    arrows: db.getEdges().map((e) => [e.start, e.end, e.text, e.stroke]),
    frames: db.getSubGraphs().map((g) => [g.id, g.title, [...g.nodes].sort()]),
  });
}
console.log(JSON.stringify(found));
"""


@pytest.fixture(scope="session")
def mermaid_module() -> Path:
    """Mermaid's own module, fetched once into the machine's temporary directory; it brings all that it needs."""
    kept = Path(tempfile.gettempdir()) / f"prefect-kling-tests-{os.getuid()}" / f"mermaid-{VERSION}"
    module = kept / "package" / "dist" / "mermaid.esm.min.mjs"
    if not module.exists():
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=kept.parent))
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"mermaid@{VERSION}"], cwd=making, check=True, capture_output=True, timeout=100
        )
        archive = making / packed.stdout.decode().split()[-1]
        shutil.unpack_archive(archive, making, filter="data")
        archive.unlink()
        try:
            making.rename(kept)
        except OSError:  # another run was quicker
            shutil.rmtree(making)
    return module


@pytest.mark.skipif(shutil.which("npm") is None or shutil.which("node") is None, reason="npm is not installed")
@pytest.mark.timeout(120)
def test_mermaid_reads_what_was_drawn(mermaid_module: Path, tmp_path: Path) -> None:
    """Labels, arrows and the frame arrive as they were meant, whatever a title holds."""
    titles = [
        "Film",
        "end",
        '"quoted" [a] (b) {c} <b>d</b> | e & f; g #quot; h `i` \\ 100 % -- x --> y',
        "1. Dawn",
        "- Dawn\n- Dusk",
        "風景 — el niño 🎬",
        "%%{init: {}}%% click cut call x()",
    ]
    script = tmp_path / "read.mjs"
    script.write_text(READER)
    large = chain(MERMAID_ARROWS)
    texts = [
        *(mermaid(Drawing(title, SMALL.shots, SMALL.edges, SMALL.critical_path)) for title in titles),
        mermaid(large),
    ]
    done = subprocess.run(
        ["node", script, mermaid_module], input=json.dumps(texts), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *read, long = json.loads(done.stdout)
    for title, found in zip(titles, read, strict=True):
        shapes = {name: (label(text), kind, classes) for name, text, kind, classes in found["shapes"]}
        said = " ".join(title.split())
        said = said if len(said) <= 60 else said[:59] + "…"
        assert shapes["film"] == (f"{said}<br/>4 shots, by number", "stadium", [])
        assert shapes["s2"] == ("2 · storm<br/>5 s, 0.32 USD, stale", "square", ["stale", "critical"])
        assert shapes["s3"] == ("sketch<br/>2 x 5 s, 0.63 USD", "square", ["new", "source"])
        assert found["arrows"] == [
            ["s1", "s2", "base", "normal"],
            ["s2", "s4", "continues", "thick"],
            ["s1", "s4", "end frame", "normal"],
            ["s3", "s5", "continues + end frame", "normal"],
            ["cut", "film", "", "normal"],
        ]
        assert found["frames"] == [["cut", "in the film", ["s1", "s2", "s4", "s5"]]]
    assert len(long["arrows"]) == MERMAID_ARROWS


def label(text: str) -> str:
    """What a reader sees of a label: Mermaid keeps its entity codes apart until it draws."""
    return html.unescape(re.sub(r"ﬂ°(°?)(\w+)¶ß", lambda f: f"&{'#' if f[1] else ''}{f[2]};", text))
