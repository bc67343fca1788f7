"""What training minimises: one file a family, put together in :mod:`dd_jax.losses.total`."""

from dd_jax.losses.total import compute_losses

__all__ = ["compute_losses"]
