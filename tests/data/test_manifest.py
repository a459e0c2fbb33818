"""Manifests."""

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lora_whisper.data.manifest import TimedText, Utterance, read_manifest, write_manifest
from lora_whisper.errors import AudioError, ManifestError, OutputError, UnknownLanguage

SHARED_SPEECH = Path(__file__).parents[3] / "shared" / "speech" / "manifest.jsonl"
GOOD = {"audio": "a.wav", "text": "dzień dobry", "language": "pl"}


def manifest(folder: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path = folder / "train.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def fault(path: Path, **options) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_the_shortest_line(tmp_path):
    (utterance,) = read_manifest(manifest(tmp_path, GOOD))
    assert utterance == Utterance(audio=tmp_path / "a.wav", text="dzień dobry", language="pl", id="a")


def test_every_key(tmp_path):
    row = GOOD | {
        "audio": "clips/long.flac",
        "start_s": 12.5,
        "duration_s": 3,
        "speaker": 7,
        "segments": [{"start_s": 0, "end_s": 1.5, "text": "dzień"}],
        "licence": "CC0",
    }
    (utterance,) = read_manifest(manifest(tmp_path, row))
    assert (utterance.start_s, utterance.duration_s, utterance.speaker) == (12.5, 3.0, "7")
    assert utterance.segments == (TimedText(0.0, 1.5, "dzień"),)
    assert utterance.id == "clips/long@12.5"


def test_text_becomes_nfc_and_tags_normal(tmp_path):
    decomposed = unicodedata.normalize("NFD", "zażółć")
    (utterance,) = read_manifest(manifest(tmp_path, GOOD | {"text": decomposed, "language": "pt_br"}))
    assert (utterance.text, utterance.language) == ("zażółć", "pt-BR")


def test_empty_text_is_speechless_and_allowed(tmp_path):
    assert read_manifest(manifest(tmp_path, GOOD | {"text": ""}))[0].text == ""


def test_absolute_paths_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path):
    row = json.dumps(GOOD | {"audio": "/data/x.wav"})
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{row}\r\n\r\n  \r\n{row}".encode())
    assert [utterance.audio for utterance in read_manifest(path)] == [Path("/data/x.wav")] * 2


def test_a_line_separator_within_text_does_not_end_the_line(tmp_path):
    assert read_manifest(manifest(tmp_path, GOOD | {"text": "a\u2028b\x85c"}))[0].text == "a\u2028b\x85c"


def test_missing_audio_is_the_business_of_whoever_reads_it(tmp_path):
    (utterance,) = read_manifest(manifest(tmp_path, GOOD))
    with pytest.raises(AudioError, match=r"a\.wav: no such audio file"):
        utterance.load()


def test_load_reads_the_part_that_is_meant(tmp_path):
    signal = np.linspace(-0.5, 0.5, 16_000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", signal, 16_000, subtype="FLOAT")
    (utterance,) = read_manifest(manifest(tmp_path, GOOD | {"start_s": 0.25, "duration_s": 0.5}))
    np.testing.assert_array_equal(utterance.load(), signal[4_000:12_000])


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{broken", "not JSON"),
        pytest.param("[" * 100_000, "not JSON", id="deep"),
        ("[1, 2]", "not a JSON object"),
        ("null", "not a JSON object"),
        ({"text": "x", "language": "pl"}, "`audio` is missing"),
        (GOOD | {"audio": ""}, "`audio` is empty"),
        (GOOD | {"audio": " "}, "`audio` is empty"),
        (GOOD | {"audio": "a\0b"}, "`audio` is empty or no path"),
        (GOOD | {"audio": 3}, "`audio` is not a string but 3"),
        ({"audio": "a.wav", "language": "pl"}, "`text` is missing"),
        (GOOD | {"text": None}, "`text` is not a string but null"),
        (json.dumps(GOOD | {"text": "\ud800"}), "`text` holds half of a surrogate pair"),
        ({"audio": "a.wav", "text": "x"}, "`language` is missing"),
        (GOOD | {"language": "polish"}, "did you mean pl"),
        (GOOD | {"language": ["pl"]}, "`language` is not a string"),
        (GOOD | {"start_s": -0.1}, "`start_s` is -0.1"),
        (GOOD | {"start_s": "0.1"}, '`start_s` is not a number of seconds but "0.1"'),
        (GOOD | {"start_s": True}, "`start_s` is not a number"),
        (GOOD | {"duration_s": -1}, "`duration_s` is -1 but must be positive"),
        (GOOD | {"duration_s": 0}, "`duration_s` is 0 but must be positive"),
        (GOOD | {"duration_s": float("nan")}, "`duration_s` is not a number"),
        (GOOD | {"duration_s": 10**400}, "`duration_s` is not a number"),
        (GOOD | {"speaker": ["A"]}, "`speaker` is not a string"),
        (GOOD | {"id": {}}, "`id` is not a string"),
        (GOOD | {"segments": "all"}, "`segments` is not a list"),
        (GOOD | {"segments": [{"start_s": 0, "text": "x"}]}, "without `end_s`"),
        (GOOD | {"segments": [{"start_s": 2, "end_s": 1, "text": "x"}]}, "ends before it starts"),
    ],
)
def test_faulty_lines(tmp_path, row, complaint):
    message = fault(manifest(tmp_path, GOOD, row))
    assert "1 faulty line" in message
    assert "line 2: " in message
    assert complaint in message
    assert len(message) < 400 + len(str(tmp_path))


