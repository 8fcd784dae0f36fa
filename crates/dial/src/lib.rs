//! Shell: reaches a relay over TCP, TLS, HTTP upgrade or WebSocket.
