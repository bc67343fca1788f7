"""Compiled programs are cached on disk, so that the same run starts at once the next time."""

import os
from pathlib import Path

import jax


def enable() -> Path | None:
    """Enables JAX's compilation cache; returns its folder, None if it is disabled or no folder is writable.

    The folder is ``JAX_COMPILATION_CACHE_DIR``, else ``dd_jax`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
    ``JAX_ENABLE_COMPILATION_CACHE=false`` disables it. Each combination of config, devices and versions has its own entry;
    the folder may be deleted at any time.
    """
    if not jax.config.jax_enable_compilation_cache:
        return None
    if jax.config.jax_compilation_cache_dir is None:
        try:
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dd_jax"
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError):  # no writable home: the run works without a cache
            return None
        if not os.access(folder, os.W_OK | os.X_OK):
            return None
        jax.config.update("jax_compilation_cache_dir", str(folder))
    return Path(jax.config.jax_compilation_cache_dir)
