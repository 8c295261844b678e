"""Prices, retyped from gateway.md by hand; exact, never floats."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.gateway.prices import (
    UNKNOWN_BASE_SECONDS,
    PriceTable,
    billed_seconds,
    estimate_cost,
    micro_usd,
    upper_cost,
)
from prefect_kling.gateway.requests import OmniVideoRequest

O1, V3 = "kling-video-o1", "kling-v3-omni"


def asked(model: str = V3, video: str | None = None, keep: str | None = None, **fields: Any) -> OmniVideoRequest:
    body: dict[str, Any] = {"model": model, "prompt": "A fox", "aspect_ratio": "16:9", **fields}
    if video is not None:
        body["video_list"] = [{"video_url": "https://example.com/a.mp4", "refer_type": video}]
        if keep is not None:
            body["video_list"][0]["keep_original_sound"] = keep
    return OmniVideoRequest.model_validate(body)


def usd(text: str) -> Decimal:
    return Decimal(text)


@pytest.mark.parametrize(
    ("model", "mode", "plain", "keep", "sound"),
    [
        # keep: O1 has no row: estimate plain, reserve at sound on
        (O1, "std", "0.0633", ("0.0633", "0.0956"), "0.0956"),
        (O1, "pro", "0.0853", ("0.0853", "0.1280"), "0.1280"),
        (V3, "std", "0.0633", ("0.0853", "0.0853"), "0.0956"),
        (V3, "pro", "0.0853", ("0.1059", "0.1059"), "0.1280"),
    ],
)
@pytest.mark.parametrize("seconds", [3, 5, 10])
def test_a_request_costs_its_seconds_times_gateway_mds_price(
    model: str, mode: str, plain: str, keep: tuple[str, str], sound: str, seconds: int
) -> None:
    fields: dict[str, Any] = {"mode": mode, "duration": str(seconds)}
    for request in (
        asked(model, **fields),
        asked(model, sound="off", **fields),
        asked(model, "feature", "no", **fields),
    ):
        assert estimate_cost(request) == upper_cost(request) == usd(plain) * seconds
    request = asked(model, sound="on", **fields)
    assert estimate_cost(request) == upper_cost(request) == usd(sound) * seconds
    kept = asked(model, "feature", "yes", **fields)
    assert (estimate_cost(kept), upper_cost(kept)) == (usd(keep[0]) * seconds, usd(keep[1]) * seconds)
    edit = asked(model, "base", "yes", mode=mode)
    assert estimate_cost(edit, input_seconds=seconds) == usd(keep[0]) * seconds
    assert upper_cost(edit, input_seconds=seconds) == usd(keep[1]) * seconds


@pytest.mark.parametrize(
    ("request_", "input_seconds", "price"),
    [
        (asked(), None, "0.3165"),
        (asked(duration="15", mode="pro", sound="on"), None, "1.9200"),
        (asked(O1, duration="10"), None, "0.6330"),
        (asked(video="base", keep="no"), 5.04, "0.3165"),
        (asked(video="base", keep="yes", mode="pro"), 7.0, "0.7413"),
        (asked(video="base", keep="no"), None, "0.6330"),
        (asked(video="feature", duration="4"), 9.0, "0.2532"),
    ],
)
def test_whole_prices(request_: OmniVideoRequest, input_seconds: float | None, price: str) -> None:
    assert estimate_cost(request_, input_seconds=input_seconds) == usd(price)


@pytest.mark.parametrize(
    ("length", "seconds"),
    [(3.0, 3), (3.04, 3), (5.0, 5), (5.04, 5), (5.49, 5), (5.5, 6), (6.5, 7), (9.96, 10), (10.04, 10), (None, 10)],
)
def test_a_base_edit_is_billed_by_its_inputs_rounded_length(length: float | None, seconds: int) -> None:
    assert billed_seconds(asked(video="base"), length) == seconds
    assert billed_seconds(asked(video="base", duration="7"), length) == seconds


def test_an_unknown_length_is_held_at_the_longest_a_base_video_can_be() -> None:
    assert UNKNOWN_BASE_SECONDS == 10


@pytest.mark.parametrize("duration", [None, "3", "15"])
def test_everything_else_is_billed_by_its_duration(duration: str | None) -> None:
    fields = {} if duration is None else {"duration": duration}
    for request in (asked(**fields), asked(video="feature", **fields)):
        assert billed_seconds(request, 9.0) == billed_seconds(request) == int(duration or 5)


COMBINATIONS = [
    (model, mode, video, keep, sound)
    for model, mode, video, keep, sound in itertools.product(
        (O1, V3), ("std", "pro"), (None, "base", "feature"), (None, "yes", "no"), (None, "on", "off")
    )
    if not (video and sound == "on") and not (keep and not video)
]


@pytest.mark.parametrize(("model", "mode", "video", "keep", "sound"), COMBINATIONS)
@pytest.mark.parametrize(
    "table", [None, {"plain": "5", "sound": "1"}, {"plain": "5", "keep_original_sound": "0", "sound": "1"}]
)
def test_the_upper_bound_is_never_below_the_estimate(
    model: str, mode: str, video: str | None, keep: str | None, sound: str | None, table: dict[str, str] | None
) -> None:
    prices = None if table is None else PriceTable.model_validate({model: {mode: table}})
    request = asked(model, video, keep, mode=mode, sound=sound)
    for length in (None, 3.0, 5.04, 10.1):
        estimate = estimate_cost(request, input_seconds=length, prices=prices)
        upper = upper_cost(request, input_seconds=length, prices=prices)
        assert Decimal(0) < upper >= estimate >= 0
        assert type(estimate) is type(upper) is Decimal
        assert micro_usd(estimate) <= micro_usd(upper)


def test_an_unsaid_keep_original_sound_is_estimated_as_no_and_held_as_yes() -> None:
    unsaid = asked(video="feature", duration="10")
    assert (estimate_cost(unsaid), upper_cost(unsaid)) == (usd("0.633"), usd("0.853"))


def test_a_price_of_nothing_is_a_price() -> None:
    table = PriceTable.model_validate({V3: {"std": {"plain": "0.1", "keep_original_sound": "0", "sound": "0.3"}}})
    kept = asked(video="feature", keep="yes")
    assert estimate_cost(kept, prices=table) == 0
    assert upper_cost(kept, prices=table) == usd("0.5")


@pytest.mark.parametrize(
    ("amount", "micro"),
    [
        ("0", 0),
        ("0.000001", 1),
        ("0.3165", 316_500),
        ("1.9200", 1_920_000),
        ("1E+3", 1_000_000_000),
        ("-0.5", -500_000),
        ("123456789012345678901234567890.000001", 123456789012345678901234567890_000001),
    ],
)
def test_micro_dollars_are_exact(amount: str, micro: int) -> None:
    assert micro_usd(usd(amount)) == micro


@pytest.mark.parametrize(
    "amount",
    ["0.0000001", "0.3165005", "1E-7", "0.0000010000000000000000000000000000001", "NaN", "Infinity", "-Infinity"],
)
def test_finer_amounts_are_refused_not_rounded(amount: str) -> None:
    with pytest.raises(ValueError, match="USD"):
        micro_usd(usd(amount))


def test_a_user_can_replace_the_table(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({V3: {"std": {"plain": "0.5", "sound": "0.75"}}}))
    table = PriceTable.load(file)
    assert estimate_cost(asked(), prices=table) == usd("2.5")
    assert estimate_cost(asked(sound="on"), prices=table) == usd("3.75")
    assert estimate_cost(asked()) == usd("0.3165")


def test_a_table_may_write_prices_as_json_numbers(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text('{"kling-v3-omni": {"std": {"plain": 0.0633, "sound": 0.0956}}}')
    assert estimate_cost(asked(duration="3"), prices=PriceTable.load(file)) == usd("0.1899")


def test_a_request_without_a_row_has_no_price() -> None:
    table = PriceTable.model_validate({V3: {"std": {"plain": "0.5", "sound": "0.75"}}})
    for request in (asked(mode="pro"), asked(O1)):
        for cost in (estimate_cost, upper_cost):
            with pytest.raises(InvalidRequest, match="no price is known"):
                cost(request, prices=table)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "null",
        '{"kling-v3-omni": {}, "x": 1}',
        '{"kling-v3-omni": {"std": {"plain": "0.1"}}}',
        '{"kling-v3-omni": {"std": {"plain": "cheap", "sound": "1"}}}',
        '{"kling-v3-omni": {"std": {"plain": "-0.1", "sound": "1"}}}',
        '{"kling-v3-omni": {"std": {"plain": "NaN", "sound": "1"}}}',
        '{"kling-v3-omni": {"std": {"plain": "Infinity", "sound": "1"}}}',
        '{"kling-v3-omni": {"std": {"plain": "0.0000001", "sound": "1"}}}',
        '{"kling-v3-omni": {"std": {"plain": true, "sound": "1"}}}',
        '{"kling-v3-omni": {"std": {"plain": "0.1", "sound": "1", "sond": "2"}}}',
    ],
)
def test_a_broken_table_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text)
    with pytest.raises(InvalidRequest, match=r"prices\.json"):
        PriceTable.load(file)


def test_a_missing_table_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"none\.json"):
        PriceTable.load(tmp_path / "none.json")


def test_every_model_and_mode_of_a_request_has_a_price() -> None:
    for model, mode in itertools.product((O1, V3), ("std", "pro")):
        assert PriceTable.load().of(asked(model, mode=mode)).plain > 0
