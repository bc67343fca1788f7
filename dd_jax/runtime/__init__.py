"""Devices, processes, files and the command line: what every job needs and no model."""
