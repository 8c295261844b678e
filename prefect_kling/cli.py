"""The `prefect-kling` command: render, plan, schema, simulate; the others are in the modules `cli_…`.

Exit codes: 0 done; 2 bad usage or document; 3 the gateway refused; 4 budget or credits; 5 an uncertain purchase waits
for a decision; 6 media broken; 7 generation failed or timed out; 130 interrupted. Of several, the first in the order
130, 5, 4, 3, 7, 6. `--json` prints one JSON document to stdout; words for people go to stderr.
"""

from __future__ import annotations

import asyncio
import gc
import json as jsonlib
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from prefect_kling.cli_adopt import adopt
from prefect_kling.cli_automations import automations
from prefect_kling.cli_codes import INTERRUPTED, USAGE, exit_code
from prefect_kling.cli_doctor import doctor
from prefect_kling.cli_init import init
from prefect_kling.cli_join import join
from prefect_kling.cli_ledger import ledger, sweep
from prefect_kling.cli_receive import receive
from prefect_kling.cli_series import series
from prefect_kling.cli_studio import (
    StudioName,
    reachable_server,
    set_up_prefect,
    studio_at_work,
    studio_named,
    told,
    variables_of,
)
from prefect_kling.gateway.errors import KlingError, StoryboardError
from prefect_kling.media.addresses import moved
from prefect_kling.media.scratch import publish, scratch, writable
from prefect_kling.terminal import announce, watching

if TYPE_CHECKING:
    from prefect_kling.clips import ClipStorage
    from prefect_kling.flows.outcome import Rendering, ShotOutcome, TakeOutcome
    from prefect_kling.plan_view import PlanView
    from prefect_kling.tasks.results import Film

__all__ = ["exit_code", "main"]

GARBAGE_OF = 50_000
"""New objects after which it is looked for, in place of 700."""
NAMING = ("manifest.json", "otio")
"""What lies beside a film and names clips from where it is."""

app = App(
    name="prefect-kling",
    help="Storyboards in, finished films out, on Prefect.",
    version_flags=["--version"],
    default_parameter=Parameter(show_default=False),
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # we say what was kept
)
ledger.command(adopt)
app.command(ledger)
app.command(sweep)
app.command(doctor)
app.command(series)
app.command(join)
app.command(receive)
app.command(init)
app.command(automations)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code."""
    # Importing Prefect makes half a million objects that stay. Looking through them for garbage again and again, and
    # once more at the end, takes a third of a short command's time.
    gc.set_threshold(GARBAGE_OF, 10, 10)
    try:
        sys.exit(run(sys.argv[1:] if arguments is None else arguments))
    finally:
        gc.freeze()


def run(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        code = app(list(arguments), exit_on_error=False, print_error=True)
    except CycloptsError:
        return USAGE
    except KlingError as error:
        announce(str(error))
        return exit_code([type(error).__name__])
    except OSError as error:
        announce(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return USAGE
    except BaseException as error:
        if not _is_signal(error):
            raise
        announce("interrupted; clips that were finished are kept")
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _is_signal(error: BaseException) -> bool:
    """Whether somebody stopped us: Ctrl-C, or SIGTERM, which Prefect turns into an error of its own during a run."""
    prefect_errors = sys.modules.get("prefect.exceptions")
    return isinstance(error, KeyboardInterrupt) or (
        prefect_errors is not None and isinstance(error, prefect_errors.ExternalSignal)
    )


@app.command
def render(
    file: str,
    /,
    *,
    out: Path | None = None,
    studio: StudioName = None,
    simulate: Annotated[bool, Parameter(negative="")] = False,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    edition: str | None = None,
    retake: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    only: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    draft: Annotated[bool, Parameter(negative="")] = False,
    budget: Decimal | None = None,
    allow_outside: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Buy every shot of a storyboard that is not bought yet, and join the film.

    Parameters
    ----------
    file
        The storyboard: a path or URL, YAML or JSON.
    out
        Where to put the film besides the studio's storage.
    simulate
        Use the built-in simulator instead of the gateway: nothing is paid, no key is needed.
    set_
        A value for a `{{ name }}` in the document, as name=value; may be repeated.
    edition
        Separates runs that are meant to give new clips from reruns, which use what is there; "main" where not given.
    retake
        Id of a shot to buy anew; may be repeated. Later runs use the new take.
    only
        Ids of the only shots to make, joined by commas, with what they need. The film shows just these.
    draft
        Try it cheaply: std mode, one take of each shot, in an edition of its own.
    budget
        USD that this run may spend at most.
    allow_outside
        Let the storyboard's paths leave its folder.
    json
        Print one JSON document to stdout.
    """
    variables = variables_of(set_)
    if studio is not None and simulate:
        raise KlingError("render takes either --studio or --simulate: the simulator has a studio of its own")
    if budget is not None and not (budget.is_finite() and budget > 0):
        raise StoryboardError(f"--budget has to be an amount in USD above zero, not {budget}")
    if out is not None:
        if out.is_file() and Path(file).is_file() and out.samefile(file):
            raise StoryboardError(f"--out names the storyboard itself, {file}; the film would replace it")
        writable(out)
    begun = time.monotonic()
    asked = _Asked(
        file=file,
        variables=variables,
        out=out,
        studio=studio,
        simulate=simulate,
        edition=edition or "",
        retake=retake,
        only=_shots(only),
        draft=draft,
        budget=budget,
        allow_outside=allow_outside,
    )
    rendering = asyncio.run(_render(asked))
    film = rendering.film
    if json:
        _print_json(_rendering_json(rendering, out))
    if film is None:
        announce(f"{rendering.title}: {rendering.sentence()}")
        return exit_code(rendering.error_types)
    cost = "would have cost" if simulate else "cost"
    kept = len([shot for shot in rendering.shots if shot.status == "kept"])
    again = f", {kept} of them there already" if kept else ""
    announce(f"{rendering.title}: {len(rendering.shots)} clips{again}, {film.seconds:.1f} s of film")
    announce(f"It {cost} {rendering.usd:.2f} USD and took {time.monotonic() - begun:.0f} s")
    announce(f"Film: {out.resolve() if out else film.path}")
    for remark in rendering.remarks():
        announce(remark)
    # The film is there; a further take may still wait for somebody's decision.
    return exit_code(rendering.error_types)


