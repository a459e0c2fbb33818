"""transformers' Whisper with random weights in real geometries: the reference of promise 1."""

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from lora_whisper.model.checkpoint import our_name
from lora_whisper.model.whisper import ModelDimensions, Whisper

MULTILINGUAL_VOCABULARY = 51_865
V3_VOCABULARY = 51_866  # large-v3 and turbo know Cantonese


def reference(
    width: int, heads: int, layers: tuple[int, int], **others: int
) -> WhisperForConditionalGeneration:
    """A model with the given width, heads and (encoder, decoder) layers, and logits of about one."""
    config = WhisperConfig(
        d_model=width,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        **{"vocab_size": MULTILINGUAL_VOCABULARY, "num_mel_bins": 80, "pad_token_id": 0} | others,
    )
    with torch.device("meta"):  # its own initialisation takes longer than the test
        model = WhisperForConditionalGeneration(config)
    model = model.to_empty(device="cpu").eval()
    model.tie_weights()
    randomise(model)
    return model


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Fill every parameter so that each has a visible part in the logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        parameter.requires_grad_(False)
        spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
        parameter.normal_(std=spread, generator=generator)
        if parameter.dim() == 1 and name.endswith("norm.weight"):
            parameter.add_(1)


def dimensions(config: WhisperConfig) -> ModelDimensions:
    """Our dimensions of transformers' configuration."""
    return ModelDimensions(
        n_mels=config.num_mel_bins,
        n_audio_ctx=config.max_source_positions,
        n_audio_state=config.d_model,
        n_audio_head=config.encoder_attention_heads,
        n_audio_layer=config.encoder_layers,
        n_vocab=config.vocab_size,
        n_text_ctx=config.max_target_positions,
        n_text_state=config.d_model,
        n_text_head=config.decoder_attention_heads,
        n_text_layer=config.decoder_layers,
    )


def ours(model: WhisperForConditionalGeneration) -> Whisper:
    """Our model over the very same tensors."""
    with torch.device("meta"):
        whisper = Whisper(dimensions(model.config))
    state = {our_name(name): p for name, p in model.named_parameters() if name != "proj_out.weight"}
    whisper.load_state_dict(state, assign=True)
    return whisper.requires_grad_(False).eval()
