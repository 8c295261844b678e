"""The plan of a document: what each shot needs, what would be sent for it, how long it lasts and what it costs.

Nothing is bought and nothing goes to the gateway. Each rule that can be checked before money is spent is checked by
building the very request that would be sent, with stand-ins where the URL of an upstream clip or a file will be.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pydantic import ValidationError

from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.gateway.limits import VideoFacts, video_refusal
from prefect_kling.gateway.prices import UNKNOWN_BASE_SECONDS, PriceTable, billed_seconds, estimate_cost, upper_cost
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.media.cut import Cut
from prefect_kling.storyboard.bodies import body_of, names_in
from prefect_kling.storyboard.cut_rules import check_film, idle_fields, planned_film
from prefect_kling.storyboard.cutting import FilmCut, ShotCut, film_seconds
from prefect_kling.storyboard.document import Check, Defaults, Shot
from prefect_kling.storyboard.inputs import (
    Input,
    Place,
    Reference,
    Unusable,
    image_problem,
    is_local,
    is_there,
    no_such_shot,
    references,
    resolved,
)
from prefect_kling.storyboard.order import cycles, longest_chain, ordered
from prefect_kling.storyboard.places import Path as DataPath
from prefect_kling.storyboard.places import Problems, label, short
from prefect_kling.storyboard.reader import Document
from prefect_kling.storyboard.refusals import refusals

__all__ = ["Input", "Plan", "PlannedShot", "images_to_fit", "local_videos", "plan"]

STAND_IN = "https://upstream.example.com/"
MAX_HOPS = 4
"""How many clips may each be made of the one before until softness is warned of: it adds up with each."""


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
        takes: how many of it are wanted; seconds and prices are those of one.
        take: the number of the take that the film has to use; 0 where checks choose.
        check: what its clips are held against.
        max_retakes: how many more takes may be bought where all fail their checks.
        softer: the request in other words, to be sent in turn where moderation refuses it.
        fit: whether its local images are made to fit.
        input_seconds: how long the video is that it takes in, where that is a file and was probed.
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
    takes: int = 1
    take: int = 0
    check: Check = field(default_factory=Check)
    max_retakes: int = 0
    softer: tuple[OmniVideoRequest, ...] = ()
    fit: bool = False
    input_seconds: float | None = None

    def filled(self, urls: Mapping[Place, str], *, wording: int = 0, loopback: bool = False) -> OmniVideoRequest:
        """The request with its inputs' URLs in place, checked once more.

        Args:
            urls: by `Input.place`, for every input that is not a URL itself.
            wording: 0 for the shot's own prompt, 1 for the first softer one.
            loopback: whether the gateway is on this machine.

        Raises:
            InvalidRequest: the gateway would refuse it.
            KeyError: an input has no URL.
        """
        body = (self.request, *self.softer)[wording].model_dump(exclude_none=True)
        for entry in self.inputs:
            _put(body, entry.place, urls.get(entry.place, entry.source) if entry.kind == "url" else urls[entry.place])
        try:
            return OmniVideoRequest.model_validate(body, context={"loopback": loopback})
        except ValidationError as error:
            said = "; ".join(found["msg"] for found in error.errors(include_url=False))
            raise InvalidRequest(f"shot '{self.id}' was not sent, and nothing was bought: {said}") from error


@dataclass(frozen=True)
class Plan:
    """Every shot of a document.

    Attributes:
        shots: in the document's order, which is the film's.
        order: the same, each after what it needs.
        critical_path: ids of the longest chain in which each shot waits for the one before.
        film: how the document's shots become a film.
    """

    shots: tuple[PlannedShot, ...]
    order: tuple[PlannedShot, ...] = field(repr=False)
    critical_path: tuple[str, ...] = ()
    film: FilmCut = field(default_factory=FilmCut, repr=False)

    def only(self, ids: Iterable[str]) -> Plan:
        """The plan for some shots alone: what they need is made as well, and the film shows just them.

        Args:
            ids: of shots in the plan.
        """
        shown = set(ids)
        shots = {shot.id: shot for shot in self.shots}
        kept: set[str] = set()
        waiting = list(shown)
        while waiting:
            name = waiting.pop()
            if name not in kept:
                kept.add(name)
                waiting.extend(shots[name].needs)

        def cut(some: tuple[PlannedShot, ...]) -> tuple[PlannedShot, ...]:
            return tuple(replace(shot, in_cut=shot.id in shown) for shot in some if shot.id in kept)

        needs = {shot.id: shot.needs for shot in self.order if shot.id in kept}
        chain = longest_chain(needs, {name: shots[name].seconds for name in needs})
        part = replace(self, shots=cut(self.shots), order=cut(self.order), critical_path=chain)
        lasts, poster_at = part.film_seconds, self.film.poster_at
        # A poster from behind the end of a part of the film is chosen by itself.
        kept_poster = poster_at if poster_at is not None and poster_at < lasts else None
        return replace(part, film=replace(self.film, poster_at=kept_poster))

    def check_film(self, document: Document) -> None:
        """Checks that the film of some shots alone can be cut as the document says: their neighbours are others then.

        Raises:
            StoryboardError: it cannot, a line for each reason: `FILE:LINE:COLUMN: message`.
        """
        check_film(document, self.film, self.shot_cuts)

    @property
    def cut(self) -> Cut:
        """How the film is cut."""
        return self.film.cut

    @property
    def shot_cuts(self) -> tuple[ShotCut, ...]:
        """What the film wants of each clip that it shows, in its order."""
        return self.film.shown({shot.id for shot in self.shots if shot.in_cut})

    @property
    def film_seconds(self) -> Fraction:
        """About how long the film will last: an edit of unknown length counts as what is billed for it."""
        billed = {shot.id: Fraction(shot.seconds) for shot in self.shots}
        return film_seconds(self.cut, self.shot_cuts, billed)

    @property
    def usd(self) -> Decimal:
        """What all of it most likely costs."""
        return sum((shot.usd * shot.takes for shot in self.shots), Decimal(0))

    @property
    def may_retake(self) -> bool:
        """Whether checks may have more takes bought than are wanted; no price holds those."""
        return any(shot.max_retakes and not shot.take for shot in self.shots)

    @property
    def upper_usd(self) -> Decimal:
        """The most that all of it can cost, but for retakes."""
        return sum((shot.upper_usd * shot.takes for shot in self.shots), Decimal(0))


def local_videos(document: Document) -> tuple[str, ...]:
    """The videos of a document that are files on this machine: absolute paths, to be probed before planning.

    Files that are missing are left out; the plan names them.
    """
    return tuple(
        dict.fromkeys(
            entry.source
            for _, reference, entry in _files(document)
            if not reference.is_image and is_local(entry.source) and is_there(entry.source)
        )
    )


def images_to_fit(document: Document) -> tuple[str, ...]:
    """The images of a document that the gateway would not take as they are, and that their shots want made to fit.

    Paths and fsspec URLs, to be tried before planning. Files that are missing are left out; the plan names them.
    """
    defaults, problem = document.storyboard.defaults, functools.cache(image_problem)
    return tuple(
        dict.fromkeys(
            entry.source
            for shot, reference, entry in _files(document)
            if reference.is_image
            and _fits(shot, defaults)
            and (not is_local(entry.source) or is_there(entry.source))
            and problem(entry.source) is not None
        )
    )


def plan(
    document: Document,
    *,
    loopback: bool = False,
    videos: Mapping[str, VideoFacts] | None = None,
    fitting: Mapping[str, str | None] | None = None,
    prices: PriceTable | None = None,
) -> Plan:
    """Plans a document. Reads the images it names, and nothing else.

    Args:
        document: as read.
        loopback: the gateway is on this machine, so URLs may be too.
        videos: facts about the files that `local_videos` names; an edit of a file not in it counts as 10 s.
        fitting: why the images that `images_to_fit` names cannot be made to fit, or None where they can.
        prices: in place of the built-in list.

    Raises:
        StoryboardError: every shot that cannot be made, a line each: `FILE:LINE:COLUMN: message`.
    """
    return _Planning(document, loopback, videos or {}, fitting or {}, prices or PriceTable.load()).plan()


class _Planning:
    """One document on its way to a plan, with the problems found so far."""

    def __init__(
        self,
        document: Document,
        loopback: bool,
        videos: Mapping[str, VideoFacts],
        fitting: Mapping[str, str | None],
        prices: PriceTable,
    ) -> None:
        self.document = document
        self.board = document.storyboard
        self.loopback, self.videos, self.fitting, self.prices = loopback, videos, fitting, prices
        self.problems = Problems(document.source)
        self.ids = _ids(document)
        self.image_problem = functools.cache(image_problem)
        # Whole or measured seconds of each clip as far as planned; None where nobody knows.
        self.lengths: dict[str, float | None] = {}
        # How many clips each is made of, one out of the other, since the last one that a reference image anchors.
        self.hops: dict[str, int] = {}

    def plan(self) -> Plan:
        self._check_document()
        inputs = {shot.id: self._inputs(n, shot) for n, shot in enumerate(self.board.shots)}
        needs = {shot_id: _needs(entries) for shot_id, entries in inputs.items()}
        self._check_cycles(needs)
        order = ordered(needs)
        # Shots on a cycle are looked at all the same, so that all that is wrong is told at once.
        planned = {
            shot_id: self._planned(self.ids[shot_id], needs[shot_id], inputs[shot_id])
            for shot_id in dict.fromkeys([*order, *needs])
        }
        film = planned_film(self.document, self.lengths, self.problems)
        self.problems.raise_any()
        ready = {shot_id: shot for shot_id, shot in planned.items() if shot is not None}
        return Plan(
            shots=tuple(ready[shot.id] for shot in self.board.shots),
            order=tuple(ready[shot_id] for shot_id in order),
            critical_path=longest_chain(needs, {shot_id: shot.seconds for shot_id, shot in ready.items()}),
            film=film,
        )

    def _check_document(self) -> None:
        places = self.document.positions
        for name in names_in(self.board.look):
            self.problems.add(
                places.of("look"),
                f"look: {{{name}}} can stand in a shot's prompt only; each shot has inputs of its own",
            )
        if not any(shot.in_cut for shot in self.board.shots):
            self.problems.add(places.of("shots"), "no shot is in the film; in_cut is false for all of them")

    def _check_cycles(self, needs: Mapping[str, tuple[str, ...]]) -> None:
        for cycle in cycles(needs):
            shot, need = self.board.shots[self.ids[cycle[0]]], cycle[1]
            field_path = next(r.field for r in references(shot) if r.of_shot is not None and r.value == need)
            chain = " → ".join(cycle if len(cycle) <= 12 else [*cycle[:10], "…", cycle[-1]])
            said = "a shot cannot need itself" if len(cycle) == 2 else "shots cannot need each other in a circle"
            self._note(self.ids[shot.id], field_path, f"{said}: {chain}")

    def _inputs(self, number: int, shot: Shot) -> tuple[Input, ...]:
        for one, other in (("base", "feature"), ("continues", "first_frame")):
            if getattr(shot, one) and getattr(shot, other):
                self._note(number, (other,), f"'{one}' and '{other}' cannot go together; remove one")
        found = []
        for reference in references(shot):
            try:
                entry = resolved(reference, self.ids, self.document.root, allow_outside=self.document.allow_outside)
                self._check_file(shot, reference, entry)
            except Unusable as error:
                self._note(number, reference.field, str(error))
            else:
                found.append(entry)
        return tuple(found)

    def _check_file(self, shot: Shot, reference: Reference, entry: Input) -> None:
        if entry.kind != "file":
            return
        if is_local(entry.source) and not is_there(entry.source):
            meant = f", and {no_such_shot(reference.value, self.ids)}" if reference.of_shot else ""
            raise Unusable(f"there is no file '{short(entry.source)}'{meant}")
        problem = self.image_problem(entry.source) if reference.is_image else None
        if problem is not None and _fits(shot, self.board.defaults):
            problem = self.fitting.get(entry.source, problem)
        if problem is not None:
            raise Unusable(f"'{short(reference.value)}' cannot be sent: {problem}")

    def _planned(self, number: int, needs: tuple[str, ...], inputs: tuple[Input, ...]) -> PlannedShot | None:
        shot, defaults = self.board.shots[number], self.board.defaults
        request = self._request(number, shot, inputs)
        softer = self._softer(number, shot, inputs)
        length = self._video_seconds(inputs)
        self.lengths[shot.id] = length if shot.base else None if request is None else request.seconds
        self._check_video(number, shot, inputs, length)
        if request is None:
            return None
        try:
            usd = estimate_cost(request, input_seconds=length, prices=self.prices)
            most = upper_cost(request, input_seconds=length, prices=self.prices)
        except InvalidRequest as error:
            self._note(number, ("model",), str(error))
            return None
        warnings = request.warnings()
        if shot.base and length is None:
            warnings += (f"base: its length is unknown; {UNKNOWN_BASE_SECONDS} s are reckoned with",)
        warnings += self._softness(shot, inputs)
        warnings += tuple(idle_fields(shot, self.board))
        return PlannedShot(
            id=shot.id,
            needs=needs,
            request=request,
            inputs=inputs,
            seconds=billed_seconds(request, length),
            usd=usd,
            upper_usd=most,
            warnings=warnings,
            in_cut=shot.in_cut,
            takes=shot.takes,
            take=shot.take,
            check=defaults.check if shot.check == Check() else shot.check,
            max_retakes=defaults.max_retakes if shot.max_retakes < 0 else shot.max_retakes,
            softer=softer,
            fit=_fits(shot, defaults),
            input_seconds=next((self.videos[i.source].seconds for i in inputs if i.source in self.videos), None),
        )

    def _request(
        self, number: int, shot: Shot, inputs: tuple[Input, ...], *, prompt: DataPath = ("prompt",)
    ) -> OmniVideoRequest | None:
        """The request for a shot; `prompt` is where its prompt stands, and all that is told where it is no other's."""
        own = prompt == ("prompt",)
        body, found = body_of(shot, self.board.defaults, self.board.look)
        for path, message in found:
            if own or path == ("prompt",):
                self._note(number, prompt if path == ("prompt",) else path, message)
        known = {entry.place: entry.source for entry in inputs if entry.kind == "url"}
        for reference in references(shot):
            _put(body, reference.place, known.get(reference.place, f"{STAND_IN}{number}"))
        try:
            return OmniVideoRequest.model_validate(body, context={"loopback": self.loopback})
        except ValidationError as error:
            for path, message in refusals(error, shot):
                if own or path == ("prompt",):
                    self._note(number, prompt if path == ("prompt",) else path, message)
            return None

    def _softer(self, number: int, shot: Shot, inputs: tuple[Input, ...]) -> tuple[OmniVideoRequest, ...]:
        """The shot in each of its softer wordings, which are checked as its own prompt is."""
        if shot.soften and not shot.prompt:
            self._note(number, ("soften",), "there is no prompt that these could stand in for")
            return ()
        found = []
        for n, prompt in enumerate(shot.soften):
            worded = self._request(number, shot.model_copy(update={"prompt": prompt}), inputs, prompt=("soften", n))
            if worded is not None:
                found.append(worded)
        return tuple(found)

    def _softness(self, shot: Shot, inputs: Iterable[Input]) -> tuple[str, ...]:
        """A warning where clips are made of clips too many times over.

        Each hop starts on what the model drew, and what one loses is lost for the next. A reference image, or an
        element, shows the model the real thing again.
        """
        made_of = [i.source for i in inputs if i.of_shot and not (i.place[0] == "video_list" and shot.feature)]
        anchored = bool(shot.images or shot.elements)
        hops = 0 if anchored else max((1 + self.hops.get(source, 0) for source in made_of), default=0)
        self.hops[shot.id] = hops
        if hops <= MAX_HOPS:
            return ()
        said = f"{hops} clips in a row are each made of the one before, and get softer with each"
        return (f"{said}; a reference image under images, named in the prompt, anchors the look again",)

    def _video_seconds(self, inputs: Iterable[Input]) -> float | None:
        for entry in inputs:
            if entry.place[0] == "video_list":
                if entry.kind == "clip":
                    return self.lengths.get(entry.source)
                facts = self.videos.get(entry.source)
                return facts.seconds if facts else None
        return None

    def _check_video(self, number: int, shot: Shot, inputs: Iterable[Input], length: float | None) -> None:
        """Refuses a video that the gateway would refuse, as far as it is known: probed, or planned."""
        for entry in inputs:
            if entry.place[0] != "video_list" or length is None:
                continue
            # Clips come in sizes and at a rate that are taken back as input; only their length can be too much.
            facts = self.videos.get(entry.source) or VideoFacts(length, 1280, 720, 24, 0)
            refer_type = "base" if shot.base else "feature"
            refusal = video_refusal(facts, model=shot.model or self.board.defaults.model, refer_type=refer_type)
            if refusal is not None:
                named = f"the clip of '{entry.source}'" if entry.kind == "clip" else f"'{short(entry.source)}'"
                self._note(number, (refer_type,), f"{named} cannot be sent: {refusal}")

    def _note(self, number: int, path: DataPath, message: str) -> None:
        """Notes a problem where the shot says what is wrong, else where the defaults do, else at the shot."""
        shot = self.board.shots[number]
        home: DataPath = ("shots", number, *path)
        if path and path[0] in Defaults.model_fields and path[0] not in shot.model_fields_set:
            said = path[0] in self.board.defaults.model_fields_set
            home = ("defaults", *path) if said else ("shots", number)
        place = self.document.positions.of(*home)
        self.problems.add(place, f"{label(('shots', number, *path), {number: shot.id})}: {message}")


def _ids(document: Document) -> dict[str, int]:
    return {shot.id: n for n, shot in enumerate(document.storyboard.shots)}


def _files(document: Document) -> Iterator[tuple[Shot, Reference, Input]]:
    """Every reference of a document that leads to a file, with its shot; those that lead nowhere are left out."""
    ids = _ids(document)
    for shot in document.storyboard.shots:
        for reference in references(shot):
            try:
                entry = resolved(reference, ids, document.root, allow_outside=document.allow_outside)
            except Unusable:
                continue
            if entry.kind == "file":
                yield shot, reference, entry


def _fits(shot: Shot, defaults: Defaults) -> bool:
    return (shot.fit or defaults.fit) == "yes"


def _needs(inputs: Iterable[Input]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry.source for entry in inputs if entry.of_shot))


def _put(body: dict[str, Any], place: Place, url: str) -> None:
    target: Any = body
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = url
