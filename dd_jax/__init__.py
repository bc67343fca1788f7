"""Self-supervised depth from driving video in which things move."""

import importlib.metadata
import os

__version__ = "0.1.0"


def _prefer_fast_cpu_convolutions() -> None:
    """Keeps XLA's CPU backend from a convolution library that makes a training step a fifth slower.

    Must happen before JAX looks at its flags; only for versions known to have this one, since others would refuse to start.
    """
    flag = "--xla_cpu_experimental_ynn_fusion_type"
    if importlib.metadata.version("jax").startswith(("0.10.", "0.12.")) and flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}=-individual_convolution".strip()


_prefer_fast_cpu_convolutions()
