//! `r1ci-pack` for `NumPy`: arrays are read in place, results are handed over without a copy.

use numpy::{Element, IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use r1ci_pack::{PackError, Packed, Ragged};

/// Keys of the result that are no argument's name; a column called so would overwrite them.
const RESERVED: [&str; 3] = ["positions", "cu_seqlens", "sequence"];

/// Adds the functions of this file to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(pack_bins, module)?)?;
    module.add_function(wrap_pyfunction!(pack_sequences, module)?)?;
    Ok(())
}

/// A bin for every sequence: best-fit decreasing under a hard cap of tokens.
#[pyfunction]
fn pack_bins<'py>(
    py: Python<'py>,
    lengths: &Bound<'py, PyAny>,
    cap: u32,
) -> PyResult<Bound<'py, PyArray1<i32>>> {
    let lengths = integers(lengths)?
        .into_iter()
        .enumerate()
        .map(|(index, length)| {
            u32::try_from(length).map_err(|_| {
                PyValueError::new_err(format!("sequence `{index}` has length `{length}`"))
            })
        })
        .collect::<PyResult<Vec<u32>>>()?;
    let bins = py
        .detach(|| r1ci_pack::pack_bins(&lengths, cap))
        .map_err(to_value_error)?;
    // Fewer than 2^31 sequences fit in memory beside their lengths, so the cast loses nothing.
    let bin_of: Vec<i32> = bins.bin_of.into_iter().map(|bin| bin as i32).collect();
    Ok(bin_of.into_pyarray(py))
}

/// The flat arrays of one micro-batch: the sequences `indices`, end to end.
#[pyfunction]
#[pyo3(signature = (tokens, loss_mask, offsets, indices, **columns))]
fn pack_sequences<'py>(
    py: Python<'py>,
    tokens: &Bound<'py, PyAny>,
    loss_mask: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    indices: &Bound<'py, PyAny>,
    columns: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    let loss_mask = vector::<bool>("loss_mask", loss_mask)?;
    let offsets = vector::<i64>("offsets", offsets)?;
    let indices = integers(indices)?;
    let mut names = Vec::new();
    let mut values = Vec::new();
    for (name, array) in columns.into_iter().flatten() {
        let name: String = name.extract()?;
        if RESERVED.contains(&name.as_str()) {
            return Err(PyValueError::new_err(format!(
                "column name `{name}` is taken"
            )));
        }
        values.push(vector::<f32>(&name, &array)?);
        names.push(name);
    }
    let columns = names
        .iter()
        .zip(&values)
        .map(|(name, column)| Ok((name.as_str(), column.as_slice()?)))
        .collect::<PyResult<Vec<_>>>()?;
    let (loss_mask, offsets) = (loss_mask.as_slice()?, offsets.as_slice()?);

    let gathered = if let Ok(tokens) = vector::<i64>("tokens", tokens) {
        gather(
            py,
            tokens.as_slice()?,
            loss_mask,
            offsets,
            &columns,
            &indices,
        )
    } else if let Ok(tokens) = vector::<i32>("tokens", tokens) {
        gather(
            py,
            tokens.as_slice()?,
            loss_mask,
            offsets,
            &columns,
            &indices,
        )
    } else {
        let message = "`tokens` must be a one-dimensional contiguous array of int32 or int64";
        return Err(PyTypeError::new_err(message));
    };
    to_dict(py, gathered.map_err(to_value_error)?, &names)
}

/// Assembles without the interpreter lock, for either type of token.
fn gather<Token: Copy + Into<i64> + Sync>(
    py: Python<'_>,
    tokens: &[Token],
    loss_mask: &[bool],
    offsets: &[i64],
    columns: &[(&str, &[f32])],
    indices: &[i64],
) -> Result<Packed, PackError> {
    let batch = Ragged {
        tokens,
        loss_mask,
        offsets,
        columns,
    };
    py.detach(|| r1ci_pack::assemble(&batch, indices))
}

/// A dictionary of arrays that own what Rust allocated.
fn to_dict<'py>(py: Python<'py>, packed: Packed, names: &[String]) -> PyResult<Bound<'py, PyDict>> {
    let arrays = PyDict::new(py);
    arrays.set_item("tokens", packed.tokens.into_pyarray(py))?;
    arrays.set_item("positions", packed.positions.into_pyarray(py))?;
    arrays.set_item("cu_seqlens", packed.cu_seqlens.into_pyarray(py))?;
    arrays.set_item("sequence", packed.sequence.into_pyarray(py))?;
    arrays.set_item("loss_mask", packed.loss_mask.into_pyarray(py))?;
    for (name, column) in names.iter().zip(packed.columns) {
        arrays.set_item(name, column.into_pyarray(py))?;
    }
    Ok(arrays)
}

/// A one-dimensional contiguous array of exactly this element type, read in place.
fn vector<'py, T: Element>(
    name: &str,
    array: &Bound<'py, PyAny>,
) -> PyResult<PyReadonlyArray1<'py, T>> {
    let array = array.extract::<PyReadonlyArray1<'py, T>>().map_err(|_| {
        let expected = T::get_dtype(array.py());
        PyTypeError::new_err(format!(
            "`{name}` must be a one-dimensional array of {expected}"
        ))
    })?;
    if array.as_slice().is_err() {
        return Err(PyTypeError::new_err(format!("`{name}` must be contiguous")));
    }
    Ok(array)
}

/// Whole numbers from an array or any sequence; fractions are refused, not rounded.
fn integers(values: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    if let Ok(array) = values.extract::<PyReadonlyArray1<'_, i64>>() {
        return Ok(array.as_array().to_vec());
    }
    if let Ok(array) = values.extract::<PyReadonlyArray1<'_, i32>>() {
        return Ok(array.as_array().iter().copied().map(i64::from).collect());
    }
    values.extract()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
fn to_value_error(error: PackError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
