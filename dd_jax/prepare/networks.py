"""Pretrained networks by name or folder through Hugging Face transformers (PyTorch)."""

from typing import Any

from dd_jax.config import ConfigError


def libraries() -> tuple[Any, Any]:
    """The modules ``torch`` and ``transformers``.

    Raises:
      ConfigError: they are not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install -e '.[prepare]'") from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return torch, transformers


def load(part: Any, model: str, what: str) -> Any:
    """``part.from_pretrained(model)`` for a class ``part`` of transformers.

    Raises:
      ConfigError: the model exists neither locally nor on the hub, or is not a ``what``.
    """
    try:
        return part.from_pretrained(model)
    except OSError as error:
        raise ConfigError(
            f"--model={model} is neither a folder with a model nor available from the Hugging Face hub: run "
            f"`hf download {model} --local-dir DIR` on a connected machine and give --model=DIR here"
        ) from error
    except (ValueError, KeyError, AttributeError, ImportError) as error:
        raise ConfigError(f"--model={model} is not a {what}: {str(error).strip().splitlines()[0]}") from error


def device_of(torch: Any, device: str) -> Any:
    """The device of this name; "" = a GPU if available.

    Raises:
      ConfigError: PyTorch cannot use it.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device={device} is not usable: {str(error).strip().splitlines()[0]}") from error
    return chosen
