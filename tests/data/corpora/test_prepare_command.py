"""`lora-whisper prepare`: what it prints, where, and with which exit code."""

import json

import pytest
from corpus_trees import (
    common_voice_tree,
    fleurs_tree,
    json_lines,
    mls_tree,
    speech,
    voxpopuli_tree,
    write,
)

from lora_whisper.cli import run
from lora_whisper.data.manifest import read_manifest


@pytest.fixture
def prepare(capsys):
    """Runs `prepare` in this process; gives exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run(["prepare", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_every_public_corpus(prepare, tmp_path):
    for command, tree, split in (
        ("fleurs", fleurs_tree, "test"),
        ("mls", mls_tree, "9hr"),
        ("common-voice", common_voice_tree, "train"),
        ("voxpopuli", voxpopuli_tree, "test"),
    ):
        source = tree(tmp_path / command)
        out = tmp_path / "out" / command
        code, printed, err = prepare(
            command, "--language", "pl", "--split", split, "--source", source, "--out", out
        )
        assert code == 0, err
        assert printed == f"{out / split}.jsonl\n"
        assert f"{split}.jsonl: pl 3 in 0.00 h; 0 were there already" in err
        assert len(read_manifest(out / f"{split}.jsonl", languages=["pl"])) == 3


def test_all_splits_by_default_and_one_json_object(prepare, tmp_path):
    source = mls_tree(mls_tree(tmp_path / "mls"), "mls_italian")
    (source / "mls_italian" / "test" / "audio" / "100" / "7" / "100_7_000000.flac").unlink()
    code, out, _ = prepare(
        "mls", "--language", "pl,it", "--source", source, "--out", tmp_path / "out", "--json"
    )
    splits = json.loads(out)["splits"]
    assert code == 0
    assert list(splits) == ["train", "dev", "test"]
    assert splits["train"]["languages"]["it"]["utterances"] == 6
    assert splits["test"]["utterances"] == 3
    assert "no such audio file" in splits["test"]["skipped"][0]["reason"]


def test_texts_of_fleurs(prepare, tmp_path):
    source = fleurs_tree(tmp_path / "fleurs")
    options = ("--language", "pl", "--split", "test", "--source", source)
    prepare("fleurs", *options, "--out", tmp_path / "a")
    prepare("fleurs", *options, "--out", tmp_path / "b", "--text", "transcription")
    texts = [read_manifest(tmp_path / name / "test.jsonl")[0].text for name in "ab"]
    assert texts == ["Wszyscy mówią: „dzień dobry”.", "wszyscy mówią dzień dobry"]


def test_what_is_skipped_is_said_in_few_lines(prepare, tmp_path):
    write(tmp_path / "a.wav", speech())
    rows = "".join(f"missing-{n}.wav,x\n" for n in range(9))
    table = write(tmp_path / "t.csv", f"audio,text\na.wav,x\n{rows}")
    code, _, err = prepare("csv", table, "--language", "pl", "--out", tmp_path / "out")
    lines = err.splitlines()
    assert code == 0
    assert sum(line.startswith("skipped: ") for line in lines) == 5
    assert lines[-1] == f"skipped 9 in all; {tmp_path / 'out' / 'records' / 'train.json'} lists them"


def test_ones_own_files(prepare, tmp_path):
    write(tmp_path / "in" / "pl" / "a.wav", speech())
    write(tmp_path / "in" / "pl" / "a.txt", "jeden")
    write(tmp_path / "in" / "t.tsv", "audio\ttext\tlanguage\npl/a.wav\tjeden\tpl\n")
    json_lines(tmp_path / "in" / "m.json", {"audio_filepath": "pl/a.wav", "text": "jeden", "lang": "pl"})
    for command in ("folder", "tsv", "jsonl"):
        path = tmp_path / "in" / {"folder": "", "tsv": "t.tsv", "jsonl": "m.json"}[command]
        code, _, err = prepare(command, path, "--split", "dev", "--out", tmp_path / command)
        assert code == 0, err
        assert read_manifest(tmp_path / command / "dev.jsonl")[0].text == "jeden"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["fleurs", "--source", "."], 2, "--language"),
        (["fleurs", "--language", "pl", "--split", "9hr"], 2, "9hr"),
        (["fleurs", "--language", "pl", "--source", "/none"], 1, "/none: no such folder"),
        (["common-voice", "--language", "pl"], 1, "download it and give --source FOLDER"),
        (["csv", "/none.csv"], 1, "no such"),
        (["mls", "--language", "pl", "--jobs", "0"], 2, "--jobs"),
    ],
)
def test_wrong_use_and_missing_corpora(prepare, arguments, code, complaint):
    result = prepare(*arguments)
    assert (result[0], result[1]) == (code, "")
    assert complaint in result[2]
    assert len(result[2].strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "tree", "split", "utterances"),
    [("fleurs", fleurs_tree, "test", 3), ("mls", mls_tree, "test", 2)],
)
def test_from_the_published_tree_to_scores(
    prepare, tmp_path, tiny_backbone_folder, capsys, command, tree, split, utterances
):
    """The zero-shot commands of recipes/paper.md, with a toy for a model."""
    source = tree(tmp_path / "corpus")
    prepare(command, "--language", "pl", "--split", split, "--source", source, "--out", tmp_path / "out")
    manifest, result = tmp_path / "out" / f"{split}.jsonl", tmp_path / "result.json"
    options = ["--backbone", tiny_backbone_folder, "--language", "oracle", "--normalizer", "whisper-basic"]
    assert run(list(map(str, ["evaluate", manifest, *options, "--out", result, "--json"]))) == 0
    scores = json.loads(capsys.readouterr().out)["languages"]["pl"]
    assert scores["utterances"] == utterances
    assert scores["wer"]["rate"] > 0
    assert result.is_file()
