"""The dashboard: pages for people, made from what the API answers.

A page asks the API as its user's browser would, in the same process: every rule, limit and entry of the audit log is
the API's own. Nothing here looks into the database.
"""
