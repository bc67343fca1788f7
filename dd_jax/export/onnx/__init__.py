"""Converts a traced JAX program to ONNX: the operations of these models, any batch size."""
