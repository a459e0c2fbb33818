import numpy as np

from lora_whisper.data import espeak
from lora_whisper.data.voices import draw_timbre, draw_voice


def test_a_timbre_changes_the_sound_and_repeats():
    first, second = (draw_timbre(np.random.default_rng(seed)) for seed in (1, 2))
    assert first != second
    clips = [
        espeak.synthesise("Dzień dobry", "pl", espeak.Voice(timbre=timbre))
        for timbre in (first, second, first)
    ]
    assert np.array_equal(clips[0], clips[2])
    assert len(clips[0]) != len(clips[1]) or not np.allclose(clips[0], clips[1])
    assert all(np.abs(clip).max() > 0.01 for clip in clips)


def test_a_timbre_does_not_touch_the_voices_of_others():
    plain = espeak.synthesise("Dzień dobry", "pl", espeak.Voice("f2"))
    espeak.synthesise("Dzień dobry", "pl", espeak.Voice(timbre=draw_timbre(np.random.default_rng(0))))
    assert np.array_equal(espeak.synthesise("Dzień dobry", "pl", espeak.Voice("f2")), plain)


def test_a_higher_timbre_sounds_higher():
    def pitch_hz(timbre: str) -> float:
        clip = espeak.synthesise("aaa", "it", espeak.Voice(timbre=timbre, pitch_range=0))
        clip = clip[len(clip) // 4 : len(clip) // 2]
        likeness = np.correlate(clip, clip, "full")[len(clip) - 1 :]
        return float(16_000 / (40 + np.argmax(likeness[40:400])))

    assert pitch_hz("pitch 180 190") > 1.4 * pitch_hz("pitch 80 85")


def test_voices_are_named_after_what_they_are():
    voice, name = draw_voice(["f2", "m3"], np.random.default_rng(0))
    variant, speed, pitch = name.split("-")
    assert (
        voice.variant == variant
        and speed in ("slow", "medium", "fast")
        and pitch in ("low", "middle", "high")
    )
