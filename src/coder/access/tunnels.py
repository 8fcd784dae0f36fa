"""Who may have a tunnel at all: browser-only takes it away from everybody, a user or a template's workspaces.

Decided where tunnels are granted, so it holds for every client, also for one that asks no page.
"""


def browser_only(*, everybody: bool, user: bool, template: bool) -> str | None:
    """Return why somebody gets no tunnel to a workspace, in a sentence for them; None when they may have one."""
    if everybody:
        return "This deployment is for browsers only."
    if user:
        return "Your account is for browsers only."
    if template:
        return "Workspaces of this template are for browsers only."
    return None


REMEDY = "Open the workspace in the dashboard: its terminal and its apps work there."
