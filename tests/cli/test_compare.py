"""`compare` prints a row per language, and says which utterances it left out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_results import BAD, GOOD, made_result

from lora_whisper.cli import run
from lora_whisper.evaluation.results import EvaluationResult

WORSE, BETTER = made_result(BAD), made_result(GOOD)


def compared(
    capsys: pytest.CaptureFixture[str], folder: Path, first: EvaluationResult, second: EvaluationResult
) -> tuple[int, Any, list[str]]:
    """The exit code, the JSON on stdout if any, and the lines on stderr."""
    paths = [str(one.save(folder / f"{name}.json")) for name, one in (("a", first), ("b", second))]
    code = run(["compare", *paths, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err.splitlines()


def test_json_has_a_row_per_language(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found, err = compared(capsys, tmp_path, WORSE, BETTER)
    assert (code, err, found["left_out"]) == (0, [], {"first": 0, "second": 0})
    rows = {row["language"]: row for row in found["languages"]}
    assert list(rows) == ["ar", "cy", "pl", "zh"]
    assert (rows["zh"]["unit"], rows["pl"]["unit"]) == ("character", "word")
    polish = rows["pl"]
    assert polish["utterances"] == 6
    assert polish["first"] == pytest.approx(15 / 18) and polish["second"] == 0
    assert polish["gain"] == {"rate": 1.0, "low": 1.0, "high": 1.0}
    assert polish["test"] == {"segments": 5, "z": pytest.approx(-(5**0.5)), "p": pytest.approx(2 / 2**5)}
    assert polish["p_adjusted"] == pytest.approx(4 * 2 / 2**5)
    assert set(polish["difference"]["difference"]) == {"rate", "low", "high"}


def test_the_table_is_for_reading(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    paths = [str(one.save(tmp_path / f"{row}.json")) for row, one in enumerate((WORSE, BETTER))]
    assert run(["compare", *paths]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["language", "rate", "utterances", "first"] and "p Holm" in head
    assert [row.split()[:4] for row in rows] == [
        ["ar", "WER", "6", "62.5"],  # three of four words in five of six utterances
        ["cy", "WER", "6", "69.4"],  # four of six words, and one too many
        ["pl", "WER", "6", "83.3"],
        ["zh", "CER", "6", "62.5"],
    ]
    assert "+100.0 % (+100.0 to +100.0)" in rows[2]


def test_an_error_free_first_has_no_relative_gain(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    paths = [str(one.save(tmp_path / f"{row}.json")) for row, one in enumerate((BETTER, WORSE))]
    assert run(["compare", *paths]) == 0
    polish = capsys.readouterr().out.splitlines()[3]
    assert polish.split()[:8] == ["pl", "WER", "6", "0.0", "%", "83.3", "%", "—"]
    _, found, _ = compared(capsys, tmp_path, BETTER, WORSE)
    assert found["languages"][2]["gain"] is None


def test_what_only_one_has_is_left_out_and_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    part = replace(BETTER, utterances=BETTER.utterances[:9])  # six Polish, three Welsh
    code, found, err = compared(capsys, tmp_path, WORSE, part)
    assert code == 0 and [row["utterances"] for row in found["languages"]] == [3, 6]
    assert found["left_out"] == {"first": 15, "second": 0}
    assert len(err) == 1 and "a.json" in err[0] and "left out: 15" in err[0]


@pytest.mark.parametrize(
    ("change", "message"), [({"normalizer": "raw"}, "normalised by"), ({"utterances": ()}, "in common")]
)
def test_what_cannot_be_compared_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    code, found, err = compared(capsys, tmp_path, WORSE, replace(BETTER, **change))
    assert (code, found, len(err)) == (2, None, 1)
    assert message in err[0]


def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(WORSE.save(tmp_path / "a.json"))
    assert run(["compare", path, str(tmp_path / "none.json")]) == 1
    assert "none.json" in capsys.readouterr().err
