//! Which way a packet goes: endpoints, disco, path choice, home relay. Sans-IO.
