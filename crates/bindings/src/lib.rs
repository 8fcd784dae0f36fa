//! The extension module `coder.dataplane._native`: handles, conversions, errors. No logic, no loop, no policy.
//!
//! Two kinds of error leave: `ValueError` for an argument that makes no sense, `OSError` for what the system refuses.
//! `src/coder/dataplane/engine.py` is the only caller and gives them their names.

mod edge;
mod engine;
mod events;
mod facts;
mod ssh;

use pyo3::prelude::*;

/// The Rust data plane.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<engine::Engine>()?;
    module.add_class::<engine::Peer>()?;
    module.add_class::<events::SelfChanged>()?;
    module.add_class::<events::PathChanged>()?;
    module.add_class::<events::Incoming>()?;
    module.add_class::<events::RelayProblem>()?;
    module.add_class::<events::ForcedWebsocket>()?;
    module.add_class::<events::NetworkChanged>()?;
    module.add_class::<events::Report>()?;
    module.add_class::<events::Done>()?;
    module.add_class::<events::Progress>()?;
    module.add_class::<events::Failed>()?;
    module.add_class::<edge::Edge>()?;
    module.add_class::<ssh::SshServer>()?;
    module.add_class::<ssh::SshBegan>()?;
    module.add_class::<ssh::SshEnded>()?;
    module.add_function(wrap_pyfunction!(edge::self_signed, module)?)?;
    module.add_function(wrap_pyfunction!(edge::certificate_pin, module)?)?;
    module.add_function(wrap_pyfunction!(ssh::ssh_session, module)?)?;
    module.add_function(wrap_pyfunction!(ssh::join_stdio, module)?)?;
    Ok(())
}
