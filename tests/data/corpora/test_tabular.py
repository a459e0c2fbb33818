"""CSV and TSV tables, and folders with texts beside the audio."""

from pathlib import Path

import pytest
from corpus_trees import speech, write

from lora_whisper.data.corpora.folder import prepare_from_folder
from lora_whisper.data.corpora.tabular import Hints, prepare_table
from lora_whisper.data.corpora.writer import Prepared, Target
from lora_whisper.data.manifest import Utterance, read_manifest
from lora_whisper.errors import ManifestError, UnknownLanguage


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the audio files a.wav and b.wav, half a second each."""
    for index, name in enumerate("ab"):
        write(tmp_path / "in" / f"{name}.wav", speech(0.5, index))
    return tmp_path / "in"


def prepared(path: Path, **hints) -> Prepared:
    return prepare_table(path, Target(path.parent.parent / "out", "train"), Hints(**hints))


def utterances(path: Path, **hints) -> list[Utterance]:
    return read_manifest(prepared(path, **hints).manifest)


@pytest.mark.parametrize(
    "table",
    [
        "audio,text,language\na.wav,dzień dobry,pl\nb.wav,buongiorno,it\n",
        "path;sentence;locale\na.wav;dzień dobry;pl\nb.wav;buongiorno;it\n",
        "audio_filepath|transcript|lang\na.wav|dzień dobry|pl\nb.wav|buongiorno|it\n",
        "\ufefffile_name,label,language\r\na.wav,dzień dobry,Polish\r\n\r\nb.wav,buongiorno,Italian\r\n",
    ],
)
def test_usual_names_and_separators(folder, table):
    read = utterances(write(folder / "metadata.csv", table))
    assert [(u.id, u.text, u.language) for u in read] == [
        ("a", "dzień dobry", "pl"),
        ("b", "buongiorno", "it"),
    ]


def test_all_columns(folder):
    head = "id,audio,text,start,end,speaker,gender,language\n"
    (one, two) = utterances(
        write(folder / "t.csv", f"{head}x,a.wav,t,0.1,0.3,s1,F,pl\n,a.wav,t,0.2,,s2,,pl\n")
    )
    assert (one.id, one.start_s, one.duration_s, one.speaker) == ("x", 0.1, 0.2, "s1")
    assert (two.id, two.start_s, two.duration_s) == ("a@0.2", 0.2, 0.3)


def test_hints(folder):
    table = write(folder.parent / "meta" / "t.csv", "clip,words,text\na.wav,jeden,wrong\n")
    read = prepare_table(
        table,
        Target(folder.parent / "out", "train"),
        Hints(language="pl", audio="clip", text="words", root=folder),
    )
    assert read_manifest(read.manifest)[0].text == "jeden"


def test_quoted_cells(folder):
    (one,) = utterances(write(folder / "t.csv", 'audio,text\na.wav,"raz, ""dwa""\ntrzy"\n'), language="pl")
    assert one.text == 'raz, "dwa" trzy'


def test_a_stray_quotation_mark_in_tsv_swallows_nothing(folder):
    rows = 'path\ttext\na.wav\t"otwarty cudzysłów\nb.wav\t"cały ""cytat"""\n'
    assert [u.text for u in utterances(write(folder / "t.tsv", rows), language="pl")] == [
        '"otwarty cudzysłów',
        'cały "cytat"',
    ]


def test_rows_that_cannot_be_used(folder):
    rows = "audio,text,language,start,duration\na.wav,good,pl,,\n,x,pl,,\na.wav,x,,,\na.wav,x,klingonese,,\n"
    rows += "a.wav,x,pl,soon,\na.wav,x,pl,-1,\na.wav,x,pl,0,0\na.wav,x,pl,nan,\nmissing.wav,x,pl,,\na.wav,x\n"
    result = prepared(write(folder / "t.csv", rows))
    assert result.utterances == 1
    reasons = [skip.reason for skip in result.skipped]
    assert len(reasons) == 9
    for complaint in [
        "no audio file named",
        "no language; give --language",
        "'klingonese' is not a language tag",
        "'soon' is no number of seconds",
        "start -1 s",
        "duration 0.0 s",
        "'nan' is no number",
        "missing.wav: no such audio file",
        "2 columns instead of 5",
    ]:
        assert any(complaint in reason for reason in reasons), complaint


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is empty"),
        ("foo,text\n1,2\n", "no column audio, .* for audio, only foo, text; name it with --audio-column"),
        ("audio,foo\n1,2\n", "no column text, .* for text, only audio, foo; name it with --text-column"),
        (b"audio,text\n\xff\xfe,x\n", "no table in UTF-8"),
    ],
)
def test_tables_that_cannot_be_used(folder, content, complaint):
    with pytest.raises(ManifestError, match=complaint):
        prepared(write(folder / "t.csv", content), language="pl")


def test_no_table_and_no_language(folder):
    with pytest.raises(ManifestError, match="no such"):
        prepared(folder / "none.csv")
    with pytest.raises(ManifestError, match="cannot be read"):
        prepared(folder)
    with pytest.raises(UnknownLanguage):
        prepared(write(folder / "t.csv", "audio,text\na.wav,x\n"), language="klingonese")


def from_folder(folder: Path, language: str | None = "pl") -> Prepared:
    return prepare_from_folder(folder, Target(folder.parent / "out", "train"), language)


def test_texts_beside_audio(folder):
    write(folder / "a.txt", "\ufeffdzień\r\ndobry\n")
    write(folder / "b.lab", "wieczór")
    write(folder / "deep" / "er" / "c.FLAC", speech(0.4, 3, "FLAC"))
    write(folder / "deep" / "er" / "c.txt", "noc")
    read = read_manifest(from_folder(folder).manifest)
    assert [(u.id, u.text) for u in read] == [("a", "dzień dobry"), ("b", "wieczór"), ("deep/er/c", "noc")]


def test_libri_speech(folder):
    write(folder / "19-198.trans.txt", "a DZIEŃ DOBRY\nb WIECZÓR\n")
    result = from_folder(folder)
    assert [u.text for u in read_manifest(result.manifest)] == ["DZIEŃ DOBRY", "WIECZÓR"]
    assert result.skipped == ()


def test_folders_named_after_languages(folder):
    for name, tag in (("pl", "pl"), ("pt-BR", "pt-BR"), ("welsh", "cy")):
        write(folder / name / "x.wav", speech())
        write(folder / name / "x.txt", tag)
    result = from_folder(folder, None)
    assert [(u.language, u.text) for u in read_manifest(result.manifest)] == [
        ("pl", "pl"),
        ("pt-BR", "pt-BR"),
        ("cy", "cy"),
    ]
    assert {skip.reason for skip in result.skipped} == {
        "no language; give --language, or folders named after languages"
    }


def test_one_without_the_other_is_told_of(folder):
    write(folder / "a.txt", "x")
    write(folder / "c.txt", "x")
    write(folder / "d.wav", speech())
    write(folder / "d.txt", b"\xff\xfe")
    reasons = {Path(skip.where).name: skip.reason for skip in from_folder(folder).skipped}
    assert reasons["b.wav"] == "no text beside it (b.txt)"
    assert reasons["c.txt"] == "text without audio beside it"
    assert "no text in UTF-8" in reasons["d.txt"]


def test_no_folder_and_no_audio(tmp_path):
    with pytest.raises(ManifestError, match="no such folder"):
        from_folder(tmp_path / "none")
    write(tmp_path / "in" / "a.txt", "x")
    with pytest.raises(ManifestError, match="no audio files in it"):
        from_folder(tmp_path / "in")
