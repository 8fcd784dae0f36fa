"""The API over the real application."""
