"""Planted faults are all found and none invented; what is written is clean."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.cli import run
from lora_whisper.data.manifest import Utterance, read_manifest, write_manifest
from lora_whisper.data.synthetic import prepare_synthetic
from lora_whisper.doctor import faults as kinds
from lora_whisper.doctor.corpus import Item, rate_faults
from lora_whisper.doctor.examination import cleaned, examine
from lora_whisper.doctor.faults import Kind, Place
from lora_whisper.doctor.recordings import Heard
from lora_whisper.errors import ManifestError, UsageError
from lora_whisper.model.checkpoint import load_backbone
from lora_whisper.model.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Clean speech in two languages: a training and a test manifest."""
    folder = tmp_path_factory.mktemp("corpus")
    train, test = (prepare_synthetic(["pl", "de"], split, 14, 3, folder) for split in ("train", "test"))
    return train, test


Plant = Callable[[list[Utterance], Path], list[Utterance]]


def with_text(text: str) -> Plant:
    return lambda rows, _: [replace(rows[0], text=text), *rows[1:]]


def with_samples(samples: np.ndarray, text: str | None = None) -> Plant:
    def plant(rows: list[Utterance], folder: Path) -> list[Utterance]:
        path = folder / "planted.wav"
        soundfile.write(path, samples, SAMPLE_RATE)
        length_s = len(samples) / SAMPLE_RATE
        return [replace(rows[0], audio=path, duration_s=length_s, text=text or rows[0].text), *rows[1:]]

    return plant


