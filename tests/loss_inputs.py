"""Inputs of the loss terms from given quantities instead of a forward pass."""

from dd_jax.config import Config
from dd_jax.method.objective import LossInputs


def loss_inputs(config: Config, axis: str | None = None, **known: object) -> LossInputs:
    """``known`` are attributes of LossInputs; whatever is derived from them is computed as in training."""
    inputs = LossInputs.__new__(LossInputs)
    inputs.__dict__.update(config=config, axis=axis, **known)
    return inputs
