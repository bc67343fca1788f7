"""Self-supervised depth from driving video in which things move."""

__version__ = "0.1.0"