def loud(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


def half(rows: list[Utterance], folder: Path) -> list[Utterance]:
    """The first recording cut in two and saved again, as if that were all; the manifest does not know."""
    samples = rows[0].load()
    soundfile.write(folder / "half.wav", samples[: len(samples) // 2], SAMPLE_RATE)
    return [replace(rows[0], audio=folder / "half.wav"), *rows[1:]]


def bad_wav(rows: list[Utterance], folder: Path) -> list[Utterance]:
    """The first recording with fewer bytes than its header promises."""
    soundfile.write(folder / "bad.wav", rows[0].load(), SAMPLE_RATE)
    data = (folder / "bad.wav").read_bytes()
    (folder / "bad.wav").write_bytes(data[: len(data) // 2])
    return [replace(rows[0], audio=folder / "bad.wav"), *rows[1:]]


LONG_TEXT = "sto dwadzieścia trzy tysiące " * 14
PLANTED: dict[str, tuple[Kind, Plant]] = {
    "missing": (kinds.UNREADABLE, lambda rows, _: [replace(rows[0], audio=Path("none.wav")), *rows[1:]]),
    "damaged": (kinds.UNREADABLE, bad_wav),
    "half": (kinds.CUT_SHORT, half),
    "offset": (kinds.SILENT, with_samples(np.full(2 * SAMPLE_RATE, 0.3, np.float32))),
    "silent": (kinds.SILENT, with_samples(np.zeros(2 * SAMPLE_RATE, np.float32))),
    "clipped": (kinds.CLIPPED, with_samples(np.clip(20 * loud(2), -1, 1))),
    "long": (kinds.TOO_LONG, with_samples(loud(31), LONG_TEXT)),
    "empty": (kinds.EMPTY_TEXT, with_text("—")),
    "fast": (kinds.TOO_FAST, with_samples(loud(1), LONG_TEXT)),
    "slow": (kinds.TOO_SLOW, with_samples(loud(29), "tak jest")),
    "script": (kinds.WRONG_SCRIPT, with_text("сто двадцать три рубля")),
    "odd": (kinds.ODD_CHARACTERS, with_text("sto&nbsp;dwadzieścia trzy")),
    "tokens": (kinds.SPECIAL_TOKENS, with_text("<|notimestamps|> sto dwadzieścia")),
    "words": (kinds.TOO_MANY_TOKENS, lambda rows, _: [replace(one, text="a " * 450) for one in rows[:1]]),
    "full stop": (
        kinds.DUPLICATE,
        lambda rows, _: [*rows, replace(rows[0], text=f"{rows[0].text}..", id="b")],
    ),
    "twice": (kinds.DUPLICATE, lambda rows, _: [*rows, replace(rows[0], id="again")]),
    "two texts": (kinds.CONTRADICTION, lambda rows, _: [*rows, replace(rows[0], text="zupełnie co innego")]),
}


def found(*manifests: Path) -> dict[Kind, int]:
    examination = examine(manifests)
    return {kind: len(examination.of(kind)) for kind in examination.found if kind is not kinds.MIXED_STYLE}


def test_nothing_is_invented(corpus: tuple[Path, Path]) -> None:
    assert examine(corpus).faults == ()


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_and_nothing_else(
    corpus: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    kind, plant = PLANTED[name]
    manifest = write_manifest(tmp_path / "train.jsonl", plant(read_manifest(corpus[0]), tmp_path))
    assert found(manifest) == {kind: 1}


def test_a_broken_line_is_a_fault_among_others(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "train.jsonl", read_manifest(corpus[0]))
    manifest.write_text(manifest.read_text() + '{"audio": 7}\nnot json\n')
    examination = examine([manifest])
    assert found(manifest) == {kinds.BROKEN_LINE: 2}
    assert [one.place.line for one in examination.of(kinds.BROKEN_LINE)] == [29, 30]


def test_what_is_in_two_splits_leaks(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = (read_manifest(path) for path in corpus)
    texts = [replace(test[0], text=max((one.text for one in train), key=len), language=one.language)
             for one in train if one.text == max((one.text for one in train), key=len)][:1]  # fmt: skip
    speaker = replace(test[1], speaker=train[1].speaker)
    rows = [train[0], *texts, speaker, *test[2:]]
    manifest = write_manifest(tmp_path / "test.jsonl", rows)
    counts = found(corpus[0], manifest)
    assert counts.pop(kinds.LEAKED_AUDIO) == 1
    assert counts.pop(kinds.LEAKED_TEXT) in (
        1,
        2,
    )  # the copied recording has its text, if that is long enough
    assert counts.pop(kinds.LEAKED_SPEAKER) >= 1
    assert set(counts) <= {kinds.TOO_FAST, kinds.TOO_SLOW}


def test_silence_is_no_copy_of_silence(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    plant = with_samples(np.zeros(SAMPLE_RATE, np.float32))
    silent = [plant(read_manifest(path), tmp_path) for path in corpus]
    first, second, *others = silent[0]
    same = replace(second, audio=first.audio, duration_s=first.duration_s)
    train = write_manifest(tmp_path / "train.jsonl", [first, same, *others])
    test = write_manifest(tmp_path / "test.jsonl", silent[1])
    counts = found(train, test)
    assert counts[kinds.SILENT] == 3 and not {kinds.CONTRADICTION, kinds.LEAKED_AUDIO} & set(counts)


def test_each_corpus_has_its_own_speaker_1(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    rows = [read_manifest(path) for path in corpus]
    for tags, expected in ((("pl", "de"), 0), (("pl", "pl"), 1)):
        parts = [
            [replace(one, speaker="1") for one in some if one.language == tag]
            for some, tag in zip(rows, tags, strict=True)
        ]
        names = [write_manifest(tmp_path / f"{n}.jsonl", part) for n, part in enumerate(parts)]
        assert len(examine(names).of(kinds.LEAKED_SPEAKER)) == expected


def test_other_splits_are_only_compared_with(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    """What leaks is told of the manifest in question, whatever else is wrong with the other."""
    train, test = (read_manifest(path) for path in corpus)
    mine = write_manifest(tmp_path / "train.jsonl", [*train, replace(test[0], id="leak")])
    other = write_manifest(tmp_path / "test.jsonl", [replace(test[1], text=""), *test, *test[:1]])
    other.write_text(other.read_text() + "not json\n")
    examination = examine([mine], against=[other])
    assert examination.utterances == len(train) + 1
    assert {one.place.manifest for one in examination.faults} == {mine}
    (leak,) = examination.of(kinds.LEAKED_AUDIO)
    assert leak.place.line == len(train) + 1 and leak.detail.startswith(f"also in {other}:")
    assert any(one.startswith("1 line of the other splits") for one in examination.not_done)
    assert cleaned(mine, examination, tmp_path / "clean.jsonl") == (len(train), 1)
    assert not examine([tmp_path / "clean.jsonl"], against=[other]).of(kinds.LEAKED_AUDIO)


def test_what_other_splits_share_among_themselves_is_not_told(
    corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    train, test = corpus
    copy = write_manifest(tmp_path / "dev.jsonl", read_manifest(test))
    assert examine([train], against=[test, copy]).faults == ()


@pytest.mark.parametrize("usual", [1.0, 2.5])
def test_rates_are_judged_by_their_spread(usual: float) -> None:
    """Ten alike make four times too much; twenty that differ by much do not."""
    alike = [item(number, usual) for number in range(10)]
    spread = [item(number, usual * 2 ** (number % 5 - 2)) for number in range(20)]
    suspect = item(99, 4 * usual)
    assert [one.place.line for one in rate_faults([*alike, suspect])] == [99]
    assert list(rate_faults([*spread, suspect])) == []
    assert [one.kind for one in rate_faults([*alike, item(99, usual / 5)])] == [kinds.TOO_SLOW]


def item(line: int, pace: float) -> Item:
    """An utterance of 60 letters, and so long that it is said at `pace` times 10 letters a second."""
    utterance = Utterance(Path("a.wav"), "a" * 60, "pl")
    return Item(Place(Path("m.jsonl"), line), utterance, Heard((), 6 / pace))


@pytest.mark.parametrize(("change", "plain"), [(str.lower, True), (str.upper, True), (str, False)])
def test_a_plain_language_is_noted_once(
    corpus: tuple[Path, Path], tmp_path: Path, change: Callable[[str], str], plain: bool
) -> None:
    rows = [replace(one, text=change(one.text)) for one in read_manifest(corpus[0])]
    examination = examine([write_manifest(tmp_path / "train.jsonl", rows)])
    assert [one.detail[:3] for one in examination.of(kinds.PLAIN_STYLE)] == ["pl:", "de:"] * plain


def test_a_language_without_a_main_style_is_noted_once(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    rows = read_manifest(corpus[0])
    half_plain = [replace(one, text=one.text.lower()) if i % 2 else one for i, one in enumerate(rows)]
    examination = examine([write_manifest(tmp_path / "train.jsonl", half_plain)])
    assert [kind.name for kind in examination.found] == ["mixed style"]
    assert len(examination.faults) == 2 and "50 % lower case" in examination.faults[0].detail


def test_a_double_start_is_found(
    corpus: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_manifest(corpus[0])[:3]
    manifest, backbone = write_manifest(tmp_path / "train.jsonl", rows), load_backbone("mini")
    assert not examine([manifest], backbone).of(kinds.DOUBLE_START)
    right = Tokenizer.start_sequence
    monkeypatch.setattr(
        Tokenizer, "start_sequence", lambda self, *args, **more: [self.sot, *right(self, *args, **more)]
    )
    assert len(examine([manifest], backbone).of(kinds.DOUBLE_START)) == 3


def test_a_rare_style_is_noted(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    rows = [replace(one, text=one.text.lower()) for one in read_manifest(corpus[0])]
    shouted = [replace(rows[0], text=rows[0].text.upper()), *rows[1:]]
    examination = examine([write_manifest(tmp_path / "train.jsonl", shouted)])
    (fault,) = examination.of(kinds.MIXED_STYLE)
    assert fault.place.line == 1 and "upper case" in fault.detail


def test_another_language_and_too_many_tokens_need_a_backbone(
    corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [one for one in read_manifest(corpus[0]) if one.language == "pl"]
    wrong = [replace(one, language="es") for one in rows[:10]]
    endless = replace(rows[10], text="sto " * 500)
    manifest = write_manifest(tmp_path / "train.jsonl", [*wrong, endless, *rows[11:]])
    backbone = load_backbone("mini")
    examination = examine([manifest], backbone)
    places = {one.place.line for one in examination.of(kinds.WRONG_LANGUAGE)}
    assert len(places & set(range(1, 11))) >= 7 and not places & set(range(11, 15))
    assert [one.place.line for one in examination.of(kinds.TOO_MANY_TOKENS)] == [11]
    assert not examination.not_done and examine([manifest]).not_done


def test_a_cleaned_manifest_has_no_errors_and_says_what_is_missing(
    corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = read_manifest(corpus[0])
    bad = [replace(rows[0], text=""), replace(rows[1], audio=Path("none.wav")), *rows[2:]]
    manifest = write_manifest(tmp_path / "train.jsonl", bad)
    examination = examine([manifest])
    assert cleaned(manifest, examination, tmp_path / "clean.jsonl") == (len(rows) - 2, 2)
    assert examine([tmp_path / "clean.jsonl"]).count("error") == 0
    dropped = [json.loads(row) for row in (tmp_path / "clean.dropped.jsonl").read_text().splitlines()]
    assert [one["line"] for one in dropped] == [1, 2] and "empty text" in dropped[0]["faults"][0]
    with pytest.raises(UsageError, match="another name"):
        cleaned(manifest, examination, manifest)


@pytest.mark.parametrize("name", ["clean.jsonl", "clean.dropped.jsonl"])
def test_nothing_is_overwritten_nor_left_without_its_list(
    corpus: tuple[Path, Path], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("precious")
    assert run(["doctor", str(corpus[0]), "--fix", str(tmp_path / "clean.jsonl")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == [name] and (
        tmp_path / name
    ).read_text() == "precious"
    assert "choose another name" in capsys.readouterr().err


def test_a_manifest_of_errors_leaves_nothing_to_write(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    rows = [replace(one, text="") for one in read_manifest(corpus[0])]
    manifest = write_manifest(tmp_path / "train.jsonl", rows)
    with pytest.raises(ManifestError, match="every line has an error"):
        cleaned(manifest, examine([manifest]), tmp_path / "clean.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


def test_nothing_to_examine(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ManifestError, match="nothing to examine"):
        examine([tmp_path / "empty.jsonl"])


def test_the_command_reports_in_every_form(
    corpus: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_manifest(corpus[0])
    manifest = write_manifest(
        tmp_path / "train.jsonl",
        [replace(rows[0], text="<b>&amp;</b> <script>"), *rows[1:], replace(rows[0])],
    )
    page, clean = tmp_path / "page.html", tmp_path / "clean.jsonl"
    code = run(["doctor", str(manifest), "--json", "--html", str(page), "--fix", str(clean)])
    told = json.loads(capsys.readouterr().out)
    assert code == 1 and {one["fault"] for one in told["faults"]} >= {"odd characters", "contradiction"}
    assert (told["kept"], told["dropped"]) == (len(rows), 1)
    assert "<script>" not in page.read_text() and "contradiction" in page.read_text()
    assert run(["doctor", str(clean)]) == 0
    out = capsys.readouterr().out
    assert "odd characters" in out and "1 warning" in out
    assert run(["doctor", str(manifest), str(clean), "--fix", str(page)]) == 2
    assert run(["doctor", str(manifest), str(manifest)]) == 2
    assert (
        run(["doctor", str(manifest), "--against", f"{manifest.parent}/../{tmp_path.name}/train.jsonl"]) == 2
    )
    capsys.readouterr()
    assert run(["doctor", str(manifest), "--against", str(clean)]) == 1
    out = capsys.readouterr().out
    assert "audio in two splits" in out and f"  {manifest}:2  also in {clean}:2" in out
    assert f"  {clean}" not in out
