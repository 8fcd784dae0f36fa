"""Users may be held to the browser."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add to users whether they reach workspaces through the server's pages only."""
    op.add_column("users", sa.Column("browser_only", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Forget it: they may use the command line again."""
    op.execute("ALTER TABLE users DROP COLUMN browser_only")
