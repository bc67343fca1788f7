"""Synthetic drives in the KITTI raw layout: exact depth, poses and masks, with moving traffic."""

from dd_jax.data.synthetic.make import PRESETS, make

__all__ = ["PRESETS", "make"]
