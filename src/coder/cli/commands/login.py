"""`coder login`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from coder.cli import errors, output
from coder.cli.context import Globals, normal_url
from coder.cli.errors import ApiError
from coder.errors import CoderError, NotSignedIn
from coder.ids import Secret

if TYPE_CHECKING:
    from coder.cli.api import Api


TRIES = 3
"""How often somebody who answers questions may err."""


@click.command("login")
@click.argument("url", required=False)
@click.option("--first-user-email", "email", envvar="CODER_FIRST_USER_EMAIL", help="[env: CODER_FIRST_USER_EMAIL]")
@click.option(
    "--first-user-username", "username", envvar="CODER_FIRST_USER_USERNAME", help="[env: CODER_FIRST_USER_USERNAME]"
)
@click.option(
    "--first-user-full-name", "name", envvar="CODER_FIRST_USER_FULL_NAME", help="[env: CODER_FIRST_USER_FULL_NAME]"
)
@click.option(
    "--first-user-password", "password", envvar="CODER_FIRST_USER_PASSWORD",
    help="Better given by the environment, which other users cannot read. [env: CODER_FIRST_USER_PASSWORD]",
)  # fmt: skip
@click.option("--first-user-trial", "trial", envvar="CODER_FIRST_USER_TRIAL", type=bool, default=False, hidden=True)
@click.option("--use-token-as-session", is_flag=True, help="Keep the token itself instead of a new key made with it.")
@click.pass_obj
def command(
    flags: Globals,
    *,
    url: str | None,
    email: str | None,
    username: str | None,
    name: str | None,
    password: str | None,
    trial: bool,
    use_token_as_session: bool,
) -> None:
    """Sign in to a server, or create its first user.

    A server without users gets its first one: give the --first-user options (or their variables), or answer the
    questions. On any other server those same options sign in with e-mail and password, --token or
    CODER_SESSION_TOKEN with a token; without either, you are asked.
    """
    from coder.cli.api import Api

    given = url or flags.url
    if given is None:
        raise errors.no_server_named()
    address = normal_url(given)
    output.note(f"Attempting to authenticate with {'argument' if url else flags.url_source} URL: '{address}'")
    with Api(address, headers=flags.headers(address), outbound=flags.outbound, on_build=flags.hear_build) as api:
        if not api.has_first_user():
            session = _first_user(flags, api, email=email, username=username, name=name, password=password, trial=trial)
        elif (token := flags.fresh_token) is not None:
            session = _with_token(api, token, keep=use_token_as_session)
        elif email and password:
            session = _with_password(api, email, password)
        elif not flags.interactive and (kept := _kept(flags, api)) is not None:
            session = kept
            output.note("You are signed in already.")
        else:
            session = _ask(flags, api, email)
        with api.signed_in(session) as mine:
            user = mine.me()
    if flags.config.keep_session(address, session, in_keyring=flags.use_keyring):
        output.note("The session is kept in the keyring of this system.")
    output.out(f"> Welcome to Coder, {output.printable(user['username'])}! You're authenticated.")


def _first_user(
    flags: Globals,
    api: "Api",
    *,
    email: str | None,
    username: str | None,
    name: str | None,
    password: str | None,
    trial: bool,
) -> Secret:
    """Create the server's first user from options and answers, and sign in as that user."""
    missing = [
        option for option, value in (("username", username), ("email", email), ("password", password)) if not value
    ]
    if missing and not flags.interactive:
        raise errors.first_user_needs_input([f"--first-user-{option}" for option in missing])
    if missing:
        output.note("This server has no users yet. Let's create the first one, its owner.")
    from coder.access import names, passwords

    username = username or _asked("Username", names.username_problem, default=_system_user())
    email = email or _asked("Email", names.email_problem)
    password = password or _asked("Password", passwords.password_problem)
    api.create_first_user(email=email, username=username, name=name or "", password=password, trial=trial)
    return _with_password(api, email, password)


def _asked(what: str, problem: Callable[[str], str | None], **more: Any) -> str:
    """Ask until the answer is one that the server will take too."""
    while True:
        hidden = what == "Password"
        answer: str = output.ask_secret(what, confirm=True) if hidden else click.prompt(what, err=True, **more)
        told = problem(answer.strip() if not hidden else answer)
        if told is None:
            return answer if hidden else answer.strip()
        output.note(f"Error: {told}")


def _system_user() -> str:
    """Suggest the name people have on this machine."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "admin"


def _kept(flags: Globals, api: "Api") -> Secret | None:
    """Return the session of an earlier login at this server, if it still works."""
    if flags.url is None or normal_url(flags.url) != api.url:
        return None
    try:
        session = flags.session()
        with api.signed_in(session) as mine:
            mine.me()
    except NotSignedIn:
        return None
    return session


def _with_password(api: "Api", email: str, password: str) -> Secret:
    try:
        return api.sign_in(email, password)
    except ApiError as error:
        if error.code == 401:
            raise errors.wrong_password(error.message) from error
        raise


def _with_token(api: "Api", token: Secret, *, keep: bool) -> Secret:
    """Check a token, and unless it shall be kept, make a key of our own with it."""
    with api.signed_in(token) as mine:
        try:
            if not keep:
                return mine.new_key()
            mine.me()
        except NotSignedIn as error:
            raise errors.token_refused() from error
    return token


def _ask(flags: Globals, api: "Api", email: str | None) -> Secret:
    """Ask for a password or, when the e-mail is left empty, for a token; thrice at most."""
    if not flags.interactive:
        raise errors.login_needs_input(api.url)
    for _ in range(TRIES - 1):
        try:
            return _ask_once(api, email)
        except NotSignedIn as error:
            output.note(f"Error: {errors.line(CoderError(error.message, remedy=''))}. Once more:")
    return _ask_once(api, email)


def _ask_once(api: "Api", email: str | None) -> Secret:
    if not email:
        email = click.prompt("Email (empty to paste a session token)", default="", show_default=False, err=True).strip()
    if email:
        return _with_password(api, email, output.ask_secret("Password"))
    token = Secret(output.ask_secret("Paste your token here").strip())
    return _with_token(api, token, keep=True)
