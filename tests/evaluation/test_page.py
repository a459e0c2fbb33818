"""The page of a board: self-contained, escaped, with a player for every worst utterance that can be heard."""

import re
from pathlib import Path

import pytest
from made_results import BAD, GOOD, SAID, made_audio, made_result

from lora_whisper.evaluation.details import System
from lora_whisper.evaluation.players import MOST_CHARACTERS
from lora_whisper.evaluation.report import Similarity, board_report, to_html


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_audio(tmp_path_factory.mktemp("results") / "sound")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    systems = [
        System("bare", made_result(BAD), folder),
        System("lora <script>alert(1)</script>", made_result(GOOD, adapters={"pl": "1"}), folder),
    ]
    return to_html(board_report(systems, systems[0], n_worst=3))


def articles(page: str) -> list[str]:
    return re.findall(r"<article.*?</article>", page, re.S)


def test_nothing_is_fetched_from_anywhere(page: str) -> None:
    assert "://" not in page
    assert not re.search(r"@import|url\((?!#)|<link|<script|<iframe", page)
    assert all(
        address.startswith(("data:audio/mpeg;base64,", "#"))
        for address in re.findall(r'(?:src|href)="([^"]*)"', page)
    )


def test_hostile_text_stays_text(page: str) -> None:
    assert "lora &lt;script&gt;alert(1)&lt;/script&gt;" in page
    for text in ("<b>ci</b>", "<ki>", "<voice", "lost <i>", "alert(1)</script>"):
        assert text not in page
    for text in ("&lt;b&gt;ci&lt;/b&gt;", "&lt;voice 0&gt;", "lost &lt;i&gt;.wav"):
        assert text in page


def test_every_worst_utterance_has_a_player(page: str) -> None:
    assert len(articles(page)) == 3 * len(SAID)
    assert all("<audio controls" in article for article in articles(page))
    assert len(page) < MOST_CHARACTERS


def test_lost_sound_is_a_note(tmp_path: Path) -> None:
    page = to_html(board_report([System("bare", made_result(BAD), tmp_path)], n_worst=1))
    assert "<audio" not in page
    assert page.count("no such audio file; check the path") == len(SAID)


def test_the_worst_of_every_language_is_heard_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_whisper.evaluation import page as module

    asked: list[str] = []

    def heard(clips):
        asked.extend(clip.path.stem for clip in clips)
        return tuple(module.Player() for _ in asked)

    monkeypatch.setattr(module, "players", lambda clips: heard(list(clips)) if asked == [] else ())
    to_html(board_report([System("bare", made_result(BAD), folder)], n_worst=2))
    assert [name.split("-")[0] for name in asked] == ["ar", "cy", "pl", "zh"] * 2


def test_the_alignment_runs_as_the_language_is_written(page: str) -> None:
    for tag, way in (("ar", "rtl"), ("pl", "ltr"), ("zh", "ltr")):
        article = next(one for one in articles(page) if f"<strong>{tag}-" in one)
        assert set(re.findall(r'dir="(\w+)"', article)) == {way}


def test_every_kind_of_error_has_its_own_mark(page: str) -> None:
    welsh = next(one for one in articles(page) if "<strong>cy-0" in one)
    assert '<span class="reference">mae&#39;r</span><span class="hypothesis">may</span>' in welsh
    assert re.search(r'class="cell insert" title="insert">\s*<span class="gap">', welsh)
    polish = next(one for one in articles(page) if "<strong>pl-0" in one)
    assert re.search(
        r'class="cell delete" title="delete">\s*<span class="reference">polsko</span><span class="gap">',
        polish,
    )
    for kind, decoration in (("replace", "wavy"), ("delete", "dotted"), ("insert", "double")):
        assert re.search(rf"\.{kind} \.\w+ {{[^}}]*text-decoration: [^;]*{decoration}", page)


def test_rates_stay_apart(page: str) -> None:
    table = re.search(r'<table class="wide">.*?</table>', page, re.S)
    assert table is not None
    chinese = re.search(r"<tr>\s*<th[^>]*>Chinese.*?</tr>", table[0], re.S)
    assert chinese is not None
    assert re.findall(r">(—)<", chinese[0]) == ["—", "—"], "no word error rate without words"
    assert table[0].count("WER, mean of 3 languages") == 1
    assert "CER, mean" not in table[0]


def test_every_section_is_there_and_reached_by_its_link(page: str) -> None:
    for title in (
        "Before and after",
        "Normalisers",
        "Languages recognised",
        "By length",
        "Failures",
        "Results",
    ):
        assert re.search(rf"<h2[^>]*>{title}", page)
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page
    assert "✓ identical" in page
    assert "▼ better" in page


def test_one_system_and_a_similarity_are_enough(folder: Path) -> None:
    report = board_report([System("only", made_result(GOOD), folder)], n_worst=0)
    page = to_html(report)
    assert "Before and after" not in page
    assert "<article" not in page
    assert 'class="heat"' in page
    with_matrix = type(report)(
        report.title, "", board=report.board, similarity=Similarity(["pl"], ["cs"], [[0.5]])
    )
    assert "<h2>Similarity</h2>" in to_html(with_matrix)
    assert to_html(board_report([System("empty", made_result({}))]))
