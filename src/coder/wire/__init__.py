"""Codecs of the control plane: yamux, dRPC, protobuf, the DERP map's JSON, and what routers speak.

Bytes in, values out, and back; no socket, no task, no clock. It knows what messages look like, never what they should
lead to. Everything above may import it.
"""
