"""Which language is spoken: Whisper's own guess, by the bare backbone, among the languages allowed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_whisper.errors import UnknownLanguage, UsageError
from lora_whisper.languages import whisper_code
from lora_whisper.model.checkpoint import Backbone
from lora_whisper.model.tokenizer import Tokenizer


def detect_language(
    backbone: Backbone,
    mel: Tensor,
    n_positions: Tensor | None = None,
    allowed: Sequence[str] | None = None,
) -> list[dict[str, float]]:
    """Probabilities of each row's language, by Whisper code, most probable first; they sum to one.

    Adapters take no part: an adapter for one language hears that language everywhere.

    Args:
        backbone: the frozen Whisper.
        mel: log-mel frames (B, M, T), in the audio context of the backbone.
        n_positions: real encoder positions of each row, int64 (B,); None when all are.
        allowed: Whisper codes or language tags to choose from (`pt-BR` counts as `pt`); None for all.

    Raises:
        UnknownLanguage: this Whisper has no token for an allowed language.
        UsageError: no language is allowed.
    """
    codes = allowed_codes(backbone.tokenizer, allowed)  # a wrong tag must not cost an encoder pass
    with torch.inference_mode():
        audio = backbone.model.encode(mel, n_positions)
    return from_audio(backbone, audio, n_positions, codes)


@torch.inference_mode()
def from_audio(
    backbone: Backbone,
    audio: Tensor,
    n_positions: Tensor | None = None,
    allowed: Sequence[str] | None = None,
) -> list[dict[str, float]]:
    """As `detect_language`, from what the bare backbone's encoder made of the audio, (B, S, D)."""
    model, tokenizer = backbone.model, backbone.tokenizer
    codes = allowed_codes(tokenizer, allowed)
    start = torch.full((audio.shape[0], 1), tokenizer.sot, device=audio.device)
    hidden = model.decode(start, model.new_cache(audio, n_positions))
    scores = model.logits(hidden[:, 0])[:, [tokenizer.language_token(code) for code in codes]]
    rows = scores.float().softmax(-1).tolist()
    return [dict(sorted(zip(codes, row, strict=True), key=lambda pair: -pair[1])) for row in rows]


def allowed_codes(tokenizer: Tokenizer, allowed: Sequence[str] | None) -> list[str]:
    """Whisper codes of the allowed languages, each once; all of them for None.

    Raises:
        UnknownLanguage: this Whisper has no token for an allowed language.
        UsageError: no language is allowed.
    """
    if allowed is None:
        return list(tokenizer.languages)
    if not allowed:
        raise UsageError("no language to choose from; name at least one, or allow all")
    return list(dict.fromkeys(_code(tokenizer, tag) for tag in allowed))


def _code(tokenizer: Tokenizer, tag: str) -> str:
    code = tag if tag in tokenizer.languages else whisper_code(tag)
    if code is None or code not in tokenizer.languages:
        known = " ".join(tokenizer.languages)
        raise UnknownLanguage(f"{tag}: this Whisper cannot recognise the language; it knows {known}")
    return code
