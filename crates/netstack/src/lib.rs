//! Userspace TCP, UDP and ICMP over IPv6. Sans-IO.
