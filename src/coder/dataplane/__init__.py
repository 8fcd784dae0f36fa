"""The only door to Rust: the engine with its nodes and streams, and the edge."""
