"""What a request costs, in exact decimals (gateway.md, "Prices").

The table is data: `prices.json` beside this module, or a file of the same shape that the user names.
"""

from __future__ import annotations

import functools
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.gateway.requests import OmniVideoRequest

__all__ = [
    "UNKNOWN_BASE_SECONDS",
    "PerSecond",
    "PriceTable",
    "Prices",
    "billed_seconds",
    "estimate_cost",
    "micro_usd",
    "upper_cost",
]

UNKNOWN_BASE_SECONDS = 10
"""The longest video that a base edit takes, and so the most that an edit of unknown length can cost."""

PerSecond = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=6)]


class Prices(BaseModel):
    """USD per second of one model in one mode."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plain: PerSecond
    keep_original_sound: PerSecond | None = None
    sound: PerSecond


class PriceTable(RootModel[dict[str, dict[str, Prices]]]):
    """Prices by model and mode."""

    @classmethod
    def load(cls, path: Path | None = None) -> PriceTable:
        """Reads a table of prices.

        Args:
            path: a JSON file shaped as the built-in `prices.json`; None for that one.

        Raises:
            InvalidRequest: the file cannot be read or is no table of prices.
        """
        if path is None:
            return _built_in()
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InvalidRequest(f"the price table {path} cannot be used: {error}") from error

    def of(self, request: OmniVideoRequest) -> Prices:
        """The prices of a request's model and mode.

        Raises:
            InvalidRequest: the table has no such row, so nobody can say what the request would cost.
        """
        try:
            return self.root[request.model][request.mode]
        except KeyError:
            raise InvalidRequest(f"no price is known for {request.model} in mode {request.mode}") from None


@functools.cache
def _built_in() -> PriceTable:
    return PriceTable.model_validate_json(Path(__file__).with_name("prices.json").read_bytes())


def estimate_cost(
    request: OmniVideoRequest, *, input_seconds: float | None = None, prices: PriceTable | None = None
) -> Decimal:
    """What a request most likely costs, in USD, exactly.

    Args:
        request: what would be sent.
        input_seconds: a base edit's input length, which it is billed by, rounded; unknown counts as 10 s.
        prices: another table than the built-in one.

    Raises:
        InvalidRequest: the table has no price for this model and mode.
    """
    table = (prices or PriceTable.load()).of(request)
    rate = table.plain
    if request.sound == "on":
        rate = table.sound
    elif _keeps_sound(request) == "yes":
        rate = table.plain if table.keep_original_sound is None else table.keep_original_sound
    return rate * billed_seconds(request, input_seconds)


def upper_cost(
    request: OmniVideoRequest, *, input_seconds: float | None = None, prices: PriceTable | None = None
) -> Decimal:
    """The most that a request can cost as far as anybody knows, in USD: what a budget has to hold for it.

    It is above the estimate where the price list is silent: keeping a video's sound has no row for O1, and whether an
    unsaid `keep_original_sound` counts as yes is said nowhere.
    """
    table = (prices or PriceTable.load()).of(request)
    rate = table.plain
    if request.sound == "on":
        rate = table.sound
    elif request.video_list and _keeps_sound(request) != "no":
        rate = max(table.plain, table.sound if table.keep_original_sound is None else table.keep_original_sound)
    return rate * billed_seconds(request, input_seconds)


def billed_seconds(request: OmniVideoRequest, input_seconds: float | None = None) -> int:
    """Whole seconds on the bill: the duration, or a base edit's input length, rounded half up."""
    if request.seconds is not None:
        return request.seconds
    if input_seconds is None:
        return UNKNOWN_BASE_SECONDS
    return int(Decimal(str(input_seconds)).quantize(Decimal(1), ROUND_HALF_UP))


def micro_usd(usd: Decimal) -> int:
    """USD as integer micro-dollars.

    Raises:
        ValueError: the amount is finer than a micro-dollar; rounding money is never silent.
    """
    if not usd.is_finite():
        raise ValueError(f"{usd} USD is no amount of money")
    # By integers: Decimal's own arithmetic rounds to 28 digits.
    dollars, parts = usd.as_integer_ratio()
    micro, rest = divmod(dollars * 1_000_000, parts)
    if rest:
        raise ValueError(f"{usd} USD is no whole number of micro-dollars")
    return micro


def _keeps_sound(request: OmniVideoRequest) -> str | None:
    return next((video.keep_original_sound for video in request.video_list or ()), None)
