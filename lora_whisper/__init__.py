"""LoRA-Whisper: one frozen Whisper, one small LoRA adapter per language.

Every public name is imported when it is first used, so that `import lora_whisper` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lora_whisper.version import __version__

if TYPE_CHECKING:
    from lora_whisper.audio import load_audio
    from lora_whisper.data.manifest import Utterance, read_manifest, write_manifest
    from lora_whisper.decoding.search import DecodingOptions
    from lora_whisper.decoding.transcribe import LoraWhisper
    from lora_whisper.decoding.transcript import Segment, Transcript, Word
    from lora_whisper.errors import LoraWhisperError
    from lora_whisper.evaluation.evaluate import evaluate
    from lora_whisper.languages import Language
    from lora_whisper.lora.bank import Adapter, AdapterBank, AdapterInfo
    from lora_whisper.lora.parts import LoRAConfig
    from lora_whisper.model.checkpoint import Backbone, load_backbone, save_backbone
    from lora_whisper.model.language_id import detect_language
    from lora_whisper.model.routing import Routing
    from lora_whisper.training.trainer import TrainConfig, train

__all__ = [
    "Adapter",
    "AdapterBank",
    "AdapterInfo",
    "Backbone",
    "DecodingOptions",
    "Language",
    "LoRAConfig",
    "LoraWhisper",
    "LoraWhisperError",
    "Routing",
    "Segment",
    "TrainConfig",
    "Transcript",
    "Utterance",
    "Word",
    "__version__",
    "detect_language",
    "evaluate",
    "load_audio",
    "load_backbone",
    "read_manifest",
    "save_backbone",
    "train",
    "write_manifest",
]

_HOMES = {
    "audio": ("load_audio",),
    "data.manifest": ("Utterance", "read_manifest", "write_manifest"),
    "decoding.search": ("DecodingOptions",),
    "decoding.transcribe": ("LoraWhisper",),
    "decoding.transcript": ("Segment", "Transcript", "Word"),
    "errors": ("LoraWhisperError",),
    "evaluation.evaluate": ("evaluate",),
    "languages": ("Language",),
    "lora.bank": ("Adapter", "AdapterBank", "AdapterInfo"),
    "lora.parts": ("LoRAConfig",),
    "model.checkpoint": ("Backbone", "load_backbone", "save_backbone"),
    "model.language_id": ("detect_language",),
    "model.routing": ("Routing",),
    "training.trainer": ("TrainConfig", "train"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """The public name, from the module where it lives."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
