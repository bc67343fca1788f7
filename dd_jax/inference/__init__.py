"""Prediction with a trained model: the Python API, and the inputs and output files of prediction jobs."""
