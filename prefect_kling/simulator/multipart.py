"""`multipart/form-data`, as far as one uploaded file needs it (RFC 7578). Pure.

Starlette's own parser needs a package that Prefect does not bring.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import HTTP

__all__ = ["Part", "parts"]


@dataclass(frozen=True)
class Part:
    """One part of a form: its field name, the file name where it has one, its media type and its bytes."""

    name: str
    filename: str | None
    content_type: str
    content: bytes


def parts(content_type: str, body: bytes) -> tuple[Part, ...]:
    """Splits a form into its parts.

    Args:
        content_type: the request's header, with the boundary.
        body: the whole request body.

    Raises:
        ValueError: this is no multipart form, or a broken one.
    """
    header = EmailMessage(policy=HTTP)
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise ValueError("Content-Type has to be multipart/form-data with a boundary")
    # A delimiter belongs to the line break before it; the first one may have none.
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1"))
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise ValueError("the form does not end with its boundary")
    return tuple(_part(piece) for piece in pieces[1:-1])


def _part(piece: bytes) -> Part:
    head, blank, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not blank:
        raise ValueError("a part of the form has no headers")
    headers = BytesHeaderParser(policy=HTTP).parsebytes(head + b"\r\n\r\n")
    disposition = headers["Content-Disposition"]
    params = disposition.params if disposition is not None else {}
    if "name" not in params:
        raise ValueError("a part of the form has no name")
    return Part(params["name"], params.get("filename"), str(headers["Content-Type"] or "text/plain"), content)
