"""Kokoro's interface, by a small network that has the same one and hums."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lora_whisper.data import kokoro
from lora_whisper.data.kokoro import STYLE_WIDTH, Kokoro, phonemes
from lora_whisper.errors import AudioError, CheckpointError

HOP = 2400
"""Samples of the hum a phoneme, at 24 kHz."""

SPELLING = "abdefhijklmnopstuvwzæðŋɐɑɒɔəɛɜɡɪɹɾʃʊʌʒʤʧθɲʎβˈˌːAIOQWY "


def hum(tokens: str) -> onnx.ModelProto:
    """A model that hums for 0.1 s a token, at a pitch that the style gives."""
    constants = {
        "one": np.array(1),
        "zero": np.array(0),
        "hop": np.array(HOP),
        "step": np.array(0.4, np.float32),
        "quiet": np.array(0.3, np.float32),
    }
    nodes = [
        ("Shape", [tokens], "shape", {}),
        ("Gather", ["shape", "one"], "length", {"axis": 0}),
        ("Mul", ["length", "hop"], "samples", {}),
        ("Range", ["zero", "samples", "one"], "places", {}),
        ("Cast", ["places"], "time", {"to": TensorProto.FLOAT}),
        ("ReduceMean", ["style"], "mean", {"keepdims": 0}),
        ("Mul", ["mean", "step"], "pitch", {}),
        ("Mul", ["time", "pitch"], "phase", {}),
        ("Sin", ["phase"], "sine", {}),
        ("Mul", ["sine", "quiet"], "soft", {}),
        ("Div", ["soft", "speed"], "waveform", {}),
    ]
    inputs = [
        helper.make_tensor_value_info(tokens, TensorProto.INT64, [1, None]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, STYLE_WIDTH]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    output = helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [None])
    graph = helper.make_graph(
        [helper.make_node(kind, given, [made], **how) for kind, given, made, how in nodes],
        "hum",
        inputs,
        [output],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A folder in the layout of the ONNX release, with two voices for texts of up to forty phonemes."""
    for part in ("onnx", "voices"):
        (tmp_path / part).mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(hum("input_ids").SerializeToString())
    for name, value in (("af_low", 0.5), ("bm_high", 1.5)):
        np.full((40, 1, STYLE_WIDTH), value, "<f4").tofile(tmp_path / "voices" / f"{name}.bin")
    vocabulary = {"$": 0} | {one: place for place, one in enumerate(SPELLING, 1)}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}), "utf-8")
    return tmp_path


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


def test_the_other_name_of_its_input_is_known(release: Path) -> None:
    (release / "onnx" / "model.onnx").write_bytes(hum("tokens").SerializeToString())
    assert len(Kokoro(release).speak("siete", "es", np.random.default_rng(0)))


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
