//! Data-plane formats: keys, STUN, disco, DERP frames, IP and TSMP. Bytes to types and back, nothing else.
