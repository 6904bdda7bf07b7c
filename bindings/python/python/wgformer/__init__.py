"""Transformers on any vendor's GPU: generate, embed and train, with numpy arrays in and out.

    >>> import wgformer
    >>> model = wgformer.load("model")
    >>> print(model.generate("It is a truth", max_tokens=20).text)

Arrays may be numpy's, lists, or tensors of other libraries on the CPU (by DLPack); results are numpy's, which others take by
`from_dlpack` without a copy. While the GPU works, other threads of Python go on; calls with one model wait for one another.
"""

from ._errors import (
    DeviceLostError,
    FileError,
    FormatError,
    InputError,
    InternalError,
    NoAdapterError,
    NonFiniteError,
    OutOfMemoryError,
    UnsupportedError,
    WgformerError,
)
from ._gpu import Adapter, Gpu, adapters
from ._model import Answer, Model, Token, create, load
from ._train import Step, Trainer
from ._wgformer import __version__

__all__ = [
    "Adapter",
    "Answer",
    "DeviceLostError",
    "FileError",
    "FormatError",
    "Gpu",
    "InputError",
    "InternalError",
    "Model",
    "NoAdapterError",
    "NonFiniteError",
    "OutOfMemoryError",
    "Step",
    "Token",
    "Trainer",
    "UnsupportedError",
    "WgformerError",
    "__version__",
    "adapters",
    "create",
    "load",
]