def test_all_faulty_lines_are_counted_and_the_first_five_shown(tmp_path):
    message = fault(manifest(tmp_path, GOOD, *["{"] * 7, GOOD))
    assert "7 faulty lines" in message
    assert [f"line {number}:" in message for number in range(1, 10)] == [False, *[True] * 5, *[False] * 3]
    assert message.endswith("and 2 more")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_manifest(tmp_path, content):
    (tmp_path / "m.jsonl").write_text(content)
    assert "no utterances" in fault(tmp_path / "m.jsonl")


def test_no_manifest_a_folder_a_binary_file(tmp_path):
    assert "no such manifest" in fault(tmp_path / "none.jsonl")
    assert "is a folder" in fault(tmp_path)
    (tmp_path / "m.jsonl").write_bytes(b"RIFF\xff\xfe\x00\x01")
    assert "not UTF-8 text" in fault(tmp_path / "m.jsonl")


def test_languages_select_by_exact_normal_tag(tmp_path):
    path = manifest(tmp_path, *[GOOD | {"language": tag} for tag in ["pt-BR", "pt", "it"]])
    assert [u.language for u in read_manifest(path, languages=["pt_br", "it"])] == ["pt-BR", "it"]
    assert [u.language for u in read_manifest(path, languages=["pt"])] == ["pt"]
    assert len(read_manifest(path, languages=[])) == 3


def test_a_selection_of_nothing_names_what_there_is(tmp_path):
    path = manifest(tmp_path, *[GOOD | {"language": tag} for tag in ["pt-BR", "it"]])
    assert "no utterances in cy; it has it, pt-BR" in fault(path, languages=["cy"])
    with pytest.raises(UnknownLanguage):
        read_manifest(path, languages=["welsh"])


def test_what_is_written_is_read_back(tmp_path):
    folder = tmp_path / "corpus"
    utterances = [
        Utterance(folder / "audio" / "a.wav", "dzień dobry", "pl", id="one"),
        Utterance(
            tmp_path / "elsewhere" / "b.mp3",
            "こんにちは",
            "ja",
            start_s=0.1,
            duration_s=2.5,
            speaker="s1",
            id="two",
            segments=(TimedText(0.0, 2.5, "こんにちは"),),
        ),
    ]
    path = write_manifest(folder / "train.jsonl", utterances)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["audio"] for row in rows] == ["audio/a.wav", "../elsewhere/b.mp3"]
    assert rows[0] == {"audio": "audio/a.wav", "text": "dzień dobry", "language": "pl", "id": "one"}
    read = read_manifest(path)
    assert [u.audio.resolve() for u in read] == [u.audio for u in utterances]
    assert [u.segments for u in read] == [u.segments for u in utterances]
    assert [(u.text, u.start_s, u.duration_s, u.speaker, u.id) for u in read] == [
        (u.text, u.start_s, u.duration_s, u.speaker, u.id) for u in utterances
    ]


def test_a_corpus_may_be_moved(tmp_path):
    write_manifest(tmp_path / "old" / "m.jsonl", [Utterance(tmp_path / "old" / "a.wav", "x", "pl")])
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_manifest(tmp_path / "new" / "m.jsonl")[0].audio == tmp_path / "new" / "a.wav"


def test_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_manifest("out/m.jsonl", [Utterance(Path("out/a.wav"), "x", "pl")])
    assert read_manifest("out/m.jsonl")[0].audio == Path("out/a.wav")


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_manifest(tmp_path / "file" / "m.jsonl", [])


def test_import_needs_no_torch():
    probe = "import sys, lora_whisper.data.manifest; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_shared_human_speech_is_read_as_it_is():
    if not SHARED_SPEECH.exists():  # only beside a developer's checkout; nothing above depends on it
        return
    utterances = read_manifest(SHARED_SPEECH)
    assert len(utterances) == len(SHARED_SPEECH.read_text(encoding="utf-8").splitlines())
    assert len({utterance.id for utterance in utterances}) == len(utterances)
    german = read_manifest(SHARED_SPEECH, languages=["de"])
    assert {utterance.language for utterance in german} == {"de"}
    assert len(german[0].load()) == pytest.approx(german[0].duration_s * 16_000, abs=800)
