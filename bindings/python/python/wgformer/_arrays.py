"""Arrays of tokens from what people have."""

from __future__ import annotations

from typing import Any, Optional, Tuple

import numpy as np

from ._errors import InputError


def as_array(what: str, values: Any) -> np.ndarray:
    """Numpy's array of lists, arrays, or tensors of other libraries on the CPU (by DLPack, without a copy)."""
    if not isinstance(values, np.ndarray) and hasattr(values, "__dlpack__"):
        try:
            return np.from_dlpack(values)
        except (BufferError, RuntimeError, TypeError) as error:
            raise InputError(f"{what}: it must be on the CPU, in a type that numpy has, without a gradient: {error}") from None
    refused = f"{what}: it is no array of numbers, with rows of one length"
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{refused}: {error}") from None
    if array.dtype == object:
        raise InputError(refused)
    return array


def integers(what: str, values: Any, dtype: type) -> np.ndarray:
    """Whole numbers of that type, in order in memory."""
    array = as_array(what, values)
    if array.size and array.dtype.kind not in "iub":
        raise InputError(f"{what}: its numbers are {array.dtype}, but whole numbers are needed")
    limits = np.iinfo(dtype)
    if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
        raise InputError(f"{what}: it has {array.min()} to {array.max()}, but {limits.min} to {limits.max} are allowed")
    return np.ascontiguousarray(array, dtype=dtype)


def batch(what: str, values: Any, dtype: type, like: Optional[np.ndarray] = None) -> Tuple[np.ndarray, bool]:
    """A batch (rows, length), and whether it was one row (length,)."""
    array = integers(what, values, dtype)
    single = array.ndim == 1
    if single:
        array = array[np.newaxis]
    if array.ndim != 2:
        raise InputError(f"{what}: its shape is {array.shape}, but (rows, length) or (length,) is needed")
    if like is not None and array.shape != like.shape:
        raise InputError(f"{what}: its shape is {array.shape}, but that of ids is {like.shape}")
    return array, single
