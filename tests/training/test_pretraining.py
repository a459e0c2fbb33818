import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_whisper import toy_tokenizer

from lora_whisper.data.batching import Row, RowEncoder, collate
from lora_whisper.errors import UsageError
from lora_whisper.model.checkpoint import load_backbone
from lora_whisper.training.curriculum import Curriculum, RowFactory
from lora_whisper.training.pretraining import (
    CTC_STRIDE,
    LOSSES_FILE,
    CTCHead,
    Pretraining,
    Stage,
    pretrain,
    token_weights,
)
from lora_whisper.training.trainer import TrainConfig

RECIPE = Pretraining(
    ("pl", "it"), dev_utterances=2, n_text_tokens=300, n_state=64, n_audio_layer=1, n_text_layer=1
)
STAGE = Stage(
    Curriculum({"pl": 4, "it": 4}), TrainConfig(epochs=1, learning_rate=1e-3, batch_s=20, precision="fp32")
)


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
    made = pretrain(RECIPE, [STAGE], tmp_path)
    loaded = load_backbone(tmp_path / "stage-1" / "backbone")
    assert loaded.tokenizer.languages == ("pl", "it")
    assert loaded.audio_context == "dynamic"
    assert loaded.fingerprint == made.fingerprint


def test_a_stage_starts_from_the_weights_of_the_one_before_and_finished_stages_are_not_repeated(
    tmp_path: Path,
) -> None:
    first = pretrain(RECIPE, [STAGE], tmp_path)
    nearly_frozen = replace(STAGE, config=replace(STAGE.config, learning_rate=1e-12, weight_decay=0.0))
    second = pretrain(RECIPE, [STAGE, nearly_frozen], tmp_path)
    assert not (tmp_path / "stage-1" / "backbone").samefile(tmp_path / "stage-2" / "backbone")
    for name, weight in second.model.state_dict().items():
        torch.testing.assert_close(
            weight, first.model.state_dict()[name], atol=2e-3, rtol=0
        )  # saved as float16
    heads = [load_file(tmp_path / f"stage-{number}" / "ctc.safetensors") for number in (1, 2)]
    for name, weight in heads[1].items():
        torch.testing.assert_close(weight, heads[0][name], atol=1e-6, rtol=0)


def test_a_stage_keeps_a_share_of_the_weights_before_it(tmp_path: Path) -> None:
    before, after, between = (
        pretrain(RECIPE, stages, tmp_path / str(number)).model.state_dict()
        for number, stages in enumerate(([STAGE], [STAGE, STAGE], [STAGE, replace(STAGE, kept=0.25)]))
    )
    assert any(not torch.equal(before[name], weight) for name, weight in after.items())
    for name, weight in between.items():
        torch.testing.assert_close(weight, 0.25 * before[name] + 0.75 * after[name])


def test_a_stage_of_the_decoder_leaves_the_encoder_as_it_was_and_learns(tmp_path: Path) -> None:
    before = pretrain(RECIPE, [STAGE], tmp_path)
    alone = replace(STAGE, decoder_only=True, config=replace(STAGE.config, epochs=2))
    after = pretrain(RECIPE, [STAGE, alone], tmp_path)
    changed = {
        name
        for name, weight in after.model.state_dict().items()
        if not torch.equal(weight.half(), before.model.state_dict()[name].half())
    }
    assert changed and all(name.startswith("decoder.") for name in changed)
    assert "decoder.blocks.0.cross_attn.key.weight" in changed


def test_more_text_layers_change_nothing_at_first_and_learn_then(tmp_path: Path) -> None:
    before = pretrain(RECIPE, [STAGE], tmp_path / "before").model
    still = replace(STAGE, config=replace(STAGE.config, learning_rate=1e-12), more_text_layers=2)
    deeper = pretrain(RECIPE, [STAGE, still], tmp_path / "still").model
    assert deeper.dims.n_text_layer == len(deeper.decoder.blocks) == 3
    mel, tokens = torch.randn(1, 80, 60, generator=torch.Generator().manual_seed(0)), torch.tensor([[1, 2]])
    torch.testing.assert_close(deeper(mel, tokens), before(mel, tokens), atol=2e-3, rtol=0)  # as float16

    learning = replace(STAGE, more_text_layers=1, kept=0.5)
    learned = pretrain(RECIPE, [STAGE, learning, STAGE], tmp_path / "learned").model
    assert learned.dims.n_text_layer == 2
    weights = dict(learned.decoder.blocks[1].named_parameters())
    assert all(weight.any() for name, weight in weights.items() if "weight" in name)


def test_a_stage_of_hard_names_knows_how_the_one_before_spelled_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = []
    rows = RowFactory.rows

    def told(factory: RowFactory, counts: dict[str, int]) -> list[Row]:
        if factory.split == "train":
            known.append(factory.losses)
        return rows(factory, counts)

    monkeypatch.setattr(RowFactory, "rows", told)
    decoder = replace(STAGE, decoder_only=True)
    pretrain(RECIPE, [decoder, replace(decoder, hard_names=True)], tmp_path)
    measured = tmp_path / "stage-1" / LOSSES_FILE
    assert known == [None, measured]
    losses = json.loads(measured.read_text())
    assert set(losses) == {"pl", "it"}
    assert all(loss > 0 for words in losses.values() for loss in words.values())


def test_hard_names_need_a_stage_that_measured_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hard names"):
        pretrain(RECIPE, [STAGE, replace(STAGE, hard_names=True)], tmp_path)


def test_without_stages_there_is_no_backbone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stages"):
        pretrain(RECIPE, [], tmp_path)


def test_language_tokens_count_more_the_rarer_the_language() -> None:
    tokenizer = toy_tokenizer()
    weights = token_weights(tokenizer, Curriculum({"pl": 300, "it": 100}), 3.0)
    assert weights[tokenizer.language_token("pl")] == 3.0
    assert weights[tokenizer.language_token("it")] == 6.0
    assert weights[tokenizer.eot] == 1.0
