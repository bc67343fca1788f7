"""What a sample is, and where it comes from; ``loader`` is the entrance."""
