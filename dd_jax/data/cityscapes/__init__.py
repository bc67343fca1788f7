"""Cityscapes: sequences and preprocessed triplets, cameras, published splits."""
