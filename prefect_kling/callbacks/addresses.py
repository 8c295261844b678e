"""Where the gateway is asked to call, and where a run receives its calls. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from prefect_kling.clips import without_password
from prefect_kling.gateway.addresses import is_loopback_url, refusal
from prefect_kling.gateway.errors import KlingError
from prefect_kling.gateway.requests import MAX_CALLBACK_URL
from prefect_kling.settings import StudioSettings

__all__ = ["TOKEN_CHARACTERS", "Binding", "binding_of", "callback_base"]

TOKEN_CHARACTERS = 32


@dataclass(frozen=True)
class Binding:
    """An address of this machine."""

    host: str
    port: int

    @property
    def origin(self) -> str:
        """As it stands in a URL."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def binding_of(settings: StudioSettings) -> Binding | None:
    """Where a run receives calls itself; None where somebody else does.

    Raises:
        KlingError: it cannot be read.
    """
    if not settings.receive_on:
        return None
    host, colon, port = settings.receive_on.strip().rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise KlingError(f"receive_on has to be HOST:PORT, such as 127.0.0.1:8787, not {settings.receive_on!r}")
    return Binding(host.strip("[]"), int(port))


def callback_base(settings: StudioSettings) -> str:
    """What a purchase's token is added to, after a slash, to make its `callback_url`; empty where there is none.

    A run that receives on loopback itself, for a gateway on loopback, needs no public address; then it is empty too.

    Raises:
        KlingError: the gateway cannot call there (gateway.md, `callback_url`).
    """
    base = settings.callback_base_url.strip().rstrip("/")
    loopback = is_loopback_url(settings.base_url)
    if not base:
        if settings.receive_on and not loopback:
            raise KlingError(
                "receive_on is set, and callback_base_url is not: the gateway needs the public https address under "
                "which a proxy passes its calls on (docs/callbacks.md)"
            )
        return ""
    why = refusal(base, loopback=loopback, https_only=True)
    if why is None and ("?" in base or "#" in base):
        why = "a token is added to its end, so it has no ? and no #"
    if why is None and len(base) + 1 + TOKEN_CHARACTERS > MAX_CALLBACK_URL:
        why = f"with a token it has more than {MAX_CALLBACK_URL} characters"
    if why is not None:
        shown = without_password(base)[:200]
        raise KlingError(f"callback_base_url cannot be {shown!r}: {why}")
    return base
