//! Shell: the data thread, its sockets, timers and loop.
