"""What the JSON files of a backbone's folder say, in Hugging Face's words, read and written."""

from typing import TYPE_CHECKING, Any, get_args

from lora_whisper import audio
from lora_whisper.audio import AudioContext
from lora_whisper.errors import CheckpointError
from lora_whisper.model.whisper import ModelDimensions

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from lora_whisper.model.checkpoint import Backbone

_DIMENSIONS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}
"""Our names of the dimensions to those in config.json."""


def dimensions(config: dict[str, Any], folder: "Path") -> ModelDimensions:
    """The sizes that config.json names.

    Raises:
        CheckpointError: it is no Whisper, or one that we cannot compute.
    """
    where = folder / "config.json"
    if config.get("model_type") != "whisper":
        raise CheckpointError(f"{where}: model_type is {config.get('model_type')!r}, not 'whisper'")
    for key in set(_DIMENSIONS.values()):
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise CheckpointError(f"{where}: {key} is {config.get(key)!r}; it must be a positive integer")
    dims = ModelDimensions(**{ours: config[theirs] for ours, theirs in _DIMENSIONS.items()})
    for heads in (dims.n_audio_head, dims.n_text_head):
        if dims.n_audio_state % heads:
            raise CheckpointError(f"{where}: d_model {dims.n_audio_state} is no multiple of {heads} heads")
    if config.get("scale_embedding") or config.get("activation_function", "gelu") != "gelu":
        raise CheckpointError(f"{where}: only Whisper's own gelu without scale_embedding is supported")
    return dims


def audio_context(config: dict[str, Any], folder: "Path") -> AudioContext:
    """What our section of config.json says; "full" in folders of others.

    Raises:
        CheckpointError: it says something else.
    """
    section = config.get("lora_whisper")
    context = section.get("audio_context", "full") if isinstance(section, dict) else "full"
    for known in get_args(AudioContext):
        if context == known:
            return known
    raise CheckpointError(f"{folder / 'config.json'}: audio_context is {context!r}, not 'full' or 'dynamic'")


def known_tokens(ids: list[int] | None, dims: ModelDimensions) -> tuple[int, ...]:
    """Those tokens that the model has: transformers fills in the ids of other vocabularies by default."""
    return tuple(token for token in ids or () if 0 <= token < dims.n_vocab)


def model_config(backbone: "Backbone", dtype: "torch.dtype") -> dict[str, Any]:
    """What stands in config.json."""
    dims, tokenizer = backbone.model.dims, backbone.tokenizer
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        **{theirs: getattr(dims, ours) for ours, theirs in _DIMENSIONS.items()},
        "encoder_ffn_dim": 4 * dims.n_audio_state,
        "decoder_ffn_dim": 4 * dims.n_text_state,
        "num_hidden_layers": dims.n_audio_layer,
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "is_encoder_decoder": True,
        "use_cache": True,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "init_std": 0.02,
        "bos_token_id": tokenizer.eot,
        "eos_token_id": tokenizer.eot,
        "pad_token_id": tokenizer.eot,
        "decoder_start_token_id": tokenizer.sot,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "lora_whisper": {"audio_context": backbone.audio_context},
    }


def generation_config(backbone: "Backbone") -> dict[str, Any]:
    """What stands in generation_config.json."""
    tokenizer = backbone.tokenizer
    config: dict[str, Any] = {
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": tokenizer.language_token(code) for code in tokenizer.languages},
        "task_to_id": {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate},
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "prev_sot_token_id": tokenizer.sot_prev,
        "max_initial_timestamp_index": 50,
        "max_length": backbone.model.dims.n_text_ctx,
        "return_timestamps": False,
        "bos_token_id": tokenizer.eot,
        "eos_token_id": tokenizer.eot,
        "pad_token_id": tokenizer.eot,
        "decoder_start_token_id": tokenizer.sot,
        "suppress_tokens": list(backbone.suppress_tokens),
        "begin_suppress_tokens": list(backbone.begin_suppress_tokens),
    }
    if backbone.alignment_heads:
        config["alignment_heads"] = [list(pair) for pair in backbone.alignment_heads]
    return config


def preprocessor_config(dims: ModelDimensions) -> dict[str, Any]:
    """What stands in preprocessor_config.json."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": dims.n_mels,
        "sampling_rate": audio.SAMPLE_RATE,
        "hop_length": audio.HOP_LENGTH,
        "n_fft": audio.N_FFT,
        "chunk_length": audio.CHUNK_LENGTH_S,
        "n_samples": audio.N_SAMPLES,
        "nb_max_frames": audio.N_FRAMES,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
