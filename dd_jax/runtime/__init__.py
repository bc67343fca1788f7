"""Devices, processes, files and the command line: what jobs need apart from models."""
