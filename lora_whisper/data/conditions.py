"""What happens to speech between throat and file: cuts, pace, vocal tract, echo, noise, channel, gain."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import soxr

from lora_whisper.audio import SAMPLE_RATE

Samples = npt.NDArray[np.float32]

_EDGE_HZ = 100.0
_MIN_CHANGE = 0.005
_FRAME, _HOP = 512, 128
_LIFTER = 32  # quefrencies of the spectral envelope: 2 ms, less than the period of any voice
_LIFTS = 4
_LEVEL_SAMPLES = 160  # over which loudness is measured
_SILENCE = 0.03  # of the greatest loudness


@dataclass(frozen=True)
class Condition:
    """A range of recording conditions; each recording draws its own from it.

    Args:
        gain_db: lowest and highest gain, from a peak of 0.95.
        bands_hz: channels, one of which is drawn, each from its lowest to its highest frequency.
        snr_db: lowest and highest ratio of speech to added noise.
        noise_slopes: how steeply the power of the noise falls with frequency f, as 1/f^slope: 0 is white
            noise, 1 pink, 2 brown.
        reverberation_s: shortest and longest time in which the echo fades by 60 dB.
        speed: slowest and fastest playback; pitch and formants move along.
        formants: how far formants move, as factors, while pitch and speed stay: other vocal tracts.
        tempo: slowest and fastest speech; pitch and formants stay.
        edges_s: least and most silence that is left before and after the speech; less than 0 cuts into it.
        chance: probability of each of these effects, except the gain.
    """

    gain_db: tuple[float, float] = (-12.0, 0.0)
    bands_hz: tuple[tuple[float, float], ...] = ()
    snr_db: tuple[float, float] | None = None
    noise_slopes: tuple[float, float] = (0.0, 0.0)
    reverberation_s: tuple[float, float] | None = None
    speed: tuple[float, float] | None = None
    formants: tuple[float, float] | None = None
    tempo: tuple[float, float] | None = None
    edges_s: tuple[float, float] | None = None
    chance: float = 1.0

    def draw(self, rng: np.random.Generator) -> "Effects":
        """The conditions of one recording."""

        def chosen(limits: tuple[float, float] | None) -> float | None:
            return float(rng.uniform(*limits)) if limits and rng.random() < self.chance else None

        has_band = self.bands_hz and rng.random() < self.chance
        return Effects(
            gain_db=float(rng.uniform(*self.gain_db)),
            band_hz=self.bands_hz[int(rng.integers(len(self.bands_hz)))] if has_band else None,
            snr_db=chosen(self.snr_db),
            noise_slope=float(rng.uniform(*self.noise_slopes)),
            reverberation_s=chosen(self.reverberation_s),
            speed=chosen(self.speed) or 1.0,
            seed=int(rng.integers(1 << 32)),
            formants=chosen(self.formants) or 1.0,
            tempo=chosen(self.tempo) or 1.0,
            edges_s=self._edges(rng),
        )

    def _edges(self, rng: np.random.Generator) -> tuple[float, float] | None:
        if not self.edges_s or rng.random() >= self.chance:
            return None
        before_s, after_s = rng.uniform(*self.edges_s, 2)
        return float(before_s), float(after_s)

    def apply(self, audio: Samples, rng: np.random.Generator) -> Samples:
        """The audio (n_samples,) under conditions drawn from this range."""
        return self.draw(rng).apply(audio)


@dataclass(frozen=True)
class Effects:
    """The conditions of one recording; see `Condition`.

    Args:
        seed: of the noise and the echo.
        edges_s: silence that is left before and after the speech.
    """

    gain_db: float = 0.0
    band_hz: tuple[float, float] | None = None
    snr_db: float | None = None
    noise_slope: float = 0.0
    reverberation_s: float | None = None
    speed: float = 1.0
    seed: int = 0
    formants: float = 1.0
    tempo: float = 1.0
    edges_s: tuple[float, float] | None = None

    @property
    def pace(self) -> float:
        """By which factor the audio gets shorter, but for its edges."""
        return self.speed * self.tempo

    def apply(self, audio: Samples) -> Samples:
        """The audio (n_samples,) as it arrives, float32 in [-1, 1], shorter by the factor `pace`."""
        rng = np.random.default_rng(self.seed)
        if self.edges_s:
            audio = trimmed(audio, *self.edges_s)
        if abs(self.tempo - 1) > _MIN_CHANGE:
            audio = _hurried(audio, self.tempo)
        sound = audio.astype(np.float64)
        if abs(self.formants - 1) > _MIN_CHANGE:
            sound = _from_another_tract(sound, self.formants)
        if abs(self.speed - 1) > _MIN_CHANGE:
            sound = soxr.resample(sound, SAMPLE_RATE, SAMPLE_RATE / self.speed)
        if self.reverberation_s:
            sound = _reverberant(sound, self.reverberation_s, rng)
        if self.snr_db is not None:
            noise = coloured_noise(len(sound), self.noise_slope, rng)
            sound = sound + noise * np.sqrt(np.mean(sound**2)) * 10 ** (-self.snr_db / 20)
        if self.band_hz:
            sound = _band_limited(sound, *self.band_hz)
        peak = max(float(np.abs(sound).max(initial=0.0)), 1e-9)
        return (sound * (0.95 / peak) * 10 ** (self.gain_db / 20)).astype(np.float32)


ROBUST = Condition(
    gain_db=(-24.0, 0.0),
    bands_hz=((300.0, 3400.0), (50.0, 7000.0), (100.0, 4000.0), (200.0, 5500.0)),
    snr_db=(5.0, 30.0),
    noise_slopes=(0.0, 2.0),
    reverberation_s=(0.08, 0.5),
    speed=(0.9, 1.1),
    formants=(0.85, 1.18),
    chance=0.4,
)
"""Conditions to train for robustness in: each effect in two recordings of five."""

OTHER_PEOPLE = replace(ROBUST, tempo=(0.75, 1.7), edges_s=(-0.04, 0.08), chance=0.5)
"""Conditions where few people were recorded and others will be heard: faster, slower, cut closer."""


def coloured_noise(n_samples: int, slope: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise (n_samples,) of unit power that falls as 1/f^slope: 0 is white, 1 pink, 2 brown."""
    padded = _fast_length(n_samples)
    spectrum = rng.standard_normal(padded // 2 + 1) + 1j * rng.standard_normal(padded // 2 + 1)
    frequencies = np.fft.rfftfreq(padded, 1 / SAMPLE_RATE)
    spectrum *= np.maximum(frequencies, 50.0) ** (-slope / 2)  # flat below 50 Hz, or all power were there
    noise = np.fft.irfft(spectrum, padded)[:n_samples]
    return noise / max(float(np.sqrt(np.mean(noise**2))), 1e-12)


def trimmed(audio: Samples, before_s: float, after_s: float) -> Samples:
    """The audio from `before_s` seconds before its speech to `after_s` after it; less than 0 is inside.

    Where it begins and ends with speech, or is nothing else, there is nothing to leave.
    """
    power = np.convolve(audio.astype(np.float64) ** 2, np.ones(_LEVEL_SAMPLES), "same")[: len(audio)]
    loud = np.flatnonzero(power > _SILENCE**2 * power.max(initial=0.0))
    if not len(loud):
        return audio
    begin = max(0, int(loud[0] - before_s * SAMPLE_RATE))
    end = int(loud[-1] + 1 + after_s * SAMPLE_RATE)
    return audio[begin:end] if end - begin > _LEVEL_SAMPLES else audio


def _hurried(audio: Samples, tempo: float) -> Samples:
    """The audio in 1 / `tempo` of its time, its pitch as it was: FFmpeg's `atempo`, which is WSOLA."""
    import av

    if not len(audio):
        return audio
    graph = av.filter.Graph()
    graph.threads = 1  # a pool of threads costs more than the work
    source = graph.add_abuffer(sample_rate=SAMPLE_RATE, format="flt", layout="mono")
    graph.link_nodes(source, graph.add("atempo", f"{tempo:.6f}"), graph.add("abuffersink")).configure()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio[None], np.float32), "flt", "mono")
    frame.sample_rate = SAMPLE_RATE
    graph.push(frame)
    graph.push(None)
    parts: list[Samples] = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray()[0])
        except av.error.EOFError:
            return np.concatenate(parts) if parts else audio


