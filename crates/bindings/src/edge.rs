//! The edge's handle.

use pyo3::prelude::*;

/// The HTTP front.
#[pyclass(frozen)]
pub struct Edge {}
