from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_whisper import toy_tokenizer

from lora_whisper.data.batching import RowEncoder, collate
from lora_whisper.errors import UsageError
from lora_whisper.model.checkpoint import load_backbone
from lora_whisper.training.curriculum import Curriculum
from lora_whisper.training.pretraining import (
    CTC_STRIDE,
    CTCHead,
    Pretraining,
    Speech,
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


def test_a_stage_may_learn_the_tokens_alone(tmp_path: Path) -> None:
    first = pretrain(RECIPE, [STAGE], tmp_path).model.state_dict()
    second = pretrain(RECIPE, [STAGE, replace(STAGE, learned="tokens")], tmp_path).model.state_dict()
    learned = [name for name, weight in second.items() if not torch.equal(weight.half(), first[name].half())]
    assert learned == ["decoder.token_embedding.weight"]
    heads = [load_file(tmp_path / f"stage-{number}" / "ctc.safetensors") for number in (1, 2)]
    assert all(torch.equal(weight, heads[0][name]) for name, weight in heads[1].items())


def test_rows_that_are_made_ahead_are_the_same(tmp_path: Path) -> None:
    n_threads = torch.get_num_threads()
    stages = [STAGE, replace(STAGE, curriculum=Curriculum({"pl": 3, "it": 2}))]
    made = []
    for ahead in (False, True):
        with Speech(RECIPE, stages, toy_tokenizer(), ahead) as speech:
            made.append([row for number in range(2) for part in speech.of_stage(number) for row in part])
    assert len(made[0]) == len(made[1]) == 8 + 4 + 5 + 4
    for one, other in zip(*made, strict=True):
        assert one.tokens == other.tokens and torch.equal(one.mel, other.mel)
    assert torch.get_num_threads() == n_threads


def test_rows_without_text_have_no_ctc_loss() -> None:
    tokenizer = toy_tokenizer()
    row = RowEncoder(tokenizer, 8, "dynamic", learn_prompt=True).row(np.ones(16_000, np.float32), "ala", "pl")
    head = CTCHead(16, tokenizer.eot, weight=0.5, seed=0)
    audio = torch.randn(2, row.mel.shape[1] // 2, 16, generator=torch.Generator().manual_seed(0))
    wordless = replace(row, tokens=row.tokens[: row.n_prompt + 1])
    both = head(audio, collate([row, wordless])).detach()
    torch.testing.assert_close(both, head(audio[:1], collate([row])).detach())
    assert head(audio, collate([wordless, wordless])).detach() == 0


def test_without_stages_there_is_no_backbone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stages"):
        pretrain(RECIPE, [], tmp_path)


def test_language_tokens_count_more_the_rarer_the_language() -> None:
    tokenizer = toy_tokenizer()
    weights = token_weights(tokenizer, Curriculum({"pl": 300, "it": 100}), 3.0)
    assert weights[tokenizer.language_token("pl")] == 3.0
    assert weights[tokenizer.language_token("it")] == 6.0
    assert weights[tokenizer.eot] == 1.0


def test_voices_that_a_later_stage_lacks_are_known_before_the_first(tmp_path: Path) -> None:
    later = replace(STAGE, curriculum=replace(STAGE.curriculum, utterances={"it": 1}, neural=0.1))
    with pytest.raises(UsageError, match="no folder of Kokoro"):
        pretrain(RECIPE, [STAGE, later], tmp_path / "run")
    assert not (tmp_path / "run").exists()
