"""The audit log and the connection log."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "audit_logs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("time", sa.DateTime(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("username", sa.String(length=64), nullable=False),
        sa.Column("ip", sa.String(length=64), nullable=False),
        sa.Column("user_agent", sa.String(length=256), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("resource_type", sa.String(length=32), nullable=False),
        sa.Column("resource_id", sa.String(length=64), nullable=False),
        sa.Column("resource_target", sa.String(length=254), nullable=False),
        sa.Column("detail", sa.String(length=254), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_logs")),
    )
    op.create_index(op.f("ix_audit_logs_time"), "audit_logs", ["time"], unique=False)
    op.create_table(
        "connection_logs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_name", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("owner_username", sa.String(length=64), nullable=False),
        sa.Column("agent_name", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=24), nullable=False),
        sa.Column("ip", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("username", sa.String(length=64), nullable=False),
        sa.Column("connect_time", sa.DateTime(), nullable=False),
        sa.Column("disconnect_time", sa.DateTime(), nullable=True),
        sa.Column("disconnect_reason", sa.String(length=256), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connection_logs")),
        sa.UniqueConstraint("agent_id", "connection_id", name=op.f("uq_connection_logs_agent_id_connection_id")),
    )
    op.create_index(op.f("ix_connection_logs_connect_time"), "connection_logs", ["connect_time"], unique=False)
    op.create_index("ix_connection_logs_agent_id_connect_time", "connection_logs", ["agent_id", "connect_time"])


def downgrade() -> None:
    """Forget both logs."""
    op.drop_table("connection_logs")
    op.drop_table("audit_logs")
