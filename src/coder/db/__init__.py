"""The store: what outlives the process. SQLite through SQLAlchemy; one query module per noun.

Rows leave this room as the model classes, detached and complete: nothing loads lazily.
"""
