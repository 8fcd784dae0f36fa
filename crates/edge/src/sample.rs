//! What tests of several modules are made of.
#![allow(clippy::unwrap_used)]

use hyper::header::{HeaderMap, HeaderName};

/// Headers of these names and values, in this order.
pub(crate) fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}
