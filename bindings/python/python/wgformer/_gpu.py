"""GPUs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import List, Optional, Union

from . import _wgformer


@dataclass(frozen=True)
class Adapter:
    """A GPU of this machine, or a driver that computes on the CPU."""

    index: int
    name: str
    backend: str
    """vulkan, metal, dx12 or gl."""
    kind: str
    """discrete, integrated, virtual, cpu or other."""
    driver: str


def adapters() -> List[Adapter]:
    """The adapters of this machine."""
    return [Adapter(*adapter) for adapter in _wgformer.adapters()]


class Gpu:
    """A GPU, opened. Models on one `Gpu` share its compiled kernels.

    Args:
        adapter: its index in `adapters()`, as text, its backend ("vulkan"), a part of its name, or both ("gl:llvmpipe"). None: what the
            environment variable WGFORMER_ADAPTER names, else the best.

    Raises:
        NoAdapterError: none fits.
    """

    def __init__(self, adapter: Union[str, int, None] = None) -> None:
        self._gpu = _wgformer.Gpu(None if adapter is None else str(adapter))

    @property
    def name(self) -> str:
        """The driver's name for it."""
        return self._gpu.name

    @property
    def backend(self) -> str:
        """vulkan, metal, dx12 or gl."""
        return self._gpu.backend

    def __repr__(self) -> str:
        return f"<wgformer.Gpu {self.name} ({self.backend})>"


_lock = threading.Lock()
_default: Optional[Gpu] = None


def opened(gpu: Union[Gpu, str, int, None]) -> Gpu:
    """A GPU as given; the default one is opened once."""
    global _default
    if isinstance(gpu, Gpu):
        return gpu
    if gpu is not None:
        return Gpu(gpu)
    with _lock:
        if _default is None:
            _default = Gpu()
        return _default
