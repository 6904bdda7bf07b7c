"""Training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NamedTuple, Optional, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import batch
from ._errors import InputError

if TYPE_CHECKING:
    from ._model import Model


class Step(NamedTuple):
    """What a step gives."""

    step: int
    """Its number, from 1."""
    loss: float
    """The mean cross-entropy before the step."""
    norm: float
    """The norm of the gradients before they were clipped."""
    skipped: bool
    """Whether gradients were not finite, so that the weights are as before."""


class Trainer:
    """AdamW for a model, forward, backward, clipping and update in one recording on the GPU.

    Args:
        model: a decoder with weights in f32, f16 or bf16. It has one trainer in its life; `Model.train_step` makes one with the defaults.
        learning_rate: a number, or a function of the step's number, from 1.
        betas, eps, weight_decay: AdamW's constants (arXiv 1711.05101). Vectors, such as gains and biases, do not decay.
        max_norm: gradients are clipped to this norm; 0: they are not.
        accumulation: batches are cut into so many parts of whole rows, one after another, with the gradients of the whole: less memory.
        recompute: blocks are computed again in the backward pass: less memory, about a third more time.
        seed: of dropout.

    Raises:
        InputError: an option is out of range, or the model trains already.
    """

    def __init__(
        self,
        model: "Model",
        *,
        learning_rate: Union[float, Callable[[int], float]] = 1e-3,
        betas: Tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        max_norm: float = 1.0,
        accumulation: int = 1,
        recompute: bool = False,
        seed: int = 0,
    ) -> None:
        if not 1 <= accumulation < 1 << 32:
            raise InputError(f"accumulation: it is {accumulation}, but must be 1 or more")
        if not 0 <= seed < 1 << 64:
            raise InputError(f"seed: it is {seed}, but must be from 0 to 2^64 - 1")
        options = {
            "beta1": betas[0],
            "beta2": betas[1],
            "eps": eps,
            "weight_decay": weight_decay,
            "max_norm": max_norm,
            "accumulation": accumulation,
            "recompute": recompute,
            "seed": seed,
        }
        model._model.begin_training(options)
        self.model = model
        self.learning_rate = learning_rate
        self._steps = 0

    def step(
        self, ids: ArrayLike, labels: Optional[ArrayLike] = None, *, learning_rate: Optional[float] = None
    ) -> Step:
        """One step. Arguments as of `Model.train_step`; a learning rate given here is of this step alone."""
        rows, _ = batch("ids", ids, np.uint32)
        wanted = None if labels is None else batch("labels", labels, np.int32, rows)[0]
        if learning_rate is None:
            rate = self.learning_rate
            learning_rate = rate(self._steps + 1) if callable(rate) else rate
        done = Step(*self.model._model.train_step(rows, wanted, float(learning_rate)))
        self._steps = done.step
        return done
