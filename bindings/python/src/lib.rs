//! wgformer for Python: the part of the package `wgformer` that is not in Python. Arrays and options come checked from there.

mod errors;
mod model;
mod stream;

use errors::{raised, work};
use pyo3::prelude::*;

/// A GPU that models lie on.
#[pyclass(frozen, module = "wgformer._wgformer")]
struct Gpu {
    gpu: wgformer::Gpu,
}

#[pymethods]
impl Gpu {
    #[new]
    fn new(py: Python<'_>, adapter: Option<&str>) -> PyResult<Self> {
        Ok(Self { gpu: work(py, || wgformer::Gpu::choose(adapter))? })
    }

    #[getter]
    fn name(&self) -> &str {
        &self.gpu.info().name
    }

    #[getter]
    fn backend(&self) -> &str {
        self.gpu.info().backend.to_str()
    }
}

/// Index, name, backend, kind and driver of each adapter.
#[pyfunction]
fn adapters(py: Python<'_>) -> PyResult<Vec<(usize, String, String, String, String)>> {
    let found = work(py, || Ok(wgformer::Gpu::summaries()))?;
    let one = |a: wgformer::gpu::AdapterSummary| {
        let driver = format!("{} {}", a.driver, a.driver_info).trim().to_owned();
        (a.index, a.name, a.backend, a.device_type, driver)
    };
    Ok(found.into_iter().map(one).collect())
}

#[pymodule]
fn _wgformer(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(adapters, module)?)?;
    module.add_class::<Gpu>()?;
    module.add_class::<model::Model>()?;
    module.add_class::<stream::Stream>()
}
