//! Tests only: a simulated network under a virtual clock.