def _from_another_tract(sound: npt.NDArray[np.float64], factor: float) -> npt.NDArray[np.float64]:
    """The sound with its spectral envelope stretched by the factor; the harmonics stay where they are."""
    n_frames = len(sound) // _HOP + _FRAME // _HOP
    padded = np.zeros((n_frames - 1) * _HOP + _FRAME)
    begin = _FRAME - _HOP
    padded[begin : begin + len(sound)] = sound
    window = np.hanning(_FRAME + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP] * window
    spectra = np.fft.rfft(frames)
    envelopes = _envelopes(np.abs(spectra))
    sources = np.minimum(np.arange(envelopes.shape[1]) / factor, envelopes.shape[1] - 1)
    below = np.minimum(sources.astype(int), envelopes.shape[1] - 2)
    share = sources - below
    moved = envelopes[:, below] * (1 - share) + envelopes[:, below + 1] * share
    changed = np.fft.irfft(spectra * np.exp(moved - envelopes)) * window
    result = np.zeros_like(padded)
    for part in range(0, _FRAME, _HOP):  # every so many frames lie one behind the other
        rows = changed[part // _HOP :: _FRAME // _HOP]
        result[part : part + rows.size] += rows.ravel()
    return result[begin : begin + len(sound)] * (_HOP / np.sum(window**2))


def _envelopes(magnitudes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logarithms of the spectral envelopes of magnitudes (n_frames, n_bins), which touch their peaks.

    A smoothed spectrum would follow the valleys between harmonics; so what lies below it is lifted onto it
    and it is smoothed again (the "true envelope", Röbel and Rodet 2005).
    """
    heard = np.log(np.maximum(magnitudes, 1e-3 * magnitudes.max(1, keepdims=True) + 1e-12))
    envelopes = heard
    for _ in range(_LIFTS):
        cepstra = np.fft.irfft(np.maximum(heard, envelopes))
        cepstra[:, _LIFTER:-_LIFTER] = 0
        envelopes = np.fft.rfft(cepstra).real
    return envelopes


def _reverberant(
    sound: npt.NDArray[np.float64], time_s: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The sound in a room: itself and, 6 dB weaker, its echo, a noise that fades by 60 dB in `time_s`."""
    tail = np.arange(int(time_s * SAMPLE_RATE))
    response = rng.standard_normal(len(tail)) * 10 ** (-3 * tail / max(len(tail), 1))
    response *= 0.5 / max(float(np.sqrt(np.sum(response**2))), 1e-12)
    response[:1] = 1.0
    padded = _fast_length(len(sound) + len(response))
    echoed = np.fft.irfft(np.fft.rfft(sound, padded) * np.fft.rfft(response, padded), padded)
    return echoed[: len(sound)]


def _band_limited(sound: npt.NDArray[np.float64], low_hz: float, high_hz: float) -> npt.NDArray[np.float64]:
    padded = _fast_length(len(sound))
    frequencies = np.fft.rfftfreq(padded, 1 / SAMPLE_RATE)
    distance = np.minimum(frequencies - low_hz, high_hz - frequencies)
    passed = np.clip(0.5 + distance / _EDGE_HZ, 0, 1)
    return np.fft.irfft(np.fft.rfft(sound, padded) * passed)[: len(sound)]


def _fast_length(n_samples: int) -> int:
    """A length from `n_samples` on that has no large prime factors, for which the FFT is slow."""
    return max(-(-n_samples // 4096), 1) * 4096
