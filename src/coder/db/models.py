"""The tables. Times are UTC; secrets are stored as hashes only."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite itself keeps no zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Strip the zone after converting to UTC."""
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Put the zone back."""
        return value.replace(tzinfo=UTC) if value else None


class Base(DeclarativeBase):
    """Root of the tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcTime(), dict[str, Any]: JSON(), list[dict[str, Any]]: JSON()}  # noqa: RUF012  SQLAlchemy's own way


class SiteSetting(Base):
    """One fact about the deployment, e.g. its id."""

    __tablename__ = "site_settings"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str]


class CryptoKey(Base):
    """A signing key. `feature` says what for; the highest sequence signs, all of them verify."""

    __tablename__ = "crypto_keys"
    feature: Mapped[str] = mapped_column(String(64), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    secret: Mapped[bytes]
    created_at: Mapped[datetime]


class Organization(Base):
    """A group of users and workspaces; one exists."""

    __tablename__ = "organizations"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    display_name: Mapped[str]
    is_default: Mapped[bool]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class User(Base):
    """A person. Names and addresses are unique whatever their case. Deleted users stay for history and free theirs."""

    __tablename__ = "users"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    username: Mapped[str] = mapped_column(String(64))
    email: Mapped[str] = mapped_column(String(254))
    name: Mapped[str]
    password_hash: Mapped[str]
    """Empty where no password opens the account."""
    login_type: Mapped[str] = mapped_column(String(16), server_default="password")
    roles: Mapped[str] = mapped_column(String(128))
    """Names joined by commas, in order; empty for a plain member."""
    browser_only: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Reaches workspaces through the server's pages only: gets no tunnel."""
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]

    __table_args__ = tuple(
        Index(
            f"uq_users_{column}_lower",
            text(f"lower({column})"),
            unique=True,
            sqlite_where=text("status <> 'deleted'"),
            postgresql_where=text("status <> 'deleted'"),
        )
        for column in ("username", "email")
    )

    @property
    def role_names(self) -> frozenset[str]:
        """What the user may do beyond a member's own things."""
        return frozenset(filter(None, self.roles.split(",")))


class UserLink(Base):
    """Who a user is at a provider: its issuer, and its name for them. Addresses change hands, these do not."""

    __tablename__ = "user_links"
    issuer: Mapped[str] = mapped_column(String(512), primary_key=True)
    subject: Mapped[str] = mapped_column(String(255), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), unique=True)
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A login's session (no token name) or a token."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(String(10), primary_key=True)
    hashed_secret: Mapped[bytes]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    login_type: Mapped[str] = mapped_column(String(16))
    scope: Mapped[str] = mapped_column(String(32))
    token_name: Mapped[str | None] = mapped_column(String(64))
    lifetime_seconds: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    last_used: Mapped[datetime]
    expires_at: Mapped[datetime]

    user: Mapped[User] = relationship(lazy="raise")

    __table_args__ = (UniqueConstraint("user_id", "token_name"),)


class Template(Base):
    """What workspaces are made of: how they are offered, and rules for all of them. What is built is in versions."""

    __tablename__ = "templates"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str] = mapped_column(String(64), unique=True)
    display_name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    icon: Mapped[str] = mapped_column(default="")
    kind: Mapped[str] = mapped_column(String(16), default="machine")
    """Who starts the agent; a `coder.access.templates.Kind`. It never changes."""
    default_ttl_ms: Mapped[int] = mapped_column(default=0)
    """Milliseconds a new workspace may be idle until it is stopped; 0: for ever."""
    browser_only: Mapped[bool] = mapped_column(default=False)
    """Workspaces are reached through the server's pages only: nobody gets a tunnel."""
    max_port_share_level: Mapped[str] = mapped_column(String(16), default="public")
    """With whom users may share ports at most: owner, organization, authenticated or public."""
    cors_behavior: Mapped[str] = mapped_column(String(16), default="simple")
    """Who answers pages of other origins that read from apps: the server (simple) or the apps (passthru)."""
    active_version_id: Mapped[UUID]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class TemplateVersion(Base):
    """One version of a template. It never changes: an edit of what is built makes a new one."""

    __tablename__ = "template_versions"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    template_id: Mapped[UUID] = mapped_column(ForeignKey("templates.id"))
    name: Mapped[str] = mapped_column(String(64))
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What the kind needs to know, e.g. the image; shapes in `coder.access.templates`."""
    agents: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    """Its agents; an `AgentSpec` of `coder.access.templates` each. None: one named `main`."""
    parameters: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    """What may be chosen for a workspace; a `Parameter` of `coder.access.templates` each."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    template: Mapped[Template] = relationship(lazy="raise")


