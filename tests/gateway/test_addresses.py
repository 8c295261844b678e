"""Which addresses the gateway can reach (gateway.md, rule 9), beyond the rows of the table of raw bodies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_kling.gateway.addresses import is_loopback_url, refusal

LOOPBACK = [
    "http://127.0.0.1",
    "http://127.0.0.1:8000/a?b#c",
    "https://127.9.9.9/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0x7f.1/",
    "http://0X7F000001/",
    "http://017700000001/",
    "http://2130706433/",
    "http://127.0.0.1./",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]:80/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://localhost/",
    "HTTP://LocalHost:4200",
    "http://localhost./",
    "http://a.b.localhost/",
    "http://user:pass@localhost/",
]
ELSEWHERE = [
    "https://apimodels.app/api/v1",
    "https://localhost.example.com/",
    "https://mylocalhost/",
    "https://127.0.0.1.example.com/",
    "http://127.0.0.1@example.com/",
    "http://10.0.0.1/",
    "http://128.0.0.1/",
    "http://[::2]/",
    "http://0.0.0.0/",
    "",
    "localhost",
    "//",
    "http://",
    "http://[::1",
    "http://[",
    "/srv/clips/a.mp4",
]


@pytest.mark.parametrize("url", LOOPBACK)
def test_this_machine_is_known_by_every_name(url: str) -> None:
    assert is_loopback_url(url)
    assert refusal(url) is not None
    assert refusal(url, loopback=True) is None
    assert refusal(url, loopback=True, https_only=True) is None


@pytest.mark.parametrize("url", ELSEWHERE)
def test_other_machines_and_what_is_no_url_are_not_this_machine(url: str) -> None:
    assert not is_loopback_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/a.mp4?x=1&y=%20#z",
        "http://example.com/a",
        "HTTPS://EXAMPLE.COM/A",
        "https://bücher.example/",
        "https://a_b.example.com/",
        "https://user@example.com/",
        "https://1.1.1.1/",
        "https://[2606:4700:4700::1111]:443/",
        "https://11.0.0.1/",
        "https://172.15.255.255/",
        "https://172.32.0.0/",
        "https://192.167.255.255/",
        "https://100.63.255.255/",
        "https://100.128.0.0/",
        "https://169.253.0.1/",
        "https://223.255.255.254/",
    ],
)
def test_public_addresses_are_taken(url: str) -> None:
    assert refusal(url) is None
    assert refusal(url, loopback=True) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://0/",
        "http://0.0.0.0/",
        "http://10.255.255.255/",
        "http://0xa.1/",
        "http://012.0.0.1/",
        "http://172.16.0.0/",
        "http://172.31.255.255/",
        "http://192.168.255.255/",
        "http://100.64.0.0/",
        "http://100.127.255.255/",
        "http://169.254.0.1/",
        "http://192.0.2.9/",
        "http://198.51.100.9/",
        "http://203.0.113.9/",
        "http://198.19.255.255/",
        "http://224.0.0.251/",
        "http://239.255.255.250/",
        "http://240.0.0.0/",
        "http://255.255.255.255/",
        "http://[::]/",
        "http://[::10.0.0.1]/",
        "http://[::ffff:192.168.0.1]/",
        "http://[64:ff9b::c0a8:1]/",
        "http://[2002:c0a8:1::]/",
        "http://[2001:db8::1]/",
        "http://[fc00::1]/",
        "http://[fdff::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[fec0::1]/",
        "http://[ff05::2]/",
        "http://printer.local/",
        "http://PRINTER.LOCAL./",
        "http://db.internal/",
        "http://nas.lan/",
        "http://nas.home.arpa/",
        "http://nas/",
        "http://\uff11\uff10.0.0.1/",
        "http://10\u30020\u30020\u30021/",
        "http://10\uff0e0\uff0e0\uff0e1/",
        "http://%31%30.0.0.1/",
        "http://example.com%2f@/",
    ],
)
@pytest.mark.parametrize("loopback", [False, True])
def test_private_and_reserved_addresses_are_refused_in_every_spelling(url: str, loopback: bool) -> None:
    assert refusal(url, loopback=loopback)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "not an http or https URL"),
        ("example.com", "not an http or https URL"),
        ("ftp://example.com/", "not an http or https URL"),
        ("https:example.com", "not an http or https URL"),
        ("https:///a", "not an http or https URL"),
        ("https://@/a", "not an http or https URL"),
        ("https://example.com/a b", "no spaces"),
        ("https://example.com/\n", "no spaces"),
        ("https://example.com/\x00", "control characters"),
        ("https://127.0.0.1\\@example.com/", "backslashes"),
        ("https://[::1", "not a URL"),
        ("https://example.com:x/", "not a URL"),
        ("https://example.com:65536/", "not a URL"),
        ("https://exa%6dple.com/", "no host name"),
        ("http://10.0.0.1/", "10.0.0.1 is a private or reserved address"),
        ("http://nas/", "nas is a name of the local network"),
    ],
)
def test_a_refusal_says_why(url: str, reason: str) -> None:
    assert reason in (refusal(url) or "")


def test_a_callback_has_to_be_https() -> None:
    assert refusal("https://example.com/kling", https_only=True) is None
    assert "https" in (refusal("http://example.com/kling", https_only=True) or "")
    assert "https" in (refusal("http://example.com/kling", https_only=True, loopback=True) or "")


@given(st.text("http:/[]%.@1a0x\\ é。\uff11", max_size=30))
def test_no_text_breaks_the_judgement(text: str) -> None:
    for url in (text, f"http://{text}", f"https://[{text}]/"):
        is_loopback_url(url)
        refusal(url)
        assert refusal(url, loopback=True) is None or refusal(url) is not None
