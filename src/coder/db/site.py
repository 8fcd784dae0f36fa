"""The deployment itself: its id, and the rows every deployment has."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from coder.db import templates
from coder.db.models import Organization, SiteSetting

_DEPLOYMENT_ID = "deployment_id"


@dataclass(frozen=True, slots=True)
class Site:
    """What every deployment has, made at its first start."""

    deployment_id: UUID
    organization: Organization

    def is_organization(self, text: str) -> bool:
        """Say whether a name or an id, as a client gives it, means the only organization there is."""
        return text.lower() in {"default", self.organization.name, str(self.organization.id)}


async def ensure(session: AsyncSession, now: datetime) -> Site:
    """Return the deployment's own rows, making those that are missing."""
    organization = await _organization(session, now)
    await templates.ensure(session, organization.id, now)
    return Site(deployment_id=await _deployment_id(session), organization=organization)


async def _deployment_id(session: AsyncSession) -> UUID:
    row = await session.get(SiteSetting, _DEPLOYMENT_ID)
    if row is None:
        row = SiteSetting(key=_DEPLOYMENT_ID, value=str(uuid4()))
        session.add(row)
    return UUID(row.value)


async def _organization(session: AsyncSession, now: datetime) -> Organization:
    found = await session.scalar(select(Organization).where(Organization.is_default))
    if found is None:
        found = Organization(
            id=uuid4(), name="coder", display_name="Coder", is_default=True, created_at=now, updated_at=now
        )
        session.add(found)
        await session.flush()
    return found
