"""`transcribe`: what is taken, how it is cut, what is written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.cli import run
from lora_whisper.data import espeak

Lora = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lora(capsys: pytest.CaptureFixture[str]) -> Lora:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two utterances, English and Polish, with pauses around them."""
    pytest.importorskip("onnxruntime", reason="needs the vad extra")
    pause = np.zeros(SAMPLE_RATE, np.float32)
    parts = [
        espeak.synthesise(text, tag, espeak.Voice(""))
        for text, tag in (("twenty seven", "en"), ("dwadzieścia siedem", "pl"))
    ]
    path = tmp_path_factory.mktemp("spoken") / "two.wav"
    soundfile.write(path, np.concatenate([pause, parts[0], pause, parts[1], pause]), SAMPLE_RATE)
    return path


def test_speech_is_found_and_each_part_has_its_language(lora: Lora, spoken: Path) -> None:
    code, out, err = lora(
        "transcribe", spoken, "--backbone", "mini", "--cut", "speech", "--languages", "en,pl", "--json"
    )
    assert code == 0, err
    (one,) = json.loads(out)["transcripts"]
    assert [part["language"] for part in one["segments"]] == ["en", "pl"]
    assert one["segments"][0]["start"] == pytest.approx(1.0, abs=0.15)
    assert all(part["end"] > part["start"] for part in one["segments"])


@pytest.mark.parametrize("cut", ["speech", "sequential"])
@pytest.mark.parametrize("extra", [["--beams", "3"], ["--timestamps"], ["--prompt", "numbers"]])
def test_options_go_with_each_way_of_cutting(lora: Lora, spoken: Path, cut: str, extra: list[str]) -> None:
    code, out, err = lora(
        "transcribe",
        spoken,
        "--backbone",
        "mini",
        "--language",
        "en",
        "--cut",
        cut,
        "--format",
        "tsv",
        *extra,
    )
    assert code == 0, err
    assert out.startswith("start\tend\ttext\tlanguage\n")


def test_windows_can_follow_speech_and_be_heard_without_the_text_before(
    lora: Lora, spoken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the vad extra")
    from lora_whisper.decoding import sequential

    heard: list[tuple[bool, bool]] = []
    real = sequential.transcribe_sequentially
    monkeypatch.setattr(
        sequential,
        "transcribe_sequentially",
        lambda *given: heard.append((given[3].previous_text, given[4] is not None)) or real(*given),
    )
    command = ("transcribe", spoken, "--backbone", "mini", "--language", "en", "--cut", "sequential")
    for extra in ((), ("--no-previous-text",), ("--follow-speech",)):
        assert lora(*command, *extra)[0] == 0
    assert heard == [(True, False), (False, False), (True, True)]


def test_folders_and_patterns(lora: Lora, speech_folder: Path, tiny_backbone_folder: Path) -> None:
    common = ("--backbone", tiny_backbone_folder, "--language", "pl", "--json")
    folder = json.loads(lora("transcribe", speech_folder, *common)[1])
    assert len(folder["transcripts"]) == 20
    above = json.loads(
        lora(
            "transcribe",
            speech_folder.parent / f"{speech_folder.name[:-1]}[{speech_folder.name[-1]}]",
            *common,
        )[1]
    )
    assert above["transcripts"] == folder["transcripts"]
    pattern = json.loads(lora("transcribe", speech_folder / "pl-[0-4].wav", *common)[1])
    assert [Path(one["audio"]).name for one in pattern["transcripts"]] == [f"pl-{i}.wav" for i in range(5)]


def test_a_stopped_batch_goes_on(
    lora: Lora, speech_folder: Path, tiny_backbone_folder: Path, tmp_path: Path
) -> None:
    command = (
        "transcribe",
        speech_folder,
        "--backbone",
        tiny_backbone_folder,
        "--language",
        "pl",
        "--output-dir",
    )
    (tmp_path / "pl-3.txt").write_text("done before")
    code, _, err = lora(*command, tmp_path, "--resume")
    assert code == 0, err
    assert len(list(tmp_path.iterdir())) == 20 and (tmp_path / "pl-3.txt").read_text() == "done before"
    assert lora(*command, tmp_path, "--resume") == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--resume"], "--output-dir"),
        (["--rescore", "0", "--cut", "speech"], "--rescore"),
        (["--beams", "0"], "beams"),
        (["--prompt", "x"], "--cut"),
        (["--no-previous-text", "--cut", "speech"], "--cut sequential"),
        (["--follow-speech", "--cut", "speech"], "--cut sequential"),
        (["--cut", "speech", "--vad", "none.onnx"], "none.onnx"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    lora: Lora, speech_folder: Path, tiny_backbone_folder: Path, arguments: list[str], told: str
) -> None:
    code, out, err = lora(
        "transcribe", speech_folder / "pl-0.wav", "--backbone", tiny_backbone_folder, *arguments
    )
    assert code in (1, 2) and not out
    assert told in err and err.count("\n") == 1


def test_an_empty_folder_is_told(lora: Lora, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "*.mp3"):
        code, _, err = lora("transcribe", place, "--backbone", "mini")
        assert code == 2 and "no audio there" in err