class Workspace(Base):
    """A named place of work. Deleted ones stay, so that their last state can be shown."""

    __tablename__ = "workspaces"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    template_id: Mapped[UUID] = mapped_column(ForeignKey("templates.id"))
    name: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    ttl_ms: Mapped[int | None]
    """Milliseconds it may be idle until it is stopped; None: for ever."""
    autostart_schedule: Mapped[str | None]
    """When it is started by itself, as a `cron` line of the protocol; None: never."""

    owner: Mapped[User] = relationship(lazy="raise")
    organization: Mapped[Organization] = relationship(lazy="raise")
    template: Mapped[Template] = relationship(lazy="raise")
    builds: Mapped[list["WorkspaceBuild"]] = relationship(
        back_populates="workspace", order_by="WorkspaceBuild.number", lazy="raise"
    )
    """Those that were loaded, by number: since the last start, unless more was asked for."""

    __table_args__ = (
        Index(
            "uq_workspaces_owner_name_live",
            "owner_id",
            text("lower(name)"),
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    @property
    def latest_build(self) -> "WorkspaceBuild":
        """The build that describes the workspace now."""
        return self.builds[-1]


class WorkspaceBuild(Base):
    """One start, stop or delete of a workspace, which the server carries out. Its log is in `BuildLog`."""

    __tablename__ = "workspace_builds"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspaces.id"), index=True)
    template_version_id: Mapped[UUID] = mapped_column(ForeignKey("template_versions.id"))
    initiator_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    number: Mapped[int]
    transition: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), default="succeeded", index=True)
    """pending, running, succeeded, failed, canceling or canceled."""
    error: Mapped[str] = mapped_column(default="")
    """Why it failed, with what helps."""
    reason: Mapped[str] = mapped_column(String(32), default="initiator")
    """Why it was asked for: initiator, autostart, autostop, or what a client says."""
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Chosen values by the name of their parameter."""
    job_id: Mapped[UUID]
    resource_id: Mapped[UUID]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    deadline: Mapped[datetime | None]
    """When the workspace is stopped unless it is used; of a start only."""

    workspace: Mapped[Workspace] = relationship(back_populates="builds", lazy="raise")
    template_version: Mapped[TemplateVersion] = relationship(lazy="raise")
    initiator: Mapped[User] = relationship(lazy="raise")
    agents: Mapped[list["WorkspaceAgent"]] = relationship(
        back_populates="build", order_by="WorkspaceAgent.display_order, WorkspaceAgent.name", lazy="raise"
    )

    __table_args__ = (UniqueConstraint("workspace_id", "number"),)


class WorkspaceAgent(Base):
    """The process on the workspace's machine, with what its template lists for it.

    - `environment`: variables of its sessions and scripts, by name.
    - `scripts`: each `{"id", "log_source_id", "display_name", "icon", "script", "cron", "log_path"}` (texts; the first
      two UUIDs), `{"run_on_start", "run_on_stop", "start_blocks_login"}` (true or false), `"timeout_seconds"` (or 0).
    - `apps`: each `{"id", "slug", "display_name", "icon", "group", "url", "command", "open_in"}` (texts; `id` a UUID),
      `{"external", "subdomain", "hidden"}` (true or false), `"sharing_level"` (owner, authenticated, organization or
      public) and `"healthcheck"`: null or `{"url", "interval_seconds", "threshold"}`. Once the agent has reported:
      `"health"` (disabled, initializing, healthy or unhealthy).
    - `metadata_items`: each `{"key", "display_name", "script"}` (texts), `{"interval_seconds", "timeout_seconds"}`.

    All lists are in the order in which they are shown. The ids are the agent's own: a new agent has new ones.
    """

    __tablename__ = "workspace_agents"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    build_id: Mapped[UUID] = mapped_column(ForeignKey("workspace_builds.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    architecture: Mapped[str] = mapped_column(String(16))
    operating_system: Mapped[str] = mapped_column(String(16))
    directory: Mapped[str]
    connection_timeout_seconds: Mapped[int]
    environment: Mapped[dict[str, Any]] = mapped_column(default=dict)
    scripts: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    apps: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    metadata_items: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    display_order: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    first_connected_at: Mapped[datetime | None]
    last_connected_at: Mapped[datetime | None]
    disconnected_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ready_at: Mapped[datetime | None]
    lifecycle_state: Mapped[str] = mapped_column(String(24))
    version: Mapped[str]
    api_version: Mapped[str] = mapped_column(String(16))
    expanded_directory: Mapped[str]
    subsystems: Mapped[str]
    logs_length: Mapped[int]
    logs_overflowed: Mapped[bool]
    log_sources: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    """Those of no script: each `{"id", "display_name", "icon", "created_at"}`, texts."""
    disconnect_reason: Mapped[str] = mapped_column(String(256), default="")
    """Why the last connection ended."""

    build: Mapped[WorkspaceBuild] = relationship(back_populates="agents", lazy="raise")


class AgentLog(Base):
    """One line an agent or one of its scripts printed."""

    __tablename__ = "agent_logs"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    agent_id: Mapped[UUID] = mapped_column(ForeignKey("workspace_agents.id"), index=True)
    source_id: Mapped[UUID]
    level: Mapped[str] = mapped_column(String(8))
    output: Mapped[str]
    created_at: Mapped[datetime]


class AgentMetadatum(Base):
    """The latest value of one of an agent's `metadata_items`."""

    __tablename__ = "agent_metadata"
    agent_id: Mapped[UUID] = mapped_column(ForeignKey("workspace_agents.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    error: Mapped[str]
    collected_at: Mapped[datetime]


class AuditLog(Base):
    """Who did what to which thing, and with which result. Names are kept as they were, for the things may go."""

    __tablename__ = "audit_logs"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(String(36))
    time: Mapped[datetime] = mapped_column(index=True)
    user_id: Mapped[UUID | None]
    username: Mapped[str] = mapped_column(String(64))
    ip: Mapped[str] = mapped_column(String(64))
    user_agent: Mapped[str] = mapped_column(String(256))
    action: Mapped[str] = mapped_column(String(16))
    resource_type: Mapped[str] = mapped_column(String(32))
    resource_id: Mapped[str] = mapped_column(String(64))
    resource_target: Mapped[str] = mapped_column(String(254))
    detail: Mapped[str] = mapped_column(String(254))
    """What was changed, e.g. `roles: auditor`; never the content of a secret."""
    status_code: Mapped[int]


class ConnectionLog(Base):
    """One connection to a workspace as its agent reported it."""

    __tablename__ = "connection_logs"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    agent_id: Mapped[UUID]
    connection_id: Mapped[UUID]
    """The agent's number for it."""
    workspace_id: Mapped[UUID]
    workspace_name: Mapped[str] = mapped_column(String(64))
    owner_id: Mapped[UUID]
    owner_username: Mapped[str] = mapped_column(String(64))
    agent_name: Mapped[str] = mapped_column(String(64))
    type: Mapped[str] = mapped_column(String(24))
    ip: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[UUID | None]
    """Who connected; None when the server introduced nobody with that address, or several."""
    username: Mapped[str] = mapped_column(String(64))
    connect_time: Mapped[datetime] = mapped_column(index=True)
    disconnect_time: Mapped[datetime | None]
    disconnect_reason: Mapped[str] = mapped_column(String(256))
    exit_code: Mapped[int | None]

    __table_args__ = (
        UniqueConstraint("agent_id", "connection_id"),
        Index("ix_connection_logs_agent_id_connect_time", "agent_id", "connect_time"),
    )
