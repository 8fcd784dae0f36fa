//! Shell: the HTTP front, relay sessions, STUN answers.
