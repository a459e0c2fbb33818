import numpy as np
import pytest

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data.conditions import (
    OTHER_PEOPLE,
    ROBUST,
    Condition,
    Effects,
    _from_another_tract,
    coloured_noise,
    trimmed,
)


def tone(hertz: float = 1000.0, duration_s: float = 1.0) -> np.ndarray:
    time_s = np.arange(int(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    return np.sin(2 * np.pi * hertz * time_s).astype(np.float32)


def test_faster_is_shorter_and_higher():
    heard = Effects(speed=1.25).apply(tone())
    assert len(heard) == pytest.approx(SAMPLE_RATE / 1.25, abs=2)
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(heard) == pytest.approx(1250, abs=5)


def test_an_echo_outlives_the_sound_and_fades():
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[100] = 1
    heard = Effects(reverberation_s=0.3).apply(click)
    early, late = np.abs(heard[200:1000]).max(), np.abs(heard[4000:4800]).max()
    assert early > 5 * late > 0
    assert np.abs(heard[:100]).max() < 1e-6


@pytest.mark.parametrize(("slope", "expected_db"), [(0.0, 0.0), (1.0, 10.0), (2.0, 20.0)])
def test_noise_falls_by_its_slope(slope, expected_db):
    noise = coloured_noise(1 << 18, slope, np.random.default_rng(0))
    assert np.mean(noise**2) == pytest.approx(1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    low, high = (power[(hertz > f / 1.2) & (hertz < f * 1.2)].mean() for f in (300, 3000))
    assert 10 * np.log10(low / high) == pytest.approx(expected_db, abs=0.7)


def test_robust_conditions_differ_repeat_and_stay_in_range():
    first, second, third = (ROBUST.draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == second != third
    for seed in range(40):
        heard = ROBUST.apply(tone(), np.random.default_rng(seed))
        assert heard.dtype == np.float32 and np.isfinite(heard).all() and np.abs(heard).max() <= 1


def test_the_chance_says_how_often_an_effect_occurs():
    rng = np.random.default_rng(0)
    drawn = [Condition(snr_db=(5, 5), chance=0.25).draw(rng).snr_db for _ in range(2000)]
    assert np.mean([snr == 5 for snr in drawn]) == pytest.approx(0.25, abs=0.03)


def test_silence_stays_finite():
    heard = Effects(0.0, (300, 3400), 5.0, 0.0, 0.2, 1.1, formants=1.1).apply(np.zeros(1000, np.float32))
    assert not heard.any()


def vowel(pitch_hz: float = 125.0, formant_hz: float = 1000.0) -> np.ndarray:
    """Harmonics of a pitch, loudest at a formant."""
    time_s = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    harmonics = np.arange(pitch_hz, 8000, pitch_hz)
    loudness = np.exp(-(((harmonics - formant_hz) / 450) ** 2))
    waves = np.sin(2 * np.pi * harmonics[:, None] * time_s) * loudness[:, None]
    return (waves.sum(0) / 10).astype(np.float32)


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_formants_move_while_pitch_and_length_stay(factor):
    heard = Effects(formants=factor).apply(vowel())
    assert len(heard) == SAMPLE_RATE
    power = np.abs(np.fft.rfft(heard)) ** 2  # one bin a hertz
    centre_hz = (power * np.arange(len(power))).sum() / power.sum()
    assert centre_hz == pytest.approx(1000 * factor, rel=0.06)
    near = sum(power[max(0, h - 2) : h + 3].sum() for h in range(125, 8000, 125))
    assert near > 0.99 * power.sum()


@pytest.mark.parametrize("n_samples", [0, 1, 127, 128, 513, 5000])
def test_a_tract_like_ones_own_changes_nothing(n_samples):
    sound = np.random.default_rng(0).standard_normal(n_samples)
    assert np.allclose(_from_another_tract(sound, 1.0), sound, atol=1e-9)


@pytest.mark.parametrize("tempo", [0.75, 1.7])
def test_hurried_speech_keeps_its_pitch(tempo):
    heard = Effects(tempo=tempo).apply(tone())
    assert len(heard) == pytest.approx(SAMPLE_RATE / tempo, rel=0.03)
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(heard) == pytest.approx(1000, abs=10)
    assert Effects(speed=1.1, tempo=tempo).pace == pytest.approx(1.1 * tempo)


@pytest.mark.parametrize("n_samples", [0, 1, 300])
def test_nearly_nothing_can_be_hurried(n_samples):
    assert len(Effects(tempo=1.5).apply(np.ones(n_samples, np.float32))) == n_samples


def test_edges_are_cut_near_the_speech_or_inside_it():
    silence = np.zeros(SAMPLE_RATE, np.float32)
    audio = np.concatenate([silence, tone(), silence])
    assert len(trimmed(audio, 0.1, 0.2)) == pytest.approx(1.3 * SAMPLE_RATE, abs=200)
    assert len(trimmed(audio, -0.1, -0.2)) == pytest.approx(0.7 * SAMPLE_RATE, abs=200)
    assert len(trimmed(tone(), 0.1, 0.2)) == SAMPLE_RATE
    assert len(trimmed(tone(duration_s=0.2), -0.1, -0.1)) == 0.2 * SAMPLE_RATE  # nothing would be left
    assert len(trimmed(silence, 0.1, 0.1)) == SAMPLE_RATE
    assert len(Effects(edges_s=(0.1, 0.2)).apply(audio)) == pytest.approx(1.3 * SAMPLE_RATE, abs=200)


def test_other_people_are_faster_slower_and_cut_closer():
    drawn = [OTHER_PEOPLE.draw(np.random.default_rng(seed)) for seed in range(300)]
    tempi = [one.tempo for one in drawn if one.tempo != 1]
    edges = [edge for one in drawn if one.edges_s for edge in one.edges_s]
    assert 0.75 < min(tempi) < 0.8 and 1.6 < max(tempi) < 1.7
    assert -0.04 < min(edges) < -0.03 and 0.07 < max(edges) < 0.08
