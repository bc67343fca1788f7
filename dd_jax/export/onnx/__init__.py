"""From a traced JAX program to ONNX: what the networks, the splat and the cost volume need, with any batch size."""
