"""What the real clients and agents ask, in their order, asked of this server."""
