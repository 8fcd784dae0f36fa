"""What builds print."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from coder.db.models import Base


class BuildLog(Base):
    """One line of a build's log."""

    __tablename__ = "build_logs"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    build_id: Mapped[UUID] = mapped_column(ForeignKey("workspace_builds.id"), index=True)
    created_at: Mapped[datetime]
    source: Mapped[str] = mapped_column(String(24))
    """provisioner_daemon: the server's own words; provisioner: what the programs it runs print."""
    level: Mapped[str] = mapped_column(String(8))
    stage: Mapped[str] = mapped_column(String(64))
    """The step it belongs to."""
    output: Mapped[str]
