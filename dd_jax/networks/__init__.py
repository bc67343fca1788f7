"""Modules with parameters: encoders, decoders, pose and flow networks."""
