"""Users may sign in through a provider instead of with a password."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Say of each user how they sign in, and who they are at the provider."""
    op.add_column("users", sa.Column("login_type", sa.String(length=16), nullable=False, server_default="password"))
    op.create_table(
        "user_links",
        sa.Column("issuer", sa.String(length=512), primary_key=True),
        sa.Column("subject", sa.String(length=255), primary_key=True),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_user_links_user_id", ondelete="CASCADE"),
        sa.UniqueConstraint("user_id", name="uq_user_links_user_id"),
    )


def downgrade() -> None:
    """Forget who they are there; without a password they cannot come in any more until one is set."""
    op.drop_table("user_links")
    op.execute("ALTER TABLE users DROP COLUMN login_type")
