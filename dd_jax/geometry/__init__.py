"""How pixels move: cameras, rigid motions, sampling and warping. Pure functions, no parameters."""
