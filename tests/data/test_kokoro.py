"""Kokoro's interface, by a small network that has the same one and hums."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from toy_kokoro import toy_release

from lora_whisper.data import kokoro
from lora_whisper.data.kokoro import Kokoro, phonemes
from lora_whisper.errors import AudioError, CheckpointError


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return toy_release(tmp_path / "kokoro")


def test_speech_depends_on_the_generator_alone(release: Path) -> None:
    model = Kokoro(release)
    first, again, other = (model.speak("seven", "en", np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32 and 0.2 < np.abs(first).max() < 0.5
    assert len(first) != len(other) or not np.array_equal(first, other)


def test_voices_are_mixed(release: Path) -> None:
    model = Kokoro(release)
    pitches = []
    for seed in range(30):
        spoken = model.speak("seven", "en-GB", np.random.default_rng(seed))
        pitches.append(np.argmax(np.abs(np.fft.rfft(spoken, 16000))) * 2 * np.pi / 24000)
    assert np.min(pitches) == pytest.approx(0.2, abs=0.01) and np.max(pitches) == pytest.approx(0.6, abs=0.01)
    assert len({round(float(pitch), 3) for pitch in pitches}) > 8


def test_the_other_name_of_its_input_is_known(tmp_path: Path) -> None:
    model = Kokoro(toy_release(tmp_path, "tokens"))
    assert len(model.speak("siete", "es", np.random.default_rng(0)))


def test_a_language_is_known_by_its_tag() -> None:
    assert kokoro.speaks("en-GB") and kokoro.speaks("pt") and not kokoro.speaks("de")
    assert not kokoro.speaks("eng")


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("nine chairs", "en-US", "nˈIn ʧˈɛɹz"),
        ("go", "en-GB", "ɡˈQ"),
        ("bird", "en-US", "bˈɜɹd"),
        ("bird", "en-GB", "bˈɜːd"),
        ("oggi", "it", "ˈɔʤːɪ"),
    ],
)
def test_phonemes_are_spelled_as_it_learned_them(text: str, language: str, expected: str) -> None:
    assert phonemes(text, language, np.random.default_rng(0)) == expected


def test_a_switch_of_languages_is_no_phoneme() -> None:
    read = phonemes("un week-end bien", "fr", np.random.default_rng(0))  # (en) and (fr) in espeak-ng's words
    assert "(" not in read and "wˈiːk" in read and "bjˈɛ̃" in read


def test_nothing_is_refused(release: Path) -> None:
    with pytest.raises(AudioError, match="could not speak ''"):
        Kokoro(release).speak("", "en", np.random.default_rng(0))


def test_much_is_spoken_piece_by_piece_by_one_person(release: Path) -> None:
    long = Kokoro(release).speak("seven " * 20, "en", np.random.default_rng(5))
    short = Kokoro(release).speak("seven", "en", np.random.default_rng(5))
    assert 15 * len(short) < len(long) < 21 * len(short)
    pitches = {int(np.argmax(np.abs(np.fft.rfft(part, 16000)))) for part in np.array_split(long, 5)}
    assert max(pitches) - min(pitches) < 10
    assert len(Kokoro(release).speak("x" * 200, "en", np.random.default_rng(5)))


def test_what_is_no_release_is_named(release: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no onnx/.*hf download"):
        Kokoro(tmp_path / "nowhere")
    (release / "onnx" / "model.onnx").write_bytes(b"text")
    with pytest.raises(CheckpointError, match=r"model\.onnx: cannot be loaded"):
        Kokoro(release)
    (release / "tokenizer.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is no ONNX release"):
        Kokoro(release)
    (release / "voices" / "af_low.bin").unlink()
    (release / "voices" / "bm_high.bin").unlink()
    with pytest.raises(CheckpointError, match=r"has no voices/\*.bin"):
        Kokoro(release)


def test_another_network_is_refused(release: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    same = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", [value], [same])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (release / "onnx" / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"is no Kokoro \(its inputs: \['x'\]\)"):
        Kokoro(release)
