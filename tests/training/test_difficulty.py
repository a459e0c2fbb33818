import pytest
import torch
from toy_whisper import toy_backbone, toy_tokenizer

from lora_whisper.data.batching import Row
from lora_whisper.training.difficulty import word_losses


def test_the_loss_of_a_word_is_the_sum_of_its_tokens_and_the_mean_of_its_hearings() -> None:
    backbone, tokenizer = toy_backbone(), toy_tokenizer()
    generator = torch.Generator().manual_seed(0)
    rows = []
    for tag, text, n_frames in (("pl", " Ala, Kot", 40), ("pl", " kot.", 96), ("it", " Ala", 64)):
        tokens = (*tokenizer.start_sequence(tag), *tokenizer.encode(text), tokenizer.eot)
        rows.append(Row(torch.randn(backbone.model.dims.n_mels, n_frames, generator=generator), tokens, 1))

    def loss(row: Row, start: int, end: int) -> float:
        scores = backbone.model(row.mel[None], torch.tensor([row.tokens[:-1]])).detach()[0].log_softmax(-1)
        return -sum(float(scores[i - 1, row.tokens[i]]) for i in range(start, end))

    n_start = len(tokenizer.start_sequence("pl"))
    n_ala = len(tokenizer.encode(" Ala,"))
    found = word_losses(backbone.model, tokenizer, rows)
    assert {tag: set(words) for tag, words in found.items()} == {"pl": {"ala", "kot"}, "it": {"ala"}}
    assert found["pl"]["ala"] == pytest.approx(loss(rows[0], n_start, n_start + n_ala), rel=1e-4)
    kot = (
        loss(rows[0], n_start + n_ala, len(rows[0].tokens) - 1),
        loss(rows[1], n_start, len(rows[1].tokens) - 1),
    )
    assert found["pl"]["kot"] == pytest.approx(sum(kot) / 2, rel=1e-4)


def test_rows_without_a_language_or_a_word_tell_nothing() -> None:
    backbone, tokenizer = toy_backbone(), toy_tokenizer()
    mel = torch.zeros(backbone.model.dims.n_mels, 40)
    silent = Row(mel, (tokenizer.sot, tokenizer.no_speech, tokenizer.eot), 1)
    unread = Row(mel, tuple(tokenizer.start_sequence("pl")), 1)
    assert word_losses(backbone.model, tokenizer, [silent, unread]) == {}
