"""Users have several roles; the names of deleted users are free again."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_UNIQUE = ("username", "email")


def upgrade() -> None:
    """Turn the role into a list, and let only users that are not deleted hold their name and address."""
    op.add_column("users", sa.Column("roles", sa.String(length=128), nullable=False, server_default=""))
    op.execute("UPDATE users SET roles = 'owner' WHERE role = 'owner'")
    op.execute("ALTER TABLE users DROP COLUMN role")  # in place: a copied table would take its rows' keys along
    _index("status <> 'deleted'")


def downgrade() -> None:
    """Keep owners as owners; everybody else becomes a member. Deleted users get names nobody else has."""
    op.add_column("users", sa.Column("role", sa.String(length=16), nullable=False, server_default="member"))
    op.execute("UPDATE users SET role = 'owner' WHERE ',' || roles || ',' LIKE '%,owner,%'")
    op.execute(
        "UPDATE users SET username = 'deleted-' || lower(hex(id)), email = lower(hex(id)) || '@deleted.invalid',"
        " status = 'suspended' WHERE status = 'deleted'"
    )
    op.execute("ALTER TABLE users DROP COLUMN roles")
    _index(None)


def _index(where: str | None) -> None:
    condition = sa.text(where) if where else None
    for column in _UNIQUE:
        op.execute(f"DROP INDEX IF EXISTS uq_users_{column}_lower")
        op.create_index(
            f"uq_users_{column}_lower",
            "users",
            [sa.text(f"lower({column})")],
            unique=True,
            sqlite_where=condition,
            postgresql_where=condition,
        )
