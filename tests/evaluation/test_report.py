"""A report says what the results say, in one file that needs nothing else."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lora_whisper.errors import MissingExtra, OutputError, UsageError
from lora_whisper.evaluation.report import (
    LearningCurve,
    Report,
    Similarity,
    Unchanged,
    compare,
    examples,
    to_html,
    to_markdown,
    write_report,
)
from lora_whisper.evaluation.results import EvaluationResult, UtteranceResult

TEXTS = {
    "pl": ("Dzień dobry, Polsko!", "dzeń dobra posko", "dzień dobry polsko"),
    "zh": ("你好，世界！", "尼好是", "你好世间"),
    "cy": ("Mae'r ci <b>yn</b> fawr", "may ki in vaur", "mae'r ci yn mawr"),
}


def result(heard: int) -> EvaluationResult:
    return EvaluationResult(
        manifest="test.jsonl",
        backbone="mini",
        backbone_fingerprint="aa",
        adapters={},
        normalizer="lora-whisper-v1",
        git_revision=None,
        seed=0,
        package_version="0.1.0",
        utterances=tuple(
            UtteranceResult(f"{tag}-{n}", tag, texts[0], texts[heard], tag, 1.0, f"voice {n}")
            for tag, texts in TEXTS.items()
            for n in range(8)
        ),
    )


BEFORE, AFTER = result(1), result(2)
SAME = Unchanged("backbone", "0a" * 32, "0a" * 32, True)


def report(**changes: object) -> Report:
    full = Report(
        title="Three languages <i>",
        introduction="Speech & text.",
        languages=compare(
            BEFORE, AFTER, new={"cy"}, adapter_parameters={"pl": 811008, "zh": 811008, "cy": 811008}
        ),
        curves=[
            LearningCurve("pl", [0, 1], [2.0, 1.0], [0.9, 0.2]),
            LearningCurve("cy", [0, 1], [3.0, 1.0], [1.0, 0.4]),
        ],
        similarity=Similarity(["pl", "cy"], ["pl", "zh"], [[0.9, 0.1], [0.7, 0.3]], {"cy": "pl"}),
        unchanged=[SAME, replace(SAME, name="adapters/pl", logits_equal=None)],
        examples=examples(BEFORE, AFTER),
        environment={"seed": "0", "pipe": "a|b"},
    )
    return replace(full, **changes)  # type: ignore[arg-type]


class Page(HTMLParser):
    """Collects the tags of a page, its addresses and its text, and fails on a wrongly closed tag."""

    VOID = ("meta", "br", "link", "img", "input", "use", "path")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_compare_puts_new_languages_last_and_finds_the_gain() -> None:
    rows = compare(BEFORE, AFTER, new={"cy"})
    assert [(row.tag, row.new, row.unit) for row in rows] == [
        ("pl", False, "word"),
        ("zh", False, "character"),
        ("cy", True, "word"),
    ]
    assert (rows[0].before.wer.rate, rows[0].after.wer.rate, rows[0].change.difference.rate) == (
        1.0,
        0.0,
        -1.0,
    )
    assert rows[0].change.p_value < 0.01
    assert rows[1].change.difference.rate == pytest.approx(0.25 - 0.75)


@pytest.mark.parametrize(
    "other", [replace(AFTER, utterances=AFTER.utterances[1:]), replace(AFTER, normalizer="raw")]
)
def test_results_of_different_tests_are_not_compared(other: EvaluationResult) -> None:
    for function in (compare, examples):
        with pytest.raises(UsageError, match="cannot be compared"):
            function(BEFORE, other)


def test_the_verdict_follows_the_numbers() -> None:
    assert report().verdict() == (
        "The character error rate fell in 3 of 3 languages, "
        "in 3 with the whole 95 % interval below the one before. "
        "All 2 files that must not change are byte-identical."
    )
    worse = report(languages=compare(AFTER, BEFORE), unchanged=[SAME]).verdict()
    assert "fell in 0 of 3 languages, in 0 with" in worse
    assert worse.endswith("byte-identical, and so are the logits computed with them.")
    assert report(languages=(), unchanged=()).verdict() == ""


@pytest.mark.parametrize("bad", [replace(SAME, hash_after="0b" * 32), replace(SAME, logits_equal=False)])
def test_a_change_is_never_hidden(bad: Unchanged) -> None:
    broken = report(unchanged=[SAME, bad])
    assert not bad.holds
    assert "CHANGED, though nothing may change: backbone." in broken.verdict()
    assert "✗ backbone" in to_markdown(broken)
    assert "✗ different" in Page(to_html(broken)).text


def test_markdown_has_every_rate_and_no_broken_cell() -> None:
    text = to_markdown(report())
    lines = text.splitlines()
    polish = next(line for line in lines if line.startswith("| Polish"))
    assert polish.split(" | ")[3:5] == ["100.0 % (100.0–100.0)", "0.0 % (0.0–0.0)"]
    chinese = next(line for line in lines if line.startswith("| Chinese"))
    assert chinese.split(" | ")[1:7] == [
        "characters",
        "8",
        "—",
        "—",
        "75.0 % (75.0–75.0)",
        "25.0 % (25.0–25.0)",
    ]
    assert "Welsh (cy), new" in text
    assert "| pipe | a\\|b |" in lines


def test_the_page_is_self_contained_well_formed_and_escaped() -> None:
    html = to_html(report())
    page = Page(html)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "script" not in page.tags
    assert "i" not in page.tags
    assert "Three languages <i>" in page.text
    assert "Mae'r ci <b>yn</b> fawr" in page.text


def test_the_page_shows_every_section() -> None:
    text = Page(to_html(report())).text
    for words in ("Error rates", "Learning", "Similarity", "What did not change", "Examples", "Environment"):
        assert words in text
    assert "Welsh cy new" in text
    assert "Chinese zh †" in text
    assert "811,008" in text
    assert "✓ identical ✓ equal" in text


def test_empty_sections_are_left_out() -> None:
    page = Page(to_html(Report("Nothing yet", "No results.")))
    assert "svg" not in page.tags
    assert "table" not in page.tags
    assert to_markdown(Report("Nothing yet", "No results.")) == "# Nothing yet\n\nNo results.\n"


def test_examples_mark_what_was_misheard() -> None:
    html = to_html(report())
    assert "dzień dobry polsko" in html
    assert "<del>dzień</del> <ins>dzeń</ins> <del>dobry</del> <ins>dobra</ins>" in html
    assert "你好世<del>界</del><ins>间</ins>" in html
    many = examples(BEFORE, AFTER, per_language=3)
    assert [example.language for example in many].count("zh") == 3


def test_clips_are_inside_the_page_and_a_lost_one_is_a_note(tmp_path: Path) -> None:
    clip = tmp_path / "a.wav"
    soundfile.write(clip, np.zeros(16000, np.float32), 16000)
    heard = examples(BEFORE, AFTER, audio={"pl-0": clip, "zh-0": tmp_path / "lost.wav"})
    page = Page(to_html(report(examples=heard)))
    addresses = [address for address in page.addresses if address.startswith("data:")]
    assert len(addresses) == 1
    assert addresses[0].startswith("data:audio/mpeg;base64,")
    assert page.text.count("no audio:") == 1
    assert "lost.wav: no such audio file" in page.text


def test_reports_are_written_by_their_ending(tmp_path: Path) -> None:
    assert (
        write_report(report(), tmp_path / "new" / "r.html")
        .read_text(encoding="utf-8")
        .startswith("<!DOCTYPE")
    )
    assert write_report(report(), tmp_path / "r.md").read_text(encoding="utf-8").startswith("# Three")
    with pytest.raises(UsageError, match=r"\.html or \.md"):
        write_report(report(), tmp_path / "r.pdf")
    with pytest.raises(OutputError):
        write_report(report(), tmp_path / "r.md" / "r.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "r.md"]


def test_a_page_can_always_be_written_and_parsed(tmp_path: Path) -> None:
    strange = report(title="half a pair \ud800, bell \x07, nothing \x00")
    text = write_report(strange, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "half a pair \ufffd, bell \ufffd, nothing \ufffd" in text


def test_a_cosine_below_zero_has_no_broken_colour() -> None:
    html = to_html(report(similarity=Similarity(["pl"], ["cy", "zh"], [[-0.25, 1.5]])))
    assert "--share: 0%" in html
    assert "--share: 100%" in html
    assert "-25.0" in html


def test_without_jinja2_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtra, match=r"lora-whisper\[demo\]"):
        to_html(report())


def test_scoring_and_reports_import_neither_torch_nor_the_extras() -> None:
    modules = (
        "evaluation.normalizers evaluation.metrics evaluation.results evaluation.report cli.report "
        "decoding.transcript"
    )
    program = (
        "import importlib, sys\n"
        f"for name in {modules.split()!r}: importlib.import_module('lora_whisper.' + name)\n"
        "print(sorted({'torch', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
