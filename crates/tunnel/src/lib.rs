//! WireGuard sessions of one node, sans-IO.
