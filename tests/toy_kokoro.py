"""A network with Kokoro's interface that hums, in the folder of its ONNX release."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from lora_whisper.data.kokoro import STYLE_WIDTH

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


def toy_release(folder: Path, tokens: str = "input_ids") -> Path:
    """The folder, with two voices for texts of up to forty phonemes; `tokens` names the first input."""
    for part in ("onnx", "voices"):
        (folder / part).mkdir(parents=True)
    (folder / "onnx" / "model.onnx").write_bytes(hum(tokens).SerializeToString())
    for name, value in (("af_low", 0.5), ("bm_high", 1.5)):
        np.full((40, 1, STYLE_WIDTH), value, "<f4").tofile(folder / "voices" / f"{name}.bin")
    vocabulary = {"$": 0} | {one: place for place, one in enumerate(SPELLING, 1)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}), "utf-8")
    return folder
