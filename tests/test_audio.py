"""From samples to log-mel features."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lora_whisper.audio import (
    HOP_LENGTH,
    N_FRAMES,
    N_SAMPLES,
    SAMPLE_RATE,
    audio_duration_s,
    context_frames,
    features,
    load_audio,
    log_mel_spectrogram,
    mel_filters,
)
from lora_whisper.errors import AudioError


def sweep(duration_s: float, rate: int = SAMPLE_RATE) -> np.ndarray:
    """A tone (n,) that rises from 200 Hz to 2 kHz at half scale."""
    t = np.arange(round(duration_s * rate)) / rate
    phase = 2 * np.pi * (200 * t + 900 / duration_s * t**2)
    return (0.5 * np.sin(phase)).astype(np.float32)


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 192_000])
def test_any_rate_becomes_16_khz(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", sweep(1.5, rate), rate, subtype="FLOAT")
    audio = load_audio(tmp_path / "a.wav")
    assert audio.dtype == np.float32
    assert len(audio) == pytest.approx(24_000, abs=1)
    assert audio_duration_s(tmp_path / "a.wav") == pytest.approx(1.5, abs=1e-3)
    inner = slice(800, 23_200)  # away from the resampler's edges
    np.testing.assert_allclose(audio[inner], sweep(1.5)[inner], atol=1e-3)


@pytest.mark.parametrize("n_channels", [1, 2, 6, 8])
def test_channels_are_averaged(tmp_path, n_channels):
    channels = np.stack([noise(4_000, seed) for seed in range(n_channels)], axis=1)
    soundfile.write(tmp_path / "a.wav", channels, SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), channels.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_integers_scale_to_one(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", sweep(0.2), SAMPLE_RATE, subtype=subtype)
    np.testing.assert_allclose(load_audio(str(tmp_path / "a.wav")), sweep(0.2), atol=0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_impossible_samples(tmp_path, value):
    samples = sweep(0.2)
    samples[100] = value
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"a\.wav: holds NaN or infinite samples; export it again"):
        load_audio(tmp_path / "a.wav")


def test_absurdly_loud_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", sweep(0.2) * np.float32(1e20), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"holds samples of 5\.0e\+19"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(("n_samples", "rate"), [(0, 16_000), (0, 8_000), (3, 192_000)])
def test_no_samples(tmp_path, n_samples, rate):
    soundfile.write(tmp_path / "a.wav", noise(n_samples), rate)
    with pytest.raises(AudioError, match=r"a\.wav: holds no audio \(0 samples\)"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_are_those_of_openai(n_mels):
    spec = importlib.util.find_spec("whisper")  # found, not imported: its dependencies are not needed
    assert spec is not None and spec.origin is not None
    with np.load(Path(spec.origin).parent / "assets" / "mel_filters.npz") as stored:
        np.testing.assert_allclose(mel_filters(n_mels).numpy(), stored[f"mel_{n_mels}"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("duration_s", [0.01, 3.3, 30.0])
def test_features_equal_those_of_transformers(n_mels, duration_s):
    from transformers import WhisperFeatureExtractor

    audio = sweep(duration_s) + noise(round(duration_s * SAMPLE_RATE))
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    expected = extractor(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features[0]
    actual = features(audio, n_mels, "full")
    assert actual.shape == (n_mels, N_FRAMES)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_clips_of_a_batch_are_normalised_one_by_one():
    loud, quiet = torch.from_numpy(noise(8_000)), torch.from_numpy(noise(8_000, 1)) * 1e-3
    batch = log_mel_spectrogram(torch.stack([loud, quiet])[None], 128)
    assert batch.shape == (1, 2, 128, 50)
    for clip, alone in zip((loud, quiet), batch[0], strict=True):
        torch.testing.assert_close(alone, log_mel_spectrogram(clip, 128), atol=1e-5, rtol=0)


def test_silence_has_finite_features():
    silence = features(np.zeros(16_000, dtype=np.float32))
    assert torch.equal(silence, torch.full_like(silence, -1.5))


def test_too_short_for_a_spectrogram():
    with pytest.raises(AudioError, match="200 samples are too few"):
        log_mel_spectrogram(torch.zeros(200))
    with pytest.raises(AudioError, match="0 mel bins"):
        mel_filters(0)


def test_context_is_even_short_and_sufficient():
    for n_samples in [0, 1, 159, 160, 161, 16_000, 240_001, N_SAMPLES - 401, N_SAMPLES - 1, N_SAMPLES]:
        frames = context_frames(n_samples)
        assert frames % 2 == 0
        assert n_samples <= frames * HOP_LENGTH <= N_SAMPLES
        assert frames <= -(-n_samples // HOP_LENGTH) + 7  # under 80 ms more than the speech
    assert context_frames(N_SAMPLES) == N_FRAMES


def test_dynamic_features_are_the_beginning_of_the_full_ones():
    rng = np.random.default_rng(0)
    lengths = [1, 150, 160, 200, 399, 401, 479_600, 479_999, N_SAMPLES, *rng.integers(1, N_SAMPLES, 20)]
    for n_samples in lengths:
        audio = noise(n_samples, seed=n_samples) + sweep(30.0)[:n_samples]
        dynamic, full = features(audio, 80, "dynamic"), features(audio, 80, "full")
        assert dynamic.shape == (80, context_frames(n_samples))
        torch.testing.assert_close(dynamic, full[:, : dynamic.shape[1]], atol=1e-5, rtol=0)


def test_dynamic_features_end_in_silence():
    for n_samples in range(16_000, 16_000 + 4 * HOP_LENGTH, 37):
        mel = features(noise(n_samples), 80, "dynamic")
        assert torch.equal(mel[:, -1], mel.min().expand(80))


def test_thirty_seconds_are_their_own_context():
    audio = noise(N_SAMPLES)
    assert torch.equal(features(audio, 80, "dynamic"), features(audio, 80, "full"))


@pytest.mark.parametrize("n_samples", [0, N_SAMPLES + 1])
def test_what_does_not_fit_a_window(n_samples):
    with pytest.raises(AudioError, match="do not fit a window"):
        features(noise(n_samples))


def test_three_seconds_cost_less_than_thirty():
    audio = noise(3 * SAMPLE_RATE)
    durations_s = {"dynamic": [], "full": []}
    for _ in range(20):  # taking turns, because the machine may be crowded
        for context, durations in durations_s.items():
            start_s = time.perf_counter()
            features(audio, 80, context)
            durations.append(time.perf_counter() - start_s)
    assert min(durations_s["dynamic"]) < 0.5 * min(durations_s["full"])  # about 0.5 against 3.5 ms


def test_import_needs_no_torch():
    probe = "import sys, lora_whisper.audio; print(sorted({'torch', 'av', 'soundfile'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
