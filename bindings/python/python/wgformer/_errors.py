"""Exceptions by kind."""


class WgformerError(Exception):
    """Any error of wgformer; its text says what, where and what to do."""


class InputError(WgformerError, ValueError):
    """An argument is not valid."""


class FileError(WgformerError, OSError):
    """A file could not be read or written."""


class FormatError(WgformerError, ValueError):
    """The content of a file is not valid, or there is no model at the path."""


class NoAdapterError(WgformerError, RuntimeError):
    """No adapter fits the request; the text lists those that are there."""


class UnsupportedError(WgformerError, RuntimeError):
    """The adapter lacks a feature or a limit."""


class OutOfMemoryError(WgformerError, MemoryError):
    """The GPU has not enough memory; the text says which types of weights would take less."""


class DeviceLostError(WgformerError, RuntimeError):
    """The GPU went away: make a new `Gpu` and load the models again."""


class NonFiniteError(WgformerError, ArithmeticError):
    """A number is NaN or infinite: weights are damaged, or training diverged."""


class InternalError(WgformerError, RuntimeError):
    """A defect of the engine."""
