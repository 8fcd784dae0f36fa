"""What pages say after something was done. Addresses carry only the names, so nobody can put words in our mouth."""

NOTICES = {
    "oidc-state": "That login was not begun in this browser, or too long ago. Begin it again.",
    "oidc-refused": "The provider did not let you in.",
    "oidc-not-let-in": "You may not come in through the provider: the address is not verified or not of a domain let in"
    " here, the account is suspended or opened with a password. The server's log says which.",
    "oidc-provider": "The provider cannot be used now. Sign in with a password, or try again later.",
    "signed-out": "You are signed out.",
    "created": "The workspace is there.",
    "deleted": "The workspace is deleted.",
    "schedule": "The schedule is changed.",
    "longer": "It runs longer than that already.",
    "template-created": "The template is there. Everybody can make workspaces of it.",
    "template-changed": "The template is changed. Workspaces become like it when they are updated.",
    "template-deleted": "The template is deleted.",
    "starting": "The workspace is being started.",
    "stopping": "The workspace is being stopped.",
    "shared": "The port's sharing is set.",
    "unshared": "The port is yours alone again.",
    "user-created": "The user can sign in now.",
    "user-changed": "The user is changed.",
    "user-deleted": "The user is deleted.",
    "token-deleted": "The token no longer works.",
    "password": "The password is changed. Other sessions and tokens have ended.",
    "profile": "Your profile is changed.",
}

FAILURES = {
    "oidc-state": "This login was not begun in this browser, or too long ago. Begin it again.",
    "oidc-refused": "The provider did not let you in.",
    "oidc-not-let-in": "The provider knows you, but this server lets in nobody of that kind. Ask an owner of it.",
    "oidc-provider": "The provider cannot be used now. Try again in a moment; the server's log says why.",
}
"""What went wrong elsewhere, on the way back to a page of ours."""
