"""A trained system in use: from Python, and from any source of frames to files."""
