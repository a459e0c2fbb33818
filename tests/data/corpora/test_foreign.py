"""JSON lines of NeMo, Whisper-Finetune, lhotse and of anybody."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from corpus_trees import json_lines, speech, write

from lora_whisper.data.corpora.foreign import prepare_jsonl
from lora_whisper.data.corpora.tabular import Hints
from lora_whisper.data.corpora.writer import Prepared, Target
from lora_whisper.data.manifest import TimedText, Utterance, read_manifest, write_manifest
from lora_whisper.errors import ManifestError

NEMO = {"audio_filepath": "a.wav", "text": "dzień dobry", "duration": 2.0, "lang": "pl"}
FINETUNE = {"audio": {"path": "a.wav"}, "sentence": "近几年", "language": "Chinese", "duration": 2.0}
PLAIN = {"audio": "a.wav", "text": "x", "language": "pl"}


def cut(**values: Any) -> dict[str, Any]:
    """A MonoCut as lhotse 1.x writes it."""
    supervision = {
        "id": "s",
        "recording_id": "r",
        "start": 0.0,
        "duration": 1.0,
        "channel": 0,
        "speaker": "p1",
    }
    return {
        "id": "c1",
        "start": 0.5,
        "duration": 1.0,
        "channel": 0,
        "supervisions": [supervision | {"text": "dzień dobry", "language": "Polish", "gender": "F"}],
        "recording": {
            "id": "r",
            "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
            "sampling_rate": 16000,
            "num_samples": 32000,
            "duration": 2.0,
            "channel_ids": [0],
        },
        "type": "MonoCut",
    } | values


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a.wav, two seconds long."""
    write(tmp_path / "in" / "a.wav", speech(2.0))
    return tmp_path / "in"


def prepared(folder: Path, *values: object, name: str = "m.jsonl", **hints) -> Prepared:
    path = json_lines(folder / name, *values)
    return prepare_jsonl(path, Target(folder.parent / "out", "train"), Hints(**hints))


def one(folder: Path, value: object, **hints) -> Utterance:
    return read_manifest(prepared(folder, value, **hints).manifest)[0]


def why_not(folder: Path, value: object, **hints) -> str:
    result = prepared(folder, PLAIN, value, **hints)
    assert result.utterances == 1
    assert result.skipped[0].where.startswith(f"{folder / 'm.jsonl'}:2")
    return result.skipped[0].reason


def test_nemo(folder):
    utterance = one(folder, NEMO)
    assert (utterance.text, utterance.language, utterance.duration_s) == ("dzień dobry", "pl", 2.0)


def test_nemo_offset_and_canary(folder):
    canary = {"source_lang": "pl", "target_lang": "pl", "taskname": "asr", "pnc": "yes"}
    utterance = one(folder, {"audio_filepath": "a.wav", "offset": 0.5, "duration": 1.0, "text": "x"} | canary)
    assert (utterance.start_s, utterance.duration_s, utterance.language) == (0.5, 1.0, "pl")


def test_nemo_without_text_is_empty(folder):
    result = prepared(folder, {"audio_filepath": "a.wav", "duration": 2.0}, language="pl")
    assert read_manifest(result.manifest)[0].text == ""
    assert [remark.text for remark in result.remarks] == ["without text"]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (NEMO | {"source_lang": "pl", "target_lang": "en"}, "a translation"),
        (NEMO | {"taskname": "s2t_translation"}, "a translation"),
        (NEMO | {"shard_id": 3}, "within a tar shard"),
        ({"audio_filepath": "a.wav", "text": "x"}, "no language; give --language"),
        ({"text": "x", "lang": "pl"}, "no audio file named"),
        ({"audio": "a.wav", "language": "pl"}, "no text among audio, language"),
        ([1, 2], "no JSON object"),
        ("{broken", "not JSON"),
        ('{"audio": "a.wav", "text": "\\ud800", "language": "pl"}', "half of a surrogate pair"),
        ({"audio": {"path": None}, "sentence": "x", "language": "pl"}, "no audio file named"),
        (FINETUNE | {"audio": {"path": "a.wav", "start_time": -1.5, "end_time": -0.5}}, "start -1.5 s"),
        (
            FINETUNE | {"audio": {"path": "a.wav", "start_time": 1.0, "end_time": 0.5}},
            "make no part of a file",
        ),
        (FINETUNE | {"language": "Elvish"}, "not a language tag"),
    ],
)
def test_lines_that_cannot_be_used(folder, value, complaint):
    assert complaint in why_not(folder, value)


def test_whisper_finetune(folder):
    pieces = [{"start": 0, "end": 1.4, "text": "近几年"}, {"start": 1.42, "end": 2.0, "text": "不但"}]
    utterance = one(folder, FINETUNE | {"sentences": pieces})
    assert (utterance.text, utterance.language, utterance.duration_s) == ("近几年", "zh", 2.0)
    assert utterance.segments == (TimedText(0.0, 1.4, "近几年"), TimedText(1.42, 2.0, "不但"))


def test_whisper_finetune_part_of_a_file(folder):
    utterance = one(folder, FINETUNE | {"audio": {"path": "a.wav", "start_time": 0.5, "end_time": 1.25}})
    assert (utterance.start_s, utterance.duration_s) == (0.5, 0.75)


