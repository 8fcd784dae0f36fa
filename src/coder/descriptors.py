"""How many files and sockets this process may have open."""

import resource


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return what it is now.

    The usual 1024 are few where each connection is one; a system that allows no change keeps its limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # some systems say unlimited and mean something else
        return soft
    return hard
