"""Remote workspaces over an encrypted network of your own."""

__version__ = "0.1.0"

BUILD_VERSION = f"v2.26.0+py{__version__}"
"""What servers and agents say they are. Clients parse it as a semantic version and switch features by it: the number
before the plus is the release whose API is served, the rest is our own version."""
