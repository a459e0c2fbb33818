"""Making the manifest: whole or not at all, nothing twice, nothing lost without a word."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from corpus_trees import speech, write

from lora_whisper.data.corpora import inspection
from lora_whisper.data.corpora.items import Blob, Entry, Expected, Skip, limited
from lora_whisper.data.corpora.writer import Prepared, Remark, Target, Work, write_corpus
from lora_whisper.data.manifest import TimedText, read_manifest
from lora_whisper.errors import ManifestError, OutputError


def entry(name: str, seconds: float = 0.5, **values) -> Entry:
    audio = Blob(f"{name}.wav", speech(seconds, sum(name.encode())))
    return Entry(**{"id": name, "audio": audio, "text": f"to {name}", "language": "pl"} | values)


def prepared(out: Path, *items, request: str = "R", **options) -> Prepared:
    target = Target(out, "test", options.pop("overwrite", False))
    return write_corpus([items], request, target, Work(jobs=2, **options))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths
    }


def test_bytes_are_written_as_they_are_and_recorded(tmp_path):
    one, two = entry("a", speaker="s1", gender="female", sentence="7"), entry("b", 0.7)
    result = prepared(tmp_path, Expected(2), one, two)
    assert (tmp_path / "audio" / "test" / "pl" / "a.wav").read_bytes() == one.audio.data
    read = read_manifest(result.manifest)
    assert [(u.id, u.text, u.language, u.speaker, u.duration_s) for u in read] == [
        ("a", "to a", "pl", "s1", 0.5),
        ("b", "to b", "pl", None, 0.7),
    ]
    assert len(read[0].load()) == 8_000
    lines = (tmp_path / "records" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[0])
    assert record["sha256"] == hashlib.sha256(one.audio.data).hexdigest()
    assert (record["gender"], record["sentence"], record["size"]) == ("female", "7", len(one.audio.data))
    summary = json.loads((tmp_path / "records" / "test.json").read_text(encoding="utf-8"))
    assert summary["manifest_sha256"] == hashlib.sha256(result.manifest.read_bytes()).hexdigest()
    assert summary["amounts"] == [{"language": "pl", "utterances": 2, "hours": 0.0003}]


def test_files_in_place_are_not_copied(tmp_path):
    path = write(tmp_path / "in" / "a.flac", speech(0.5, 1, "FLAC"))
    result = prepared(tmp_path / "out", entry("a", audio=path))
    assert read_manifest(result.manifest)[0].audio.resolve() == path
    assert not (tmp_path / "out" / "audio").exists()


def test_again_touches_no_audio(tmp_path):
    kept = write(tmp_path / "in.wav", speech())
    items = [entry("a"), entry("b"), entry("c", audio=kept)]
    first = prepared(tmp_path / "out", *items)
    before = contents(tmp_path / "out" / "audio")
    again = prepared(tmp_path / "out", *items)
    assert contents(tmp_path / "out" / "audio") == before
    assert (first.reused, again.reused) == (0, 3)
    assert read_manifest(again.manifest) == read_manifest(first.manifest)


@pytest.mark.parametrize("damage", ["change", "cut", "remove"])
def test_a_file_that_was_damaged_since_is_written_anew(tmp_path, damage):
    prepared(tmp_path, entry("a"), entry("b"))
    path = tmp_path / "audio" / "test" / "pl" / "a.wav"
    good = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(good[:-2] + (b"xx" if damage == "change" else b""))
    assert prepared(tmp_path, entry("a"), entry("b")).reused == 1
    assert path.read_bytes() == good


def test_a_file_in_place_that_changed_is_measured_anew(tmp_path):
    path = write(tmp_path / "a.wav", speech(0.5))
    prepared(tmp_path / "out", entry("a", audio=path))
    write(path, speech(0.8))
    os.utime(path, ns=(1, 1))
    result = prepared(tmp_path / "out", entry("a", audio=path))
    assert (result.reused, read_manifest(result.manifest)[0].duration_s) == (0, 0.8)


def test_a_run_that_was_stopped_goes_on(tmp_path):
    def broken():
        yield from (entry(name) for name in "abcdefgh")
        raise ManifestError("the archive is cut off")

    with pytest.raises(ManifestError, match="cut off"):
        write_corpus([broken()], "R", Target(tmp_path, "test"), Work(jobs=1))
    assert not (tmp_path / "test.jsonl").exists()
    done = len((tmp_path / "records" / "test.jsonl").read_text().split())
    assert done > 0
    record = tmp_path / "records" / "test.jsonl"
    record.write_text(record.read_text() + '{"id": "z", "audio": "../au')  # as a kill leaves it
    result = prepared(tmp_path, *(entry(name) for name in "abcdefghi"))
    assert result.utterances == 9
    assert result.reused >= 4
    assert all(json.loads(line) for line in record.read_text().splitlines())


def test_what_cannot_be_read_is_skipped_with_the_reason_and_leaves_no_file(tmp_path):
    broken = entry("b", audio=Blob("b.wav", b"no sound"))
    gone = entry("c", audio=tmp_path / "c.wav")
    result = prepared(tmp_path / "out", entry("a"), broken, gone, Skip("x.tsv:4", "3 columns instead of 7"))
    reasons = {skip.where: skip.reason for skip in result.skipped}
    assert sorted(reasons) == ["b", "c", "x.tsv:4"]
    assert "no audio, or damaged" in reasons["b"]
    assert "no such audio file" in reasons["c"]
    assert [path.name for path in (tmp_path / "out" / "audio").rglob("*.wav")] == ["a.wav"]
    summary = json.loads((tmp_path / "out" / "records" / "test.json").read_text())
    assert len(summary["skipped"]) == 3


def test_only_decoding_finds_what_the_header_does_not_tell(tmp_path):
    flac = bytearray(speech(3.0, 1, "FLAC"))
    flac[len(flac) // 2 : len(flac) // 2 + 400] = bytes(400)
    damaged = entry("b", audio=Blob("b.flac", bytes(flac)))
    assert prepared(tmp_path, entry("a"), damaged).utterances == 2
    decoded = prepared(tmp_path, entry("a"), damaged, decode=True)
    assert decoded.utterances + len(decoded.skipped) == 2
    assert decoded.reused == 0  # a header that was read is not enough for --decode
    assert prepared(tmp_path, entry("a"), decode=True).reused == 1


def test_long_empty_and_odd_utterances_are_kept_and_counted(tmp_path):
    result = prepared(
        tmp_path, entry("a", 31.0), entry("b", text=""), entry("c", note="odd"), entry("d", note="odd")
    )
    assert result.utterances == 4
    assert set(result.remarks) == {Remark("longer than 30 s", 1), Remark("without text", 1), Remark("odd", 2)}


def test_parts_of_a_file(tmp_path):
    path = write(tmp_path / "a.wav", speech(2.0))
    pieces = (TimedText(0.0, 0.5, "to"),)
    result = prepared(
        tmp_path / "out",
        entry("a", audio=path, start_s=0.5, duration_s=0.5, segments=pieces),
        entry("b", audio=path, start_s=1.5),
        entry("c", audio=path, start_s=1.5, duration_s=0.55),
        entry("d", audio=path, start_s=1.5, duration_s=3.0),
        entry("e", audio=path, start_s=2.5),
    )
    read = read_manifest(result.manifest)
    assert [(u.start_s, u.duration_s) for u in read] == [(0.5, 0.5), (1.5, 0.5), (1.5, 0.5), (1.5, 0.5)]
    assert read[0].segments == pieces
    assert result.remarks == (Remark("reaching beyond the end of the audio", 1),)
    assert "lies beyond the end (2.00 s)" in result.skipped[0].reason


def test_names_are_made_to_differ_and_stay_within_the_folder(tmp_path):
    names = ["../../x.wav", "/X.wav", "a b:c*.wav", "", ".wav"]
    evil = [Blob(name, speech(0.4, n)) for n, name in enumerate(names)]
    result = prepared(tmp_path / "out", *(entry("same", audio=blob) for blob in evil))
    read = read_manifest(result.manifest)
    assert [u.id for u in read] == ["same", "same-2", "same-3", "same-4", "same-5"]
    folder = tmp_path / "out" / "audio" / "test" / "pl"
    assert [u.audio.name for u in read][:4] == ["x.wav", "X-2.wav", "a_b_c.wav", "same-4.wav"]
    assert {u.audio.parent for u in read} == {folder}
    assert len({u.audio for u in read}) == 5
    assert [u.audio.read_bytes() for u in read] == [blob.data for blob in evil]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_another_manifest_is_not_lost(tmp_path):
    prepared(tmp_path, entry("a"), request="FLEURS pl")
    with pytest.raises(OutputError, match="made from FLEURS pl; give another --out, or --overwrite"):
        prepared(tmp_path, entry("b"), request="FLEURS it")
    assert read_manifest(tmp_path / "test.jsonl")[0].id == "a"
    prepared(tmp_path, entry("b"), request="FLEURS it", overwrite=True)
    assert read_manifest(tmp_path / "test.jsonl")[0].id == "b"


def test_a_manifest_of_other_origin_is_not_lost_either(tmp_path):
    write(tmp_path / "test.jsonl", "{}")
    with pytest.raises(OutputError, match="made from something else"):
        prepared(tmp_path, entry("a"))


def test_nothing_usable_is_an_error_and_no_manifest(tmp_path):
    with pytest.raises(ManifestError, match="nothing there can be used: it is empty"):
        prepared(tmp_path)
    with pytest.raises(ManifestError, match=r"x:1: broken \(and 1 more\)"):
        prepared(tmp_path, Skip("x:1", "broken"), Skip("x:2", "broken"))
    assert not (tmp_path / "test.jsonl").exists()


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inspection.Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        prepared(tmp_path, entry("a"))
    assert not list(tmp_path.rglob("*.wav*"))


def test_the_limit_holds_for_each_language_and_reads_no_further(tmp_path):
    def endless(language: str):
        yield Expected(10**6)
        for index in range(10**6):
            yield entry(f"{language}{index}", language=language)

    seen: list[tuple[int, int]] = []
    result = write_corpus(
        [endless("pl"), endless("it")],
        "R",
        Target(tmp_path, "test"),
        Work(limit=3),
        lambda done, total: seen.append((done, total)),
    )
    assert [(amount.language, amount.utterances) for amount in result.amounts] == [("pl", 3), ("it", 3)]
    assert seen[-1] == (6, 6)


def test_limited_passes_everything_without_a_limit():
    items = [Expected(2), entry("a"), Skip("x", "y"), entry("b")]
    assert list(limited(items, None)) == items
    assert list(limited(items, 1)) == [Expected(1), items[1]]


def test_few_bytes_are_held_at_a_time(tmp_path):
    alive: list[int] = [0]
    most: list[int] = [0]

    class Counted(bytes):
        def __new__(cls, data: bytes):
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            return super().__new__(cls, data)

        def __del__(self):
            alive[0] -= 1

    data = speech(0.3)
    items = (entry(f"u{n}", audio=Blob(f"u{n}.wav", Counted(data))) for n in range(60))
    write_corpus([items], "R", Target(tmp_path, "test"), Work(jobs=2))
    assert most[0] <= 12
