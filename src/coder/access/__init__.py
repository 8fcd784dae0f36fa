"""Who may do what: names, passwords, tokens, sessions and login limits.

Pure: `now` is an argument, nothing here opens a socket, a file or a task. Hashing a password takes tens of
milliseconds of CPU on purpose; callers run it in a thread.
"""