def test_whisper_finetune_sentences_alone(folder):
    value = {key: FINETUNE[key] for key in ("audio", "language")}
    assert one(folder, value | {"sentences": [{"start": 0, "end": 1, "text": "a"}, {"end": 2}]}).text == ""
    assert one(folder, value | {"sentences": [{"start": 0, "end": 1, "text": "a b"}]}).text == "a b"


def test_lhotse(folder):
    utterance = one(folder, cut())
    assert (utterance.id, utterance.text, utterance.language) == ("c1", "dzień dobry", "pl")
    assert (utterance.start_s, utterance.duration_s, utterance.speaker) == (0.5, 1.0, "p1")
    assert utterance.segments == ()


def test_lhotse_several_supervisions_in_the_order_of_time(folder):
    parts = [
        {"start": 0.5, "duration": 0.5, "text": "świat", "language": "pl", "speaker": "b"},
        {"start": -0.1, "duration": 0.5, "text": "witaj", "language": "pl", "speaker": "a"},
    ]
    utterance = one(folder, cut(supervisions=parts))
    assert (utterance.text, utterance.speaker) == ("witaj świat", None)
    assert utterance.segments == (TimedText(0.0, 0.4, "witaj"), TimedText(0.5, 1.0, "świat"))
    chinese = [part | {"language": "zh", "text": "好"} for part in parts]
    assert one(folder, cut(supervisions=chinese, id="zh")).text == "好好"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"type": "MixedCut"}, "a MixedCut; save its audio first"),
        ({"type": "MultiCut"}, "a MultiCut"),
        ({"recording": None}, "features without a recording"),
        ({"supervisions": []}, "no supervision"),
        ({"supervisions": [{"start": 0, "duration": 1, "text": "x"}]}, "no language"),
        ({"supervisions": [{"text": "x", "language": "pl"}]}, "no cut as lhotse writes them"),
        ({"start": "soon"}, "no cut as lhotse writes them"),
        (
            {
                "supervisions": [
                    {"start": n, "duration": 1, "text": "x", "language": t}
                    for n, t in enumerate(["pl", "it"])
                ]
            },
            "several languages: it, pl",
        ),
        (
            {"recording": {"sources": [{"type": "url", "channels": [0], "source": "http://x"}]}},
            "audio of type url",
        ),
        (
            {"recording": {"sources": [{"type": "file", "channels": [0, 1], "source": "a.wav"}]}},
            "one channel of",
        ),
        (
            {
                "recording": {
                    "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
                    "transforms": [{"name": "Speed", "kwargs": {"factor": 0.9}}],
                }
            },
            "perturbed audio",
        ),
        ({"recording": {"sources": []}}, "no cut as lhotse writes them"),
    ],
)
def test_cuts_that_cannot_be_used(folder, change, complaint):
    assert complaint in why_not(folder, cut(**change))


def test_kinds_may_be_mixed_and_own_manifests_are_read(folder):
    own = write_manifest(folder / "own.jsonl", [Utterance(folder / "a.wav", "x", "pl", 0.5, 1.0, "s", "me")])
    values = [NEMO, FINETUNE, cut(), json.loads(own.read_text())]
    assert prepared(folder, *values).utterances == 4
    utterance = read_manifest(folder.parent / "out" / "train.jsonl")[-1]
    assert (utterance.id, utterance.start_s, utterance.duration_s, utterance.speaker) == ("me", 0.5, 1.0, "s")


def test_a_list_blank_lines_and_gzip(folder):
    for name, content in {
        "list.json": json.dumps([NEMO, PLAIN, 3], indent=1).encode(),
        "blank.jsonl": f"\n\n{json.dumps(NEMO)}\r\n\n{json.dumps(PLAIN)}".encode(),
        "zip.jsonl.gz": gzip.compress(f"{json.dumps(NEMO)}\n{json.dumps(PLAIN)}\n".encode()),
    }.items():
        path = write(folder / name, content)
        result = prepare_jsonl(path, Target(folder.parent / name, "train"))
        assert (result.utterances, len(result.skipped)) == (2, int(name == "list.json"))


def test_hints(folder):
    value = {"clip": "a.wav", "words": "jeden", "text": "wrong"}
    path = json_lines(folder.parent / "m" / "m.jsonl", value)
    hints = Hints(language="pl", audio="clip", text="words", root=folder)
    result = prepare_jsonl(path, Target(folder.parent / "out", "train"), hints)
    assert read_manifest(result.manifest)[0].text == "jeden"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("m.jsonl", b"\xff\xfe", "no text in UTF-8"),
        ("m.jsonl", b"[1, 2", "not JSON"),
        ("m.jsonl", b"", "it is empty"),
        ("m.jsonl.gz", b"no gzip", "cannot be read"),
        ("m.jsonl.gz", gzip.compress(b"{}" * 1000)[:-9], "cut off"),
    ],
)
def test_files_that_cannot_be_used(folder, name, content, complaint):
    path = write(folder / name, content)
    with pytest.raises(ManifestError, match=complaint):
        prepare_jsonl(path, Target(folder.parent / "out", "train"))


def test_no_file_and_a_folder(folder):
    with pytest.raises(ManifestError, match="no such file"):
        prepare_jsonl(folder / "none.jsonl", Target(folder.parent / "out", "train"))
    with pytest.raises(ManifestError, match="is a folder"):
        prepare_jsonl(folder, Target(folder.parent / "out", "train"))
