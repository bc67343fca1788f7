"""Preparation of a data set before training: checks, masks and prior depth from other networks, other storage formats.

Optional for training. The other networks run in PyTorch, which only this package imports, inside the functions that need it.
"""
