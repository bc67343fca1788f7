"""What numbers depend on besides config and data: versions of packages, commit of the library, threads."""

import contextlib
import functools
import importlib.metadata
import pathlib
import platform
import subprocess

import jax

import dd_jax
from dd_jax.runtime import cpu_flags


@functools.cache
def versions() -> dict[str, str]:
    """Versions of all packages that numbers depend on, the git commit of the library and, on a CPU, the number of threads."""
    found = {"python": platform.python_version(), "dd_jax": dd_jax.__version__}
    for package in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy"):
        found[package] = importlib.metadata.version(package)
    found["git"] = commit(pathlib.Path(__file__).resolve().parents[2])
    return found | ({"cpu_threads": str(cpu_flags.threads())} if jax.default_backend() == "cpu" else {})


def commit(checkout: pathlib.Path) -> str:
    """The commit of a checkout, with a + if files that git knows were changed since; "unknown" if it is none."""

    def git(*arguments: str) -> str | None:
        with contextlib.suppress(OSError):  # no git here
            done = subprocess.run(["git", "-C", checkout, *arguments], capture_output=True, text=True, check=False)
            return done.stdout.strip() if done.returncode == 0 else None
        return None

    head = git("rev-parse", "HEAD") if (checkout / ".git").exists() else None
    return "unknown" if head is None else head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
