"""What training and prediction cost, measured or read from the compiler."""
