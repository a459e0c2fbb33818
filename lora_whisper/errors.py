"""Every error that LoRA-Whisper raises on purpose.

    LoraWhisperError            exit code 1: the work could not be done
    ├── AudioError              a file or signal that cannot be used as speech
    ├── ManifestError           a manifest that cannot be read, or lines of it that are wrong
    ├── CheckpointError         a backbone folder that is missing, incomplete or damaged
    ├── AdapterError            an adapter that is missing, damaged or does not fit
    │   ├── UnknownLanguage     a language that nobody here has (no such tag, no such adapter)
    │   ├── TooFar              no adapter is similar enough to start from or to borrow
    │   └── BackboneMismatch    an adapter made for other weights
    ├── TrainingError           a training run that cannot start, resume or go on
    ├── OutputError             a result that cannot be written where it was asked for
    ├── MissingExtra            an optional dependency that is not installed
    └── UsageError              exit code 2: the command or call itself is wrong

A message is one line that says what is wrong, where, and what to do about it.
"""


class LoraWhisperError(Exception):
    """Base class: catch it to catch everything that this package raises on purpose."""

    exit_code = 1


class AudioError(LoraWhisperError):
    """The audio is missing, unreadable, empty or not a usable signal."""


class ManifestError(LoraWhisperError):
    """The manifest cannot be read, or some of its lines are wrong."""


class CheckpointError(LoraWhisperError):
    """The backbone folder is missing, incomplete or damaged."""


class AdapterError(LoraWhisperError):
    """The adapter is missing, damaged or does not fit the model."""


class UnknownLanguage(AdapterError):
    """No such language tag, or no adapter for it."""


class TooFar(AdapterError):
    """No adapter is similar enough to start from or to borrow."""


class BackboneMismatch(AdapterError):
    """The adapter was trained on other backbone weights than those loaded."""


class TrainingError(LoraWhisperError):
    """The training run cannot start, resume or go on."""


class OutputError(LoraWhisperError):
    """The output cannot be written where it was asked for."""


class MissingExtra(LoraWhisperError):
    """An optional dependency is not installed; the message names the extra."""


class UsageError(LoraWhisperError):
    """The call contradicts itself or lacks something: wrong use, not a failed job."""

    exit_code = 2
