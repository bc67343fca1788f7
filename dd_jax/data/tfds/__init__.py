"""TensorFlow Datasets (TFDS) stores, read without TensorFlow."""
