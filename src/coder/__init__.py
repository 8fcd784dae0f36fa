"""Remote workspaces over an encrypted network of your own."""

__version__ = "0.1.0"
