from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_whisper import toy_tokenizer

from lora_whisper.data.batching import RowEncoder, collate
from lora_whisper.data.synthetic import SyntheticSpeech
from lora_whisper.model.checkpoint import load_backbone
from lora_whisper.training.pretraining import (
    CTC_STRIDE,
    CTCHead,
    Pretraining,
    joined_utterance,
    pretrain,
    synthetic_rows,
)
from lora_whisper.training.trainer import TrainConfig

RECIPE = Pretraining(
    ("pl", "it"),
    utterances=4,
    dev_utterances=2,
    n_text_tokens=300,
    n_state=64,
    n_audio_layer=1,
    n_text_layer=1,
)


def test_rows_are_the_same_at_every_call() -> None:
    encoder = RowEncoder(toy_tokenizer(), 8, "dynamic", learn_prompt=True)
    first, second = (synthetic_rows(RECIPE, "train", 3, encoder) for _ in range(2))
    assert len(first) == 6
    assert all(torch.equal(a.mel, b.mel) and a.tokens == b.tokens for a, b in zip(first, second, strict=True))


def test_some_rows_are_several_utterances_with_pauses() -> None:
    speech = SyntheticSpeech(["pl"], "train", 0)
    single, _, _ = speech.utterance("pl", 0)
    alone, text = joined_utterance(speech, "pl", 0, replace(RECIPE, joined=0.0))
    assert np.array_equal(alone, single)
    longer, more = joined_utterance(speech, "pl", 0, replace(RECIPE, joined=1.0))
    assert more.startswith(text + " ") and len(longer) > len(single)
    assert np.array_equal(longer[: len(single)], single)
    assert all(len(joined_utterance(speech, "pl", i, RECIPE)[0]) <= 30 * 16_000 for i in range(20))


def test_the_ctc_loss_sees_text_tokens_and_real_positions_only() -> None:
    tokenizer = toy_tokenizer()
    encoder = RowEncoder(tokenizer, 8, "dynamic", learn_prompt=True)
    rows = [encoder.row(np.full(n, 0.1, np.float32), "ala ma kota", "pl") for n in (16_000, 24_000)]
    batch = collate(rows)
    head = CTCHead(16, tokenizer.eot, weight=0.5, seed=0)
    audio = torch.randn(2, batch.mel.shape[2] // 2, 16, generator=torch.Generator().manual_seed(0))
    together = head(audio, batch).detach()
    apart = []
    for b, row in enumerate(rows):
        alone = collate([row])
        apart.append(head(audio[b : b + 1, : alone.mel.shape[2] // 2], alone).detach())
    assert float(together) == pytest.approx(float(sum(apart)) / 2, rel=1e-5)

    text = torch.tensor(tokenizer.encode(" ala ma kota"))
    scores = head.projection(audio[:1, ::CTC_STRIDE]).log_softmax(-1).transpose(0, 1)
    n_positions = -(-(rows[0].mel.shape[1] // 2) // CTC_STRIDE)
    expected = torch.nn.functional.ctc_loss(
        scores, text[None], torch.tensor([n_positions]), torch.tensor([len(text)]), blank=tokenizer.eot
    )
    assert float(apart[0]) == pytest.approx(0.5 * float(expected.detach()), rel=1e-5)


def test_pretraining_writes_a_backbone_that_loads(tmp_path: Path) -> None:
    config = TrainConfig(epochs=1, learning_rate=1e-3, batch_s=20, precision="fp32")
    made = pretrain(RECIPE, config, tmp_path)
    loaded = load_backbone(tmp_path / "backbone")
    assert loaded.tokenizer.languages == ("pl", "it")
    assert loaded.audio_context == "dynamic"
    assert loaded.fingerprint == made.fingerprint
    assert not any(parameter.requires_grad for parameter in made.model.parameters())
