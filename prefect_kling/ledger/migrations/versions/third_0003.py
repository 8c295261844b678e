"""Where a pinned take's series began, and which films are whole."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the columns; until now every pin was a retake's."""
    op.add_column("kling_pins", sa.Column("series", sa.Integer, nullable=False, server_default="1"))
    op.execute("UPDATE kling_pins SET series = take")
    op.add_column("kling_films", sa.Column("whole", sa.Boolean, nullable=False, server_default=sa.true()))
