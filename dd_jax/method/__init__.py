"""What is computed from a batch: augmentation, poses, DOMD, cost volume, losses, the training step. Runs on the device."""
