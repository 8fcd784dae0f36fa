//! The measuring protocol of port 3, both roles. Sans-IO.
