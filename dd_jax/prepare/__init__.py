"""Preparation of a data set before training: checks, masks and prior depth from other networks, other storage formats.

Optional for training. The other networks run in PyTorch, which is imported inside the functions that need it.
"""
