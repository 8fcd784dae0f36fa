//! DERP sessions: client, server, router. Sans-IO.
