"""Time and memory of training and prediction, measured or read from the compiler."""
