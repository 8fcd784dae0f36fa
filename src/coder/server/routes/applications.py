"""Where apps are found, and how a browser signs in to their hosts."""

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from coder.access import app_names
from coder.server import app_sessions, auth
from coder.server.auth import SignedIn
from coder.server.deployment import Deployed
from coder.server.problems import Problem

router = APIRouter()


@router.get("/applications/host")
async def applications_host(_who: SignedIn, deployment: Deployed) -> dict[str, str]:
    """Name the host of apps, with a * for the app; empty: apps have paths only."""
    wildcard = deployment.settings.apps.wildcard_access_url
    return {"host": app_names.wildcard_host(wildcard, deployment.access_url)}


@router.get("/applications/auth-redirect")
async def auth_redirect(request: Request, deployment: Deployed, redirect_uri: str = "") -> Response:
    """Send a browser that is signed in back to an app, with a code that signs it in there; others sign in first."""
    if not redirect_uri:
        raise Problem(400, "Missing redirect_uri query parameter.")
    back = app_sessions.return_url(deployment, redirect_uri)
    if back is None:
        raise Problem(400, "Invalid redirect_uri.", detail="It must be the address of an app.")
    try:
        who = await auth.caller(request, deployment)
    except Problem as refused:
        if refused.status != 401:
            raise
        here = f"{request.url.path}?{request.url.query}"
        return RedirectResponse(app_sessions.login_url(deployment, here), 303)
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(app_sessions.with_code(deployment, who, back), 303, headers)
