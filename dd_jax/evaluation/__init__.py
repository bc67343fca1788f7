"""Depth evaluation on the host (NumPy): metrics, crops, baselines, predictions of other programs, result files."""
