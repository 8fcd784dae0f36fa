"""The server: REST, the call sockets of clients and agents, and how all parts are put together.

A shell: what may be done is decided in `access` and `tailnet`, what is kept is kept by `db`.
"""
