"""The plan of a document: what each shot needs, what would be sent for it, how long it lasts and what it costs.

Nothing is bought and nothing goes to the gateway. Each rule that can be checked before money is spent is checked by
building the very request that would be sent, with stand-ins where the URL of an upstream clip or a file will be.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import ValidationError

from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.gateway.limits import VideoFacts, video_refusal
from prefect_kling.gateway.prices import PriceTable, billed_seconds, estimate_cost, upper_cost
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.storyboard.bodies import body_of
from prefect_kling.storyboard.document import Shot
from prefect_kling.storyboard.inputs import Input, Place, Unusable, image_problem, references, resolved
from prefect_kling.storyboard.places import Problems
from prefect_kling.storyboard.reader import Document

__all__ = ["Input", "Plan", "PlannedShot", "local_videos", "plan"]

STAND_IN = "https://upstream.example.com/"


@dataclass(frozen=True)
class PlannedShot:
    """One shot, ready to be bought once its inputs have URLs.

    Attributes:
        id: the shot's.
        needs: ids of the shots whose clips it takes something from, in the order of its fields.
        request: as it would be sent, with stand-ins for URLs that are not known yet.
        inputs: what those URLs come from.
        seconds: what will be billed, in whole seconds; 10 for an edit of a video whose length nobody knows.
        usd: what it most likely costs.
        upper_usd: the most it can cost.
        warnings: what is odd and yet sent.
        in_cut: whether the film shows it.
    """

    id: str
    needs: tuple[str, ...]
    request: OmniVideoRequest
    inputs: tuple[Input, ...]
    seconds: int
    usd: Decimal
    upper_usd: Decimal
    warnings: tuple[str, ...]
    in_cut: bool

    def filled(self, urls: Mapping[Place, str], *, loopback: bool = False) -> OmniVideoRequest:
        """The request with its inputs' URLs in place, checked once more.

        Args:
            urls: by `Input.place`, for every input.
            loopback: whether the gateway is on this machine.

        Raises:
            InvalidRequest: the gateway would refuse it.
        """
        body = copy.deepcopy(self.request.model_dump(exclude_none=True))
        for entry in self.inputs:
            _put(body, entry.place, urls[entry.place])
        try:
            return OmniVideoRequest.model_validate(body, context={"loopback": loopback})
        except ValidationError as error:
            said = "; ".join(found["msg"] for found in error.errors(include_url=False))
            raise InvalidRequest(f"{self.id} was not sent: {said}") from None


@dataclass(frozen=True)
class Plan:
    """Every shot of a document, in its order; `order` is one in which each comes after what it needs."""

    shots: tuple[PlannedShot, ...]
    order: tuple[PlannedShot, ...] = field(repr=False)

    @property
    def usd(self) -> Decimal:
        """What all of it most likely costs."""
        return sum((shot.usd for shot in self.shots), Decimal(0))

    @property
    def upper_usd(self) -> Decimal:
        """The most that all of it can cost."""
        return sum((shot.upper_usd for shot in self.shots), Decimal(0))


def local_videos(document: Document) -> tuple[str, ...]:
    """The videos of a document that are files: what to probe before planning.

    Files that are missing are left out; the plan names them.
    """
    ids = _ids(document)
    found: dict[str, None] = {}
    for shot in document.storyboard.shots:
        for reference in references(shot):
            if reference.is_image:
                continue
            try:
                entry = resolved(reference, ids, document.root)
            except Unusable:
                continue
            if entry.kind == "file":
                found[entry.source] = None
    return tuple(found)


def plan(
    document: Document,
    *,
    loopback: bool = False,
    videos: Mapping[str, VideoFacts] | None = None,
    prices: PriceTable | None = None,
) -> Plan:
    """Plans a document.

    Args:
        document: as read.
        loopback: the gateway is on this machine, so URLs may be too.
        videos: facts about the files that `local_videos` names; an edit of a file not in it counts as 10 s.
        prices: in place of the built-in list.

    Raises:
        StoryboardError: every shot that cannot be made, a line each: `FILE:LINE:COLUMN: message`.
    """
    return _Planning(document, loopback, videos or {}, prices or PriceTable.load()).plan()


class _Planning:
    """One document on its way to a plan, with the problems found so far."""

    def __init__(
        self, document: Document, loopback: bool, videos: Mapping[str, VideoFacts], prices: PriceTable
    ) -> None:
        self.document = document
        self.board = document.storyboard
        self.loopback, self.videos, self.prices = loopback, videos, prices
        self.problems = Problems(document.source)
        self.ids = _ids(document)
        self.image_problem = functools.cache(image_problem)

    def plan(self) -> Plan:
        inputs = {shot.id: self._inputs(n, shot) for n, shot in enumerate(self.board.shots)}
        order = self._order(inputs)
        planned: dict[str, PlannedShot] = {}
        for shot_id in order:
            ready = self._planned(self.ids[shot_id], inputs[shot_id], planned)
            if ready is not None:
                planned[shot_id] = ready
        self.problems.raise_any()
        return Plan(
            shots=tuple(planned[shot.id] for shot in self.board.shots),
            order=tuple(planned[shot_id] for shot_id in order),
        )

    def _inputs(self, number: int, shot: Shot) -> tuple[Input, ...]:
        found = []
        for one, other in (("base", "feature"), ("continues", "first_frame")):
            if getattr(shot, one) and getattr(shot, other):
                self._note(number, (other,), f"'{one}' and '{other}' cannot go together")
        for reference in references(shot):
            try:
                entry = resolved(reference, self.ids, self.document.root)
            except Unusable as error:
                self._note(number, reference.field, str(error))
                continue
            if entry.kind == "file" and reference.is_image:
                problem = self.image_problem(entry.source)
                if problem is not None:
                    self._note(number, reference.field, f"'{reference.value}' cannot be sent: {problem}")
            found.append(entry)
        return tuple(found)

    def _order(self, inputs: Mapping[str, Iterable[Input]]) -> list[str]:
        needs = {shot_id: _needs(entries) for shot_id, entries in inputs.items()}
        try:
            return list(TopologicalSorter(needs).static_order())
        except CycleError as error:
            # graphlib lists each shot before those that need it.
            cycle = list(reversed(error.args[1]))
            self._note(self.ids[cycle[0]], (), f"needs itself: {' → '.join(cycle)}")
        self.problems.raise_any()
        raise AssertionError("a cycle was noted")

    def _planned(
        self, number: int, inputs: tuple[Input, ...], planned: Mapping[str, PlannedShot]
    ) -> PlannedShot | None:
        shot = self.board.shots[number]
        needs = _needs(inputs)
        body = self._body(number, shot, inputs)
        if body is None or any(need not in planned for need in needs):
            return None
        try:
            request = OmniVideoRequest.model_validate(body, context={"loopback": self.loopback})
        except ValidationError as error:
            self._note_refusals(number, shot, error)
            return None
        length = self._input_seconds(inputs, planned)
        self._check_video(number, shot, inputs, length)
        try:
            usd = estimate_cost(request, input_seconds=length, prices=self.prices)
            most = upper_cost(request, input_seconds=length, prices=self.prices)
        except InvalidRequest as error:
            self._note(number, ("model",), str(error))
            return None
        seconds = billed_seconds(request, length)
        return PlannedShot(shot.id, needs, request, inputs, seconds, usd, most, request.warnings(), shot.in_cut)

    def _body(self, number: int, shot: Shot, inputs: tuple[Input, ...]) -> dict[str, Any] | None:
        if len(inputs) != len(list(references(shot))):
            return None
        body, problems = body_of(shot, self.board.defaults, self.board.look)
        for path, message in problems:
            self._note(number, path, message)
        for entry in inputs:
            _put(body, entry.place, entry.source if entry.kind == "url" else f"{STAND_IN}{number}")
        return None if problems else body

    def _input_seconds(self, inputs: Iterable[Input], planned: Mapping[str, PlannedShot]) -> float | None:
        for entry in inputs:
            if entry.place[0] == "video_list":
                if entry.kind == "clip":
                    return planned[entry.source].seconds
                facts = self.videos.get(entry.source)
                return facts.seconds if facts else None
        return None

    def _check_video(self, number: int, shot: Shot, inputs: Iterable[Input], length: float | None) -> None:
        """Refuses a video that the gateway would refuse, as far as it is known: probed, or planned."""
        for entry in inputs:
            if entry.place[0] != "video_list" or length is None:
                continue
            facts = self.videos.get(entry.source) or VideoFacts(length, 1280, 720, 24, 0)
            refer_type = "base" if shot.base else "feature"
            refusal = video_refusal(facts, model=shot.model or self.board.defaults.model, refer_type=refer_type)
            if refusal is not None:
                named = f"the clip of '{entry.source}'" if entry.kind == "clip" else f"'{getattr(shot, refer_type)}'"
                self._note(number, (refer_type,), f"{named} cannot be sent: {refusal}")

    def _note_refusals(self, number: int, shot: Shot, error: ValidationError) -> None:
        for found in error.errors(include_url=False):
            if found["type"] == "rules":
                for name, rule, message in found["ctx"]["broken"]:
                    said = f"rule {rule}" if rule.isdigit() else f"field `{rule}`"
                    self._note(number, _document_field(shot, name.split(".")), f"{message} (gateway.md, {said})")
            else:
                steps = [str(step) for step in found["loc"]]
                self._note(number, _document_field(shot, steps), found["msg"])

    def _note(self, number: int, path: tuple[str, ...], message: str) -> None:
        place = self.document.positions.of("shots", number, *path)
        where = f": {'.'.join(path)}" if path else ""
        self.problems.add(place, f"shot '{self.board.shots[number].id}'{where}: {message}")


def _ids(document: Document) -> dict[str, int]:
    return {shot.id: n for n, shot in enumerate(document.storyboard.shots)}


def _needs(inputs: Iterable[Input]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry.source for entry in inputs if entry.kind in ("clip", "last-frame")))


def _put(body: dict[str, Any], place: Place, url: str) -> None:
    target: Any = body
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = url


def _document_field(shot: Shot, wire: list[str]) -> tuple[str, ...]:
    """The shot's field that a part of the body came from."""
    first, *rest = wire
    if first == "image_list":
        images = [reference.field for reference in references(shot) if reference.is_image]
        position = int(rest[0]) if rest and rest[0].isdigit() else 0
        return images[position] if position < len(images) else ()
    if first == "video_list":
        return ("base",) if shot.base else ("feature",)
    own = {"element_list": "elements", "multi_prompt": "multi_shot", "shot_type": "multi_shot"}.get(first, first)
    return (own,) if own in type(shot).model_fields else ()
