"""Compiled programs are kept on disk, so that the same run starts at once the next time."""

import os
from pathlib import Path

import jax


def enable() -> Path | None:
    """Turns JAX's cache on; returns its folder, None where it is off or no folder can be written.

    The folder is ``JAX_COMPILATION_CACHE_DIR``, else ``dd_jax`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
    ``JAX_ENABLE_COMPILATION_CACHE=false`` turns it off. Each combination of config, devices and versions has its own entry;
    the folder may be deleted at any time.
    """
    if not jax.config.jax_enable_compilation_cache:
        return None
    if jax.config.jax_compilation_cache_dir is None:
        try:
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dd_jax"
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError):  # no home, or one that cannot be written: a run without a cache is a run all the same
            return None
        if not os.access(folder, os.W_OK | os.X_OK):
            return None
        jax.config.update("jax_compilation_cache_dir", str(folder))
    return Path(jax.config.jax_compilation_cache_dir)
