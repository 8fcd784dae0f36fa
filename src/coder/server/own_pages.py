"""Which pages may ask for what needs no session."""

from fastapi import Depends
from starlette.requests import HTTPConnection

from coder.server.deployment import Deployed
from coder.server.problems import forbidden


async def no_other_page(connection: HTTPConnection, deployment: Deployed) -> None:
    """Refuse the page of another site. Raises Problem (403).

    Such a page reaches a server on its reader's machine under a name of its own that leads there (DNS rebinding).
    """
    given = connection.headers.get("Origin")
    if given is not None and given.lower() != deployment.origin:
        raise forbidden(f"This is for pages of {deployment.origin} and for programs, not for pages of other sites.")


NO_OTHER_PAGE = Depends(no_other_page)
