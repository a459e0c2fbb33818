"""Libraries of the optional extras, imported when they are needed."""

import importlib
from types import ModuleType

from lora_whisper.errors import MissingExtra


def optional_module(name: str, extra: str) -> ModuleType:
    """The module of that name, which the extra of that name installs.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        library = name.split(".", maxsplit=1)[0]
        raise MissingExtra(
            f"synthetic speech needs {library}, which is not installed; pip install lora-whisper[{extra}]"
        ) from None


def demo_module(name: str) -> ModuleType:
    """A module of the `demo` extra.

    Raises:
        MissingExtra: it is not installed.
    """
    return optional_module(name, "demo")
