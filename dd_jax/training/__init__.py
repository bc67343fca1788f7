"""Training: the loop, training in stages, single steps run again."""
