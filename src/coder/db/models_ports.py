"""Ports that users share."""

from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from coder.db.models import Base


class PortShare(Base):
    """With whom a port of an agent is shared, beyond those who may connect anyway."""

    __tablename__ = "port_shares"
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspaces.id", ondelete="CASCADE"), primary_key=True)
    agent_name: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Agents come and go with builds; their names stay."""
    port: Mapped[int] = mapped_column(primary_key=True)
    share_level: Mapped[str] = mapped_column(String(16))
    protocol: Mapped[str] = mapped_column(String(8))
