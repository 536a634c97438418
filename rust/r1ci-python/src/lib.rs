//! `r1ci_engine._rust`: the Python face of the Rust crates.
//!
//! One file per crate behind it; each converts arguments, releases the interpreter lock around
//! the work, and maps errors. There is no logic here.

mod pack;
mod sandbox;

use pyo3::prelude::*;

/// Rust half of `r1ci_engine`: packing and the sandbox's supervisor.
#[pymodule]
fn _rust(module: &Bound<'_, PyModule>) -> PyResult<()> {
    pack::register(module)?;
    sandbox::register(module)?;
    Ok(())
}
