"""What the server says it is."""

from coder import __version__

BUILD_VERSION = f"v2.26.0+py{__version__}"
"""Sent with every answer. Clients parse it as a semantic version and switch features by it: the number before the plus
is the release whose API we serve, the rest is our own version."""

API_MAJOR, API_MINOR = 2, 13
"""Highest version of the call API (agents and tailnet share one number). Agents newer than this are refused."""

PROVISIONER_API_VERSION = "1.9"
"""Constant of the protocol; nothing provisions here."""
