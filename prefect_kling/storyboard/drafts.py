"""A draft of a document: the same shots, as cheap as they can be had, in an edition of their own."""

from __future__ import annotations

from dataclasses import replace

from prefect_kling.storyboard.reader import Document, digest_of

__all__ = ["draft_edition", "draft_of"]


def draft_of(document: Document) -> Document:
    """The document with every shot in std mode and one take of each; prompts, lengths and the cut stay."""
    board = document.storyboard
    defaults = board.defaults.model_copy(update={"mode": "std", "max_retakes": 0})
    cheap = {"mode": "", "takes": 1, "take": 0, "max_retakes": 0}
    shots = [shot.model_copy(update=cheap) for shot in board.shots]
    drafted = board.model_copy(update={"defaults": defaults, "shots": shots})
    return replace(document, storyboard=drafted, digest=digest_of(drafted))


def draft_edition(edition: str) -> str:
    """Where the drafts of an edition are kept."""
    return "draft" if edition == "main" else f"{edition}-draft"
