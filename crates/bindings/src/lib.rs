//! The Python extension module: handles, conversions, errors.
