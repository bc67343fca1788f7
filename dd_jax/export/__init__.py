"""A trained system as files that run without this library: StableHLO and ONNX."""
