"""The dashboard: pages, their templates, and the assets they load."""
