"""Who may import whom: the floors of pyproject.toml hold, and scoring runs without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_TORCH = [
    "lora_whisper.errors",
    "lora_whisper.files",
    "lora_whisper.languages",
    "lora_whisper.data.manifest",
    "lora_whisper.decoding.transcript",
    "lora_whisper.evaluation.normalizers",
    "lora_whisper.evaluation.metrics",
    "lora_whisper.evaluation.results",
    "lora_whisper.evaluation.report",
    "lora_whisper.cli",
]


def lint_imports(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_floors_hold():
    done = lint_imports("--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_a_broken_floor_is_noticed(tmp_path):
    """The checker itself: a contract that this package breaks must fail."""
    config = tmp_path / "importlinter.ini"
    config.write_text(
        "[importlinter]\nroot_package = lora_whisper\n"
        "[importlinter:contract:1]\nname = upside down\ntype = layers\n"
        "layers =\n    lora_whisper.model\n    lora_whisper.lora\n"
    )
    assert lint_imports("--no-cache", "--config", str(config)).returncode == 1


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_module_runs_without_torch(module):
    probe = f"import sys; sys.modules['torch'] = None; import {module}"  # None: importing it fails
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
