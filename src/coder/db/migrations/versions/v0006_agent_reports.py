"""What agents report: values of metadata, log sources of their own, and why they were cut off."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add them."""
    op.add_column("workspace_agents", sa.Column("log_sources", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column(
        "workspace_agents", sa.Column("disconnect_reason", sa.String(length=256), nullable=False, server_default="")
    )
    op.create_table(
        "agent_metadata",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("collected_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["workspace_agents.id"], name=op.f("fk_agent_metadata_agent_id")),
        sa.PrimaryKeyConstraint("agent_id", "key", name=op.f("pk_agent_metadata")),
    )


def downgrade() -> None:
    """Forget them."""
    op.drop_table("agent_metadata")
    op.execute("ALTER TABLE workspace_agents DROP COLUMN disconnect_reason")
    op.execute("ALTER TABLE workspace_agents DROP COLUMN log_sources")
