import numpy as np
import torch

from lora_whisper.data.augment import MAX_BAND, MAX_STRETCH_SHARE, N_BANDS, N_STRETCHES, spec_augment


def test_bands_and_stretches_get_the_mean_and_the_original_stays():
    mel = torch.randn(80, 400, generator=torch.Generator().manual_seed(0)).half()
    kept = mel.clone()
    hidden = spec_augment(mel, np.random.default_rng(3))
    assert torch.equal(mel, kept)
    changed = hidden != mel
    assert changed.any() and torch.all(hidden[changed] == mel.float().mean().half())
    bands, stretches = changed.all(1).sum(), changed.all(0).sum()
    assert bands <= N_BANDS * MAX_BAND and stretches <= N_STRETCHES * MAX_STRETCH_SHARE * 400


def test_the_same_numbers_hide_the_same_parts():
    mel = torch.randn(80, 300)
    first, second, third = (spec_augment(mel, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_half_of_a_short_row_stays_at_least():
    mel = torch.randn(80, 8, generator=torch.Generator().manual_seed(1))
    for seed in range(20):
        hidden = spec_augment(mel, np.random.default_rng(seed)) != mel
        assert (~hidden.all(0)).sum() >= (1 - N_STRETCHES * MAX_STRETCH_SHARE) * 8
