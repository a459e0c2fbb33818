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
from lora_whisper.doctor.examination import cleaned, examine
from lora_whisper.doctor.faults import Kind
from lora_whisper.errors import ManifestError, UsageError
from lora_whisper.model.checkpoint import load_backbone


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


LONG_TEXT = "sto dwadzieścia trzy tysiące " * 14
PLANTED: dict[str, tuple[Kind, Plant]] = {
    "missing": (kinds.UNREADABLE, lambda rows, _: [replace(rows[0], audio=Path("none.wav")), *rows[1:]]),
    "silent": (kinds.SILENT, with_samples(np.zeros(2 * SAMPLE_RATE, np.float32))),
    "clipped": (kinds.CLIPPED, with_samples(np.clip(20 * loud(2), -1, 1))),
    "long": (kinds.TOO_LONG, with_samples(loud(31), LONG_TEXT)),
    "empty": (kinds.EMPTY_TEXT, with_text("—")),
    "fast": (kinds.TOO_FAST, with_samples(loud(1), LONG_TEXT)),
    "slow": (kinds.TOO_SLOW, with_samples(loud(29), "tak jest")),
    "script": (kinds.WRONG_SCRIPT, with_text("сто двадцать три рубля")),
    "odd": (kinds.ODD_CHARACTERS, with_text("sto&nbsp;dwadzieścia trzy")),
    "tokens": (kinds.SPECIAL_TOKENS, with_text("<|notimestamps|> sto dwadzieścia")),
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
    dropped = json.loads((tmp_path / "clean.dropped.json").read_text())["dropped"]
    assert [one["line"] for one in dropped] == [1, 2] and "empty text" in dropped[0]["faults"][0]
    with pytest.raises(UsageError, match="another name"):
        cleaned(manifest, examination, manifest)


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
