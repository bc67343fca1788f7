"""Scores of predicted depth: metrics, baselines, predictions of other programs, result files. NumPy; runs on the host."""
