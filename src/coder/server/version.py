"""What the server says it is."""

API_MAJOR, API_MINOR = 2, 13
"""Highest version of the call API (agents and tailnet share one number). Agents newer than this are refused."""

PROVISIONER_API_VERSION = "1.9"
"""Constant of the protocol; nothing provisions here."""
