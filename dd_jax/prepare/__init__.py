"""What is done once to a data set before training: looked at, checked, given masks and prior depth by other networks.

Nothing of it is needed to train; other networks run in PyTorch, which only this package imports, when it is asked to.
"""
