"""Where the gateway is asked to call: what it can reach, and what it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prefect_kling.callbacks.addresses import Binding, binding_of, callback_base
from prefect_kling.gateway.client import DEFAULT_BASE_URL
from prefect_kling.gateway.errors import KlingError
from prefect_kling.settings import StudioSettings

LONGEST = "https://kling.example.com/" + "x" * (2048 - 33 - len("https://kling.example.com/"))


@pytest.mark.parametrize(
    ("base", "found"),
    [
        ("", ""),
        ("https://kling.example.com/kling", "https://kling.example.com/kling"),
        (" https://kling.example.com/kling/ ", "https://kling.example.com/kling"),
        ("https://kling.example.com:8443/a/b", "https://kling.example.com:8443/a/b"),
        (LONGEST, LONGEST),
    ],
)
def test_an_address_that_the_gateway_can_call(settings: StudioSettings, base: str, found: str) -> None:
    assert callback_base(replace(settings, base_url=DEFAULT_BASE_URL, callback_base_url=base)) == found


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ("http://kling.example.com/kling", "it has to be https"),
        ("https://127.0.0.1/kling", "private or reserved"),
        ("https://10.0.0.7/kling", "private or reserved"),
        ("https://receiver/kling", "local network"),
        ("https://localhost:8787/kling", "local network"),
        ("kling.example.com/kling", "not an http or https URL"),
        ("https://kling.example.com/kling?key=1", "no ?"),
        ("https://kling.example.com/kling#a", "no ?"),
        ("https://kling.example.com/k ling", "spaces"),
        (LONGEST + "x", "2048 characters"),
    ],
)
def test_an_address_that_it_cannot_is_refused_before_anything_is_bought(
    settings: StudioSettings, base: str, why: str
) -> None:
    with pytest.raises(KlingError, match="callback_base_url cannot be") as caught:
        callback_base(replace(settings, base_url=DEFAULT_BASE_URL, callback_base_url=base))
    assert why in str(caught.value)


def test_a_password_in_it_is_not_told(settings: StudioSettings) -> None:
    base = "http://kling:s3cret-word@kling.example.com/kling"
    with pytest.raises(KlingError, match="has to be https") as caught:
        callback_base(replace(settings, base_url=DEFAULT_BASE_URL, callback_base_url=base))
    assert "s3cret" not in str(caught.value)


def test_a_gateway_on_this_machine_may_be_told_to_call_this_machine(settings: StudioSettings) -> None:
    base = "http://127.0.0.1:8787/kling"
    assert callback_base(replace(settings, callback_base_url=base)) == base
    assert callback_base(replace(settings, callback_base_url="", receive_on="127.0.0.1:0")) == ""


def test_to_receive_for_a_gateway_elsewhere_needs_a_public_address(settings: StudioSettings) -> None:
    with pytest.raises(KlingError, match="callback_base_url is not"):
        callback_base(replace(settings, base_url=DEFAULT_BASE_URL, callback_base_url="", receive_on="127.0.0.1:8787"))


@pytest.mark.parametrize(
    ("text", "binding"),
    [
        ("", None),
        ("127.0.0.1:8787", Binding("127.0.0.1", 8787)),
        ("0.0.0.0:0", Binding("0.0.0.0", 0)),
        ("[::1]:8787", Binding("::1", 8787)),
        ("worker.example.com:80", Binding("worker.example.com", 80)),
    ],
)
def test_where_a_run_receives(settings: StudioSettings, text: str, binding: Binding | None) -> None:
    assert binding_of(replace(settings, receive_on=text)) == binding


@pytest.mark.parametrize("text", ["8787", ":8787", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536"])
def test_what_is_no_host_and_port_is_told(settings: StudioSettings, text: str) -> None:
    with pytest.raises(KlingError, match="receive_on has to be HOST:PORT"):
        binding_of(replace(settings, receive_on=text))
