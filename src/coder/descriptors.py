"""How many files and sockets this process may have open."""

import resource

_inherited: int | None = None


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return what it is now.

    The usual 1024 are few where each connection is one; a system that allows no change keeps its limit.
    """
    global _inherited  # noqa: PLW0603 - it is the process's limit, of which there is one
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # some systems say unlimited and mean something else
        return soft
    _inherited = soft if _inherited is None else _inherited
    return hard


def inherited() -> int | None:
    """Return the soft limit this process was started with, for those it starts; None while it is still in force.

    Programs that expect the usual one, and take long or fail with descriptors beyond it, are not given ours.
    """
    return _inherited
