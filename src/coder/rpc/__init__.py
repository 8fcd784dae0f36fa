"""The shell that carries calls over a `Channel`: yamux, dRPC and protobuf joined to asyncio.

It moves messages and ends streams properly; what a call means is its caller's business.
"""
