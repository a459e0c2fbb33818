"""Libraries of the `demo` extra, imported when they are needed."""

import importlib
from types import ModuleType

from lora_whisper.errors import MissingExtra


def demo_module(name: str) -> ModuleType:
    """The module of that name.

    Raises:
        MissingExtra: the `demo` extra is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        library = name.split(".", maxsplit=1)[0]
        raise MissingExtra(
            f"synthetic speech needs {library}, which is not installed; pip install lora-whisper[demo]"
        ) from None
