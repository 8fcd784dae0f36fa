"""Where the program begins and ends: quickly, and without a traceback whenever it is told to stop.

Little is imported before Ctrl-C is dealt with.
"""

import gc
import os
import signal
import sys

OBJECTS = 50_000
"""New objects after which garbage is looked for. Imports make many and leave none, and the usual 700 would have all of
them looked through again and again: a tenth of a short command's time."""


def main() -> None:
    """Run the program and end the process with its exit status."""
    gc.set_threshold(OBJECTS)
    _open_closed()
    heard = signal.getsignal(signal.SIGINT)
    if heard is signal.default_int_handler:  # Ctrl-C amid an import would print where it was
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from coder.cli import later

    later.postpone()
    from coder.cli.main import run

    signal.signal(signal.SIGINT, heard)
    end(run(sys.argv[1:]))


def _open_closed() -> None:
    """Lead standard streams that are closed to nowhere: prints would fail, and sockets could get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - for good


def end(status: int) -> None:
    """End the process, what was printed and what was registered for its end included.

    The interpreter would also take each module apart: 20 ms to free what the system frees at once.
    """
    import atexit
    import contextlib
    import threading

    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # who prints hears of it then; this is what is left
            if stream is not None:
                stream.flush()
    if any(not each.daemon for each in threading.enumerate() if each is not threading.main_thread()):
        sys.exit(status)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit._run_exitfuncs()  # noqa: SLF001 - what `sys.exit` comes to
    os._exit(status)


if __name__ == "__main__":
    main()
