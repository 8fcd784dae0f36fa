"""Templates as data, builds that take time and have a log, and agents with what their template lists for them."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def _text(name: str, length: int | None = None, default: str = "") -> sa.Column[Any]:
    return sa.Column(name, sa.String(length=length), nullable=False, server_default=default)


def _json(name: str, default: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(), nullable=False, server_default=default)


def _new() -> dict[str, tuple[sa.Column[Any], ...]]:
    return {
        "templates": (
            _text("description"),
            _text("icon"),
            _text("kind", 16, "machine"),
            sa.Column("default_ttl_ms", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("browser_only", sa.Boolean(), nullable=False, server_default=sa.false()),
            _text("max_port_share_level", 16, "public"),
            sa.Column("deleted_at", sa.DateTime(), nullable=True),
        ),
        "template_versions": (_json("settings", "{}"), _json("agents", "[]"), _json("parameters", "[]")),
        "workspaces": (
            sa.Column("ttl_ms", sa.Integer(), nullable=True),
            sa.Column("autostart_schedule", sa.String(), nullable=True),
        ),
        "workspace_builds": (
            _text("status", 16, "succeeded"),
            _text("error"),
            _text("reason", 32, "initiator"),
            _json("parameters", "{}"),
            sa.Column("started_at", sa.DateTime(), nullable=True),
            sa.Column("ended_at", sa.DateTime(), nullable=True),
            sa.Column("deadline", sa.DateTime(), nullable=True),
        ),
        "workspace_agents": (
            _json("environment", "{}"),
            _json("scripts", "[]"),
            _json("apps", "[]"),
            _json("metadata_items", "[]"),
            sa.Column("display_order", sa.Integer(), nullable=False, server_default="0"),
        ),
    }


def upgrade() -> None:
    """Add the columns and the table of logs. All builds there are were complete when they were made."""
    for table, columns in _new().items():
        for column in columns:
            op.add_column(table, column)
    op.execute("UPDATE workspace_builds SET started_at = created_at, ended_at = completed_at")
    op.execute("ALTER TABLE workspace_builds DROP COLUMN completed_at")
    op.create_index(op.f("ix_workspace_builds_status"), "workspace_builds", ["status"], unique=False)
    op.create_table(
        "build_logs",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("build_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("source", sa.String(length=24), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("stage", sa.String(length=64), nullable=False),
        sa.Column("output", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["build_id"], ["workspace_builds.id"], name=op.f("fk_build_logs_build_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_build_logs")),
    )
    op.create_index(op.f("ix_build_logs_build_id"), "build_logs", ["build_id"], unique=False)


def downgrade() -> None:
    """Forget the logs and what templates hold; builds under way count as complete."""
    op.drop_table("build_logs")
    op.drop_index(op.f("ix_workspace_builds_status"), "workspace_builds")
    op.add_column(
        "workspace_builds",
        sa.Column("completed_at", sa.DateTime(), nullable=False, server_default="1970-01-01 00:00:00.000000"),
    )
    op.execute("UPDATE workspace_builds SET completed_at = coalesce(ended_at, created_at)")
    for table, columns in _new().items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} DROP COLUMN {column.name}")
