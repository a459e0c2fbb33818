"""The names that `lora_whisper` promises, and what importing it costs."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import lora_whisper


@pytest.mark.parametrize("name", lora_whisper.__all__)
def test_every_public_name_resolves(name):
    assert getattr(lora_whisper, name) is not None
    assert name in dir(lora_whisper)


def test_public_names_are_sorted_and_unique():
    assert lora_whisper.__all__ == sorted(set(lora_whisper.__all__))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = lora_whisper.Nonsense


def test_version_is_that_of_the_distribution():
    assert lora_whisper.__version__ == version("lora-whisper")


def test_import_loads_nothing_but_itself():
    probe = (
        "import sys, importlib, typing; before = set(sys.modules);"
        "import lora_whisper; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['lora_whisper', 'lora_whisper.version']"
