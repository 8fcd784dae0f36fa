"""Alembic's entry: runs the steps on the connection the store hands over."""

from alembic import context

from coder.db import models_builds, models_ports  # noqa: F401  their tables belong to the metadata
from coder.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
