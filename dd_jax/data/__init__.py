"""Data sets and batches of samples; start with ``loader``."""
