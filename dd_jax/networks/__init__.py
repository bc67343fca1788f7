"""What has parameters: encoders, decoders, and the correspondence with published PyTorch checkpoints."""
