//! The Python extension module `mrtc_engine._engine`: the engine of `mrtc-net` as Python sees it.
//!
//! It decides nothing. Docstrings are in `_engine.pyi`, which a test compares with what is here.

// Names and docstrings of the Python side stand in the stub.
#![allow(missing_docs)]

mod config;
mod engine;
mod event;
mod log;
mod types;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

create_exception!(mrtc_engine._engine, EngineBusy, PyException, "The command queue is full; nothing was done.");
create_exception!(mrtc_engine._engine, EngineClosed, PyException, "The engine was shut down, or the process forked.");

#[pymodule]
fn _engine(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("EngineBusy", m.py().get_type::<EngineBusy>())?;
    m.add("EngineClosed", m.py().get_type::<EngineClosed>())?;
    m.add_class::<config::EngineConfig>()?;
    m.add_class::<types::Subscription>()?;
    m.add_class::<types::SourceFrame>()?;
    m.add_class::<types::SinkFrame>()?;
    m.add_class::<types::Line>()?;
    m.add_class::<event::Reply>()?;
    m.add_class::<event::Event>()?;
    m.add_class::<engine::Engine>()?;
    Ok(())
}
