"""Which URLs the gateway can fetch: public ones, or loopback ones where the gateway itself runs on loopback.

The gateway refuses private and loopback addresses (gateway.md, rule 9); refusing them here costs nothing, there it is
a round trip and an unclear message. Names are judged by their text alone: nothing is resolved.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from urllib.parse import urlsplit

__all__ = ["is_loopback_url", "refusal"]

_LOCAL_SUFFIXES = (".local", ".localhost", ".internal", ".lan", ".home.arpa")
# Percent signs and the like: one reader decodes them, another does not, and then two hosts are meant.
_ODD_IN_A_NAME = re.compile(r"[^\w.:-]")


def is_loopback_url(url: str) -> bool:
    """Whether `url` names this machine: 127.0.0.0/8, ::1 or localhost. What is no URL does not."""
    try:
        host = _host(url)
    except ValueError:
        return False
    if host is None:
        return False
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost" or host.endswith(".localhost")


def refusal(url: str, *, loopback: bool = False, https_only: bool = False) -> str | None:
    """Why the gateway cannot use `url`, in a few words, or None where it can (gateway.md, rule 9).

    Args:
        url: as the user wrote it.
        loopback: the gateway runs on this machine, so loopback addresses and plain http are fine.
        https_only: as for `callback_url`.
    """
    if any(c.isspace() or ord(c) < 0x20 or c == "\\" for c in url):
        return "a URL has no spaces, backslashes or control characters"
    try:
        scheme = urlsplit(url).scheme.lower()
        host = _host(url)
        _ = urlsplit(url).port  # raises where it is no port
    except ValueError as error:
        return f"it is not a URL ({error})"
    if scheme not in ("http", "https") or not host:
        return "it is not an http or https URL"
    if loopback and is_loopback_url(url):
        return None
    if https_only and scheme != "https":
        return "it has to be https"
    address = _address(host)
    if address is not None:
        return (
            None if _is_public(address) else f"{host} is a private or reserved address, which the gateway cannot reach"
        )
    if _ODD_IN_A_NAME.search(host):
        return f"{host} is no host name"
    if host == "localhost" or host.endswith(_LOCAL_SUFFIXES) or "." not in host:
        return f"{host} is a name of the local network, which the gateway cannot reach"
    return None


def _host(url: str) -> str | None:
    host = urlsplit(url).hostname
    # As resolvers read names: full-width digits and ideographic full stops are digits and full stops.
    return unicodedata.normalize("NFKC", host).replace("\u3002", ".").rstrip(".").lower() if host else None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        # Resolvers also take 127.1, 0x7f000001 and 2130706433 for 127.0.0.1.
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeEncodeError):
            return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # `is_global` alone takes multicast, site-local and NAT64 addresses for public.
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not (address.is_multicast or address.is_reserved or site_local)
