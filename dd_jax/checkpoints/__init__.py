"""Trained systems on disk: a run's checkpoints, folders to give away, the hub, published PyTorch files, the bundled system."""
