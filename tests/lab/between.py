"""An HTTP proxy that knows CONNECT, in a namespace of its own; writes its port.

    between.py HOST PORT [CERTIFICATE KEY]      everything goes to that server, whatever is asked for

With a certificate it ends TLS, as companies' proxies do to look into it; the server is then to speak none.
"""

import signal
import ssl
import sys

from e2e.outside import Between


def main() -> None:
    host, port, *files = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if files else None
    if context is not None:
        context.load_cert_chain(*files)
    with Between((host, int(port)), tls=context, proxy=True, host="0.0.0.0") as between:
        sys.stdout.write(f"{between.port}\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
