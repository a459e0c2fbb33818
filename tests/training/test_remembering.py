from dataclasses import replace

import torch
from toy_whisper import toy_backbone, toy_tokenizer

from lora_whisper.data.batching import FixedRows, Row, collate
from lora_whisper.training.losses import track_losses
from lora_whisper.training.methods import full
from lora_whisper.training.remembering import remember, remembering


def rows(lengths: tuple[int, ...], n_mels: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    tokens = (*toy_tokenizer().start_sequence("pl"), 5, 6, toy_tokenizer().eot)
    return [Row(torch.randn(n_mels, n, generator=generator), tokens, 1) for n in lengths]


def test_rows_that_are_remembered_have_the_loss_of_those_that_are_heard() -> None:
    model = toy_backbone().model
    heard = rows((40, 96, 64), model.dims.n_mels)
    remembered = list(heard)
    remember(model, remembered)
    assert [row.mel.shape[1] for row in remembered] == [40, 96, 64]
    track = full(model, FixedRows(heard), None)
    expected = track_losses(model, [track], [3], collate(heard), None)
    with remembering(model):
        found = track_losses(model, [track], [3], collate(remembered), None)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)  # they are kept as float16
    silent = [replace(row, mel=torch.zeros_like(row.mel)) for row in remembered]
    with remembering(model):
        assert not torch.allclose(
            track_losses(model, [track], [3], collate(silent), None), expected, atol=2e-3
        )


def test_only_the_decoder_is_there_to_learn_and_the_encoder_comes_back() -> None:
    model = toy_backbone().model
    encoder = model.encoder
    with remembering(model):
        assert all(name.startswith("decoder.") for name, _ in model.named_parameters())
    assert model.encoder is encoder
