"""From an audio file of any kind to the log-mel spectrogram that Whisper reads."""

import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lora_whisper.audio_file import Samples, file_duration_s, read_samples
from lora_whisper.errors import AudioError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "CHUNK_LENGTH_S",
    "FRAMES_PER_POSITION",
    "HOP_LENGTH",
    "N_FFT",
    "N_FRAMES",
    "N_SAMPLES",
    "SAMPLE_RATE",
    "AudioContext",
    "Samples",
    "audio_duration_s",
    "context_frames",
    "features",
    "load_audio",
    "log_mel_spectrogram",
    "mel_filters",
]

SAMPLE_RATE = 16_000
N_FFT = 400  # 25 ms window
HOP_LENGTH = 160  # 10 ms a mel frame
CHUNK_LENGTH_S = 30
N_SAMPLES = CHUNK_LENGTH_S * SAMPLE_RATE
N_FRAMES = N_SAMPLES // HOP_LENGTH
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
FRAMES_PER_POSITION = 2  # the encoder's second convolution halves the frame rate

AudioContext = Literal["full", "dynamic"]

_CONTEXT_MULTIPLE = 4  # mel frames; fewer different lengths, and always even
_LOUDEST = 1e6  # full scale is 1; beyond this the power spectrum may overflow float32


def load_audio(path: str | Path, start_s: float = 0.0, duration_s: float | None = None) -> Samples:
    """The samples (n_samples,) of a file or a part of it: mono, 16 kHz, in [-1, 1].

    Channels are averaged.  A duration that reaches beyond the end gives what is there.

    Raises:
        AudioError: the file or its signal cannot be used, or `start_s` lies beyond the end.
    """
    samples, rate = read_samples(Path(path), start_s, duration_s)
    return _usable(samples, rate, Path(path))


def audio_duration_s(path: str | Path) -> float:
    """Length of the audio in seconds, from the header if that tells it, else from the packets.

    Raises:
        AudioError: the file cannot be read as audio.
    """
    return file_duration_s(Path(path))


@lru_cache(maxsize=8)
def mel_filters(n_mels: int, device: "torch.device | str" = "cpu") -> "Tensor":
    """Triangular filters (M, N_FFT // 2 + 1) on Slaney's mel scale, each of unit area.

    Raises:
        AudioError: `n_mels` is not positive.
    """
    import torch

    if n_mels < 1:
        raise AudioError(f"{n_mels} mel bins; Whisper models have 80 or 128")
    bins_hz = torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)
    edges_mel = torch.linspace(0, _hz_to_mel(SAMPLE_RATE / 2), n_mels + 2, dtype=torch.float64)
    edges_hz = _mel_to_hz(edges_mel)
    left, centre, right = (edges_hz[i : n_mels + i, None] for i in range(3))
    rising, falling = (bins_hz - left) / (centre - left), (right - bins_hz) / (right - centre)
    filters = torch.minimum(rising, falling).clamp(min=0) * 2 / (right - left)
    return filters.float().to(device)


def log_mel_spectrogram(audio: "Tensor", n_mels: int = 80) -> "Tensor":
    """Log-mel features (..., M, n_samples // HOP_LENGTH) of audio (..., n_samples).

    Each clip is normalised by itself: its loudest bin sets the floor 8 decades below.

    Raises:
        AudioError: the audio is shorter than half a window.
    """
    import torch

    if audio.shape[-1] <= N_FFT // 2:
        raise AudioError(
            f"{audio.shape[-1]} samples are too few for a spectrogram; pad them to {N_FFT} or more"
        )
    clips = audio.float().reshape(-1, audio.shape[-1])
    window = _window(audio.device)
    spectrum = torch.stft(clips, N_FFT, HOP_LENGTH, window=window, return_complex=True)[..., :-1]
    power = spectrum.real.square().add_(spectrum.imag.square())  # several times faster than abs() ** 2
    log_mel = (mel_filters(n_mels, audio.device) @ power).clamp_(min=1e-10).log10_()
    floor = log_mel.amax(dim=(-2, -1), keepdim=True) - 8.0
    normalised = torch.maximum(log_mel, floor).add_(4.0).div_(4.0)
    return normalised.reshape(*audio.shape[:-1], n_mels, -1)


def context_frames(n_samples: int) -> int:
    """Number of mel frames that hold `n_samples` and at least one frame of silence, at most N_FRAMES.

    One window of zeros after the speech keeps the spectrogram's reflection at the edge silent, so
    the frames equal those of the same speech padded to 30 s.
    """
    frames = math.ceil((n_samples + N_FFT) / HOP_LENGTH)
    return min(-(-frames // _CONTEXT_MULTIPLE) * _CONTEXT_MULTIPLE, N_FRAMES)


def features(audio: Samples, n_mels: int = 80, context: AudioContext = "full") -> "Tensor":
    """Log-mel features (M, T) of up to 30 s, padded with silence to 30 s or to its own short context.

    Raises:
        AudioError: the audio is empty or longer than 30 s.
    """
    import torch

    if not 0 < len(audio) <= N_SAMPLES:
        raise AudioError(
            f"{len(audio) / SAMPLE_RATE:.2f} s of audio do not fit a window; give it more than 0 and at most "
            f"{CHUNK_LENGTH_S} s"
        )
    frames = N_FRAMES if context == "full" else context_frames(len(audio))
    padded = torch.zeros(frames * HOP_LENGTH)
    padded[: len(audio)] = torch.from_numpy(np.asarray(audio, dtype=np.float32))
    return log_mel_spectrogram(padded, n_mels)


def _usable(samples: Samples, rate: int, path: Path) -> Samples:
    """Channels (C, n) become one signal at 16 kHz that holds something and nothing impossible."""
    import soxr

    with np.errstate(all="ignore"):
        mono = samples.mean(axis=0, dtype=np.float32)
        peak = float(np.abs(mono).max(initial=0.0))
    if not math.isfinite(peak):
        raise AudioError(f"{path}: holds NaN or infinite samples; export it again")
    if peak > _LOUDEST:
        raise AudioError(f"{path}: holds samples of {peak:.1e} where full scale is 1; export it again")
    if rate != SAMPLE_RATE and len(mono):
        mono = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
    if not len(mono):
        raise AudioError(f"{path}: holds no audio (0 samples); replace or remove it")
    return np.ascontiguousarray(mono, dtype=np.float32)


@lru_cache(maxsize=8)
def _window(device: "torch.device") -> "Tensor":
    import torch

    return torch.hann_window(N_FFT, device=device)


def _hz_to_mel(hz: float) -> float:
    """Slaney's scale: linear to 1 kHz (15 mel), logarithmic above."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def _mel_to_hz(mel: "Tensor") -> "Tensor":
    import torch

    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))
