"""Depth of a batch in evaluation mode; pure functions."""

from jaxtyping import Array, Float

from dd_jax.config import Config
from dd_jax.method.augment import augment
from dd_jax.method.forward import forward
from dd_jax.method.view_synthesis import full_size_depth, predict_offsets
from dd_jax.networks import model as networks
from dd_jax.types import Batch, Predictions, TrainState


def predict_step(state: TrainState, batch: Batch, config: Config) -> Predictions:
    """Inverse depth of the target frame; the previous frame may be missing, the next is used with ``future_frame`` only.

    The whole system runs, DOMD included: what is evaluated is what was trained.
    """
    return predict_augmented(state, augment(batch, config.augment, train=False), config)


def predict_augmented(state: TrainState, batch: Batch, config: Config) -> Predictions:
    """:func:`predict_step` of a batch of float images, as ``augment`` returns it."""
    model = networks.merge(state.params, state.batch_stats, config, None, train=False)
    outputs = forward(model, batch, state.depth_range, config, train=False)
    student, size = outputs.student, batch.images.shape[2:4]

    def inverse_depth(disp: Float[Array, "b hs ws"]) -> Float[Array, "b h w"]:
        return 1.0 / full_size_depth(disp, size, config.model)

    domd = None if student is None else student.disentangled
    return Predictions(
        teacher=inverse_depth(outputs.teacher_disps[0]),
        student=None if student is None else inverse_depth(student.disps[0]),
        disentangled=None if domd is None else domd.images[:, 0],
        holes=None if domd is None else domd.holes[:, 0],
        T_previous_from_target=outputs.T_source_from_target[:, 0],
    )


def offsets_step(state: TrainState, batch: Batch, config: Config) -> Float[Array, "b h w 3"]:
    """Motion of every point until the previous frame, from the flow network (``config.model.flow``), for the report's panels.

    In the target camera's frame, in network units. Depth does not depend on it.
    """
    model = networks.merge(state.params, state.batch_stats, config, None, train=False)
    return predict_offsets(model, augment(batch, config.augment, train=False).inputs, config.model)[:, 0]
