"""What a person is shown before money is spent and before the film is joined, and the forms that they fill in. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from prefect.input import RunInput
from pydantic import Field, JsonValue, create_model

from prefect_kling.flows.outcome import ShotOutcome
from prefect_kling.flows.page_view import escaped, linked
from prefect_kling.flows.preparing import Prepared
from prefect_kling.flows.standing import Standing
from prefect_kling.ledger.money import Limits, Spent, shown
from prefect_kling.storyboard.plan import Plan, PlannedShot

__all__ = ["CutReview", "PlanReview", "Seen", "budgets_left", "cut_form", "cut_trouble", "plan_form", "retakable"]

MOST_ROWS: Final = 200
MOST_PROMPT: Final = 100
MOST_CHARACTERS: Final = 1_000_000
"""Of all pictures in one form, as text: the server hands it out whole."""
_KINDS: Final = {"clip": "from", "last-frame": "last frame of", "file": "with", "url": "with"}


class PlanReview(RunInput):
    """What may be said to a plan."""

    decision: Literal["buy", "decline"] = Field(
        title="Decision", description="buy: spend this money. decline: end the run; nothing is bought."
    )


class CutReview(RunInput):
    """What may be said to the clips."""

    decision: Literal["approve", "retake", "stop"] = Field(
        title="Decision",
        description="approve: join the film. retake: buy the next take of the shots below, and ask again. "
        "stop: end the run without a film; the clips are kept.",
    )
    retake: list[str] = Field(default_factory=list, title="Shots to take again", description="Only for retake.")


@dataclass(frozen=True)
class Seen:
    """A shot as the review shows it: what became of it, a picture as a `data:` URI or empty, and where its clip is."""

    outcome: ShotOutcome
    picture: str = ""
    link: str = ""


def plan_form(prepared: Prepared, spent: Spent, why: str = "") -> type[PlanReview]:
    """The form for a plan, with the plan and its costs above it.

    Args:
        prepared: what is about to be bought.
        spent: what counts against the budgets now.
        why: it is asked again, or empty.
    """
    shots = prepared.plan.shots
    written = {shot.id: shot.prompt for shot in prepared.document.storyboard.shots}
    prompts = [written[shot.id] or shot.request.prompt or "" for shot in shots]
    rows = [
        _plan_row(shot, prepared.standings[shot.id], prompt)
        for shot, prompt in zip(shots[:MOST_ROWS], prompts, strict=False)
    ]
    table = _table(("Shot", "What it does", "Seconds", "USD", "Status"), rows)
    more = f"{len(shots) - MOST_ROWS} more shots are not shown." if len(shots) > MOST_ROWS else ""
    buying = len([standing for standing in prepared.standings.values() if standing.to_buy])
    most = shown(prepared.micro_usd)
    apart = " Retakes after failed checks come on top, as max_retakes allows." if prepared.plan.may_retake else ""
    total = (
        f"**{buying} of {len(shots)} shots are to be bought, about {prepared.usd:.2f} USD, at most {escaped(most)}.**"
    )
    title = f"# {escaped(prepared.document.storyboard.title)}"
    so_far = f"This run has bought for {escaped(shown(spent.run))}." if spent.run else "Nothing is bought yet."
    edition = f"Edition {escaped(prepared.reckoner.edition)}. {so_far} {total}{apart}"
    left = budgets_left(prepared.limits, spent, prepared.micro_usd)
    return PlanReview.with_initial_data(description=_text(title, why, edition, table, more, *left))


def cut_form(prepared: Prepared, seen: Sequence[Seen], spent: Spent, why: str = "", number: int = 1) -> type[CutReview]:
    """The form for a cut, with a picture of every clip above it.

    Args:
        prepared: what the clips were made for.
        seen: the clips, in the document's order.
        spent: what counts against the budgets now.
        why: it is asked again, or empty.
        number: of the review.
    """
    pictures = _fitting(seen[:MOST_ROWS])
    # One below the other: in a table they would be as narrow as its column.
    clips = [_clip(prepared.plan, one, picture) for one, picture in zip(seen, pictures, strict=False)]
    more = f"{len(seen) - MOST_ROWS} more shots are not shown." if len(seen) > MOST_ROWS else ""
    without = len([picture for picture in pictures if not picture])
    missing = f"{without} shots are shown without a picture: a page holds no more." if 0 < without < len(seen) else ""
    title = f"# {escaped(prepared.document.storyboard.title)}, review {number}"
    money = escaped(shown(spent.run))
    bought = f"All {len(seen)} clips are there; this run has bought for {money}. Joining them costs nothing. "
    bought += "Below: the first, middle and last frame of each." if any(pictures) else ""
    further = "To take a shot again buys anew what is made of it, too; that is in the price."
    left = budgets_left(prepared.limits, spent, 0)
    text = _text(title, why, bought, *clips, more, missing, further, *left)
    # Choices, so that the page offers them and the server refuses any other shot. Not an enum of Python: one of a
    # single name would become a constant, which the page does not show as a choice.
    choices: list[JsonValue] = list(retakable(prepared.plan))
    extra: dict[str, JsonValue] = {"items": {"type": "string", "enum": choices}} if choices else {"maxItems": 0}
    shots: Any = Field(
        default_factory=list,
        title="Shots to take again",
        description="Only for retake.",
        json_schema_extra=extra,
    )
    form = create_model(CutReview.__name__, __base__=CutReview, retake=(list[str], shots))
    return form.with_initial_data(description=text)


def cut_trouble(said: Mapping[str, Any], plan: Plan) -> str | None:
    """Why an answer to a cut cannot be followed; None where it can."""
    wanted = list(said.get("retake") or ())
    unknown = [shot for shot in wanted if shot not in retakable(plan)]
    match said.get("decision"):
        case "retake" if unknown:
            return f"There is no shot {', '.join(unknown)} that can be taken again."
        case "retake" if not wanted:
            return "No shot was chosen to take again, so nothing was bought."
        case "approve" if wanted:
            return (
                f"The film was approved and {', '.join(wanted)} chosen to be taken again; it cannot be both, so "
                "nothing was bought and nothing joined."
            )
        case "approve" | "retake" | "stop":
            return None
        case other:
            return f"There is no decision {other}, so nothing was bought."


def retakable(plan: Plan) -> tuple[str, ...]:
    """The shots that can be taken again: those of which the document does not say which take it is."""
    return tuple(shot.id for shot in plan.shots if not shot.take)


def budgets_left(limits: Limits, spent: Spent, micro_usd: int) -> list[str]:
    """What each budget leaves once so many micro-dollars more are spent, a sentence each."""
    rows = (
        ("of this run", limits.per_run, spent.run + spent.held_by_run),
        ("of this UTC day", limits.per_day, spent.day + spent.held),
        ("of this UTC month", limits.per_month, spent.month + spent.held),
    )
    after = " after that" if micro_usd else ""
    return [
        f"The budget {name} is {escaped(shown(limit))} and leaves {escaped(shown(limit - gone - micro_usd))}{after}."
        for name, limit, gone in rows
        if limit is not None
    ]


def _plan_row(shot: PlannedShot, standing: Standing, prompt: str) -> list[str]:
    usd = shot.usd * len(standing.to_buy)
    status = str(standing.status) + (f" through {standing.through}" if standing.through else "")
    if len(standing.to_buy) > 1:
        status += f", {len(standing.to_buy)} takes"
    if standing.shares:
        status += f", the same as {standing.shares}"
    inputs = [f"{_KINDS[entry.kind]} {entry.source.rpartition('/')[2]}" for entry in shot.inputs]
    short = prompt if len(prompt) <= MOST_PROMPT else f"{prompt[: MOST_PROMPT - 1]}…"
    said = short + (f" ({', '.join(inputs)})" if inputs else "")
    return [escaped(shot.id), escaped(said), str(shot.seconds), f"{usd:.2f}" if usd else "", escaped(status)]


def _clip(plan: Plan, seen: Seen, picture: str) -> str:
    outcome = seen.outcome
    facts = [
        f"**{escaped(outcome.id)}**",
        f"take {outcome.take}",
        f"{outcome.clip.seconds:.1f} s" if outcome.clip else "",
        f"{outcome.usd:.2f} USD" if outcome.usd else "",
        "" if _shot(plan, outcome.id).in_cut else "not in the film",
        _taking_again(plan, outcome.id),
        linked("clip", seen.link) if seen.link.startswith("http") else "",
        escaped(outcome.faults),
    ]
    return "\n\n".join(filter(None, (", ".join(filter(None, facts)), f"![]({picture})" if picture else "")))


def _taking_again(plan: Plan, shot: str) -> str:
    """The most that another take of a shot costs, with what is made of it."""
    if shot not in retakable(plan):
        return "the document tells its take"
    stale = {shot}
    for other in plan.order:
        if stale.intersection(other.needs):
            stale.add(other.id)
    usd = sum(one.upper_usd * (1 if one.id == shot else one.takes) for one in plan.shots if one.id in stale)
    others = [one.id for one in plan.shots if one.id in stale and one.id != shot]
    return f"again at most {usd:.2f} USD" + (f" with {escaped(', '.join(others))}" if others else "")


def _fitting(seen: Sequence[Seen]) -> list[str]:
    """The pictures that a page can hold, in order; the others are empty."""
    left, pictures = MOST_CHARACTERS, []
    for one in seen:
        fits = len(one.picture) <= left
        pictures.append(one.picture if fits else "")
        left -= len(one.picture) if fits else 0
    return pictures


def _shot(plan: Plan, shot: str) -> PlannedShot:
    return next(one for one in plan.shots if one.id == shot)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _text(title: str, why: str, *paragraphs: str) -> str:
    return "\n\n".join(filter(None, (title, f"**{escaped(why)}**" if why else "", *paragraphs))) + "\n"
