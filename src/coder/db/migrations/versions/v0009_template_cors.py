"""Templates may leave it to their apps which other origins read from them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add to templates who answers the pages of other origins; the server, as it was."""
    op.add_column("templates", sa.Column("cors_behavior", sa.String(16), nullable=False, server_default="simple"))


def downgrade() -> None:
    """Forget it: the server answers for all apps again."""
    op.execute("ALTER TABLE templates DROP COLUMN cors_behavior")
