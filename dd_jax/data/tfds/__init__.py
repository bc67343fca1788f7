"""Stores of TensorFlow Datasets, read without TensorFlow."""
