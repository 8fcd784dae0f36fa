"""Decisions about the network: who learns of whom, who may tunnel where, which relays exist, which peers to configure.

Sans-IO: `now` is an argument, answers are values. It knows nothing of sockets, databases or HTTP.
"""