@app.command
def plan(
    file: str,
    /,
    *,
    studio: StudioName = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    edition: str | None = None,
    only: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    draft: Annotated[bool, Parameter(negative="")] = False,
    allow_outside: Annotated[bool, Parameter(negative="")] = False,
    mermaid: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Draw what a storyboard needs, what of it is bought already, what the rest would cost and how long it would take.

    Nothing is bought.

    Parameters
    ----------
    file
        The storyboard: a path or URL, YAML or JSON.
    set_
        A value for a `{{ name }}` in the document, as name=value; may be repeated.
    edition
        Of the clips that count as bought; "main" where it is not given.
    only
        Ids of the only shots to plan, joined by commas, with what they need.
    draft
        Plan what `render --draft` would do.
    allow_outside
        Let the storyboard's paths leave its folder.
    mermaid
        Print a Mermaid flowchart to stdout, for a page.
    json
        Print one JSON document to stdout.
    """
    if mermaid and json:
        raise StoryboardError("plan prints either --mermaid or --json; leave one out")
    asked = _Asked(
        file=file,
        variables=variables_of(set_),
        studio=studio,
        edition=edition or "",
        only=_shots(only),
        draft=draft,
        allow_outside=allow_outside,
    )
    view = asyncio.run(_planned(asked))
    if json:
        _print_json(view.document())
    elif mermaid:
        view.print_mermaid()
    else:
        view.print_tree()
    return 0


@app.command
def schema() -> int:
    """Print the JSON Schema of storyboards, for completion in an editor."""
    from prefect_kling.storyboard.schema import storyboard_schema

    _print_json(storyboard_schema())
    return 0


@app.command
def simulate(*, port: int = 0, seed: int | None = None, faults: str = "", seconds: float = 4.0) -> int:
    """Serve a simulated gateway on this machine until interrupted.

    Parameters
    ----------
    port
        To listen on; 0 picks a free one.
    seed
        Decides pictures and faults; another one each time where it is not given.
    faults
        What goes wrong, such as `lost-answer=0.3,502=0.1`; see prefect_kling.simulator.faults.
    seconds
        How long a generation takes.
    """
    from prefect_kling.simulator.config import SimulatorConfig
    from prefect_kling.simulator.server import serve

    try:
        config = SimulatorConfig(seed=seed, faults=faults, generation_seconds=seconds)
    except ValueError as error:
        raise StoryboardError(str(error)) from None
    serve(config, port, announce=lambda url: print(url, flush=True))  # noqa: T201 - the URL is this command's output
    return 0


@dataclass(frozen=True)
class _Asked:
    """What `render`, or `plan`, was asked for."""

    file: str
    variables: Mapping[str, str]
    studio: str | None
    edition: str
    only: tuple[str, ...]
    draft: bool
    allow_outside: bool
    out: Path | None = None
    simulate: bool = False
    retake: tuple[str, ...] = ()
    budget: Decimal | None = None


async def _render(asked: _Asked) -> Rendering:
    set_up_prefect()
    async with studio_at_work(asked.studio, simulate=asked.simulate) as (studio, parameter):
        from prefect_kling.flows.preparing import Wish, prepare
        from prefect_kling.flows.storyboard import render_storyboard

        # What is wrong with the document shows in a second; a Prefect server takes ten to start.
        wish = Wish(
            edition=asked.edition or "main",
            retake=asked.retake,
            only=asked.only,
            draft=asked.draft,
            budget=asked.budget,
        )
        prepared = await prepare(asked.file, studio, asked.variables, wish, allow_outside=asked.allow_outside)
        await reachable_server()
        reuse = prepared.reuse()
        if reuse is not None:
            announce(reuse)
        with watching(prepared.plan, prepared.micro_usd, lambda text: told(text, asked.studio)):
            state: Any = await render_storyboard(
                asked.file,
                parameter,
                variables=dict(asked.variables),
                edition=asked.edition or None,
                retake=list(asked.retake),
                only=list(asked.only),
                draft=asked.draft,
                budget=None if asked.budget is None else float(asked.budget),
                allow_outside=asked.allow_outside,
                return_state=True,
            )
            rendering: Rendering = await state.aresult(raise_on_failure=False)
        if isinstance(rendering, BaseException):
            raise rendering
        if rendering.film is not None and asked.out is not None:
            await _copied_out(studio.get_storage(), rendering.film, asked.out)
    return _told(rendering, asked.studio)


def _told(rendering: Rendering, studio: str | None) -> Rendering:
    """A rendering whose errors name commands as they are typed for its studio."""

    def error(found: Rendering | ShotOutcome | TakeOutcome) -> dict[str, str | None]:
        return {"error": None if found.error is None else told(found.error, studio)}

    shots = tuple(
        shot.model_copy(
            update={**error(shot), "further": tuple(take.model_copy(update=error(take)) for take in shot.further)}
        )
        for shot in rendering.shots
    )
    return rendering.model_copy(update={**error(rendering), "shots": shots})


async def _planned(asked: _Asked) -> PlanView:
    settings = (await studio_named(asked.studio)).settings()

    from prefect_kling.flows.preparing import Wish, reckoned
    from prefect_kling.flows.standing import standings
    from prefect_kling.plan_view import PlanView

    wish = Wish(asked.edition or "main", only=asked.only, draft=asked.draft)
    reckoner = await reckoned(asked.file, settings, asked.variables, wish, allow_outside=asked.allow_outside)
    title = reckoner.document.storyboard.title
    return PlanView(title, reckoner.planned, await standings(reckoner), settings.max_in_flight)


def _shots(only: Sequence[str]) -> tuple[str, ...]:
    shots = tuple(shot.strip() for some in only for shot in some.split(",") if shot.strip())
    if only and not shots:
        raise StoryboardError("--only names no shot; give the ids of the shots to make")
    return shots


async def _copied_out(storage: ClipStorage, film: Film, out: Path) -> None:
    """Puts a film, and what lies beside it, where it was asked for besides the studio's storage."""
    async with storage.at_hand(film.path, sha256=film.sha256) as file:
        await asyncio.to_thread(_copy, file, out, film.path)
    for ending, location in film.beside.items():
        beside = out.with_name(f"{out.stem}.{ending}")
        async with storage.at_hand(location) as file:
            if ending in NAMING and storage.is_local:
                text = moved(file.read_text("utf-8"), file.parent, beside.absolute().parent, out.name)
                await asyncio.to_thread(_write, text, beside)
            else:
                await asyncio.to_thread(_copy, file, beside, location)


def _copy(file: Path, out: Path, kept: str) -> None:
    try:
        with scratch(out) as work:
            shutil.copyfile(file, work)
            publish(work, out)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; it is kept at {kept}", str(out)) from error


def _write(text: str, out: Path) -> None:
    with scratch(out) as work:
        work.write_text(text, "utf-8", errors="backslashreplace")
        publish(work, out)


def _rendering_json(rendering: Rendering, out: Path | None) -> dict[str, Any]:
    film = rendering.film
    return {
        "title": rendering.title,
        "film": None if film is None else str(out.resolve()) if out else film.path,
        "frames": film.frames if film else None,
        "seconds": film.seconds if film else None,
        "method": film.method if film else None,
        "beside": film.beside if film else {},
        "usd": float(rendering.usd),
        "shots": [_shot_json(shot) for shot in rendering.shots],
    }


def _shot_json(shot: ShotOutcome) -> dict[str, Any]:
    return {
        "id": shot.id,
        "status": shot.status,
        "usd": float(shot.usd),
        "clip": shot.clip.path if shot.clip else None,
        "sha256": shot.clip.sha256 if shot.clip else None,
        "task_id": shot.task_id,
        "error": shot.error,
        "blocked_by": list(shot.blocked_by),
        "take": shot.take,
        "softened": shot.softened,
        "faults": shot.faults,
        "further_takes": [_take_json(take) for take in shot.further],
    }


def _take_json(take: TakeOutcome) -> dict[str, Any]:
    clip = {"clip": take.clip.path, "sha256": take.clip.sha256} if take.clip else {"clip": None, "sha256": None}
    return {**take.model_dump(mode="json"), "usd": float(take.usd), **clip}


def _print_json(document: object) -> None:
    print(jsonlib.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201 - what --json is for


def _as_interrupt(_signum: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)
