"""The result file survives the disk and refuses what is not one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_whisper.errors import ManifestError
from lora_whisper.evaluation.metrics import ErrorCounts
from lora_whisper.evaluation.results import EvaluationResult, Failure, UtteranceResult


def utterance(
    number: int, language: str, reference: str, hypothesis: str, predicted: str | None
) -> UtteranceResult:
    return UtteranceResult(
        str(number), language, reference, hypothesis, predicted, 1.5, f"speaker {number % 3}"
    )


RESULT = EvaluationResult(
    manifest="test.jsonl",
    backbone="mini",
    backbone_fingerprint="aa",
    adapters={"pl": "bb"},
    normalizer="lora-whisper-v1",
    git_revision=None,
    seed=7,
    package_version="0.1.0",
    utterances=(
        utterance(0, "pl", "Dzień dobry, Polsko!", "dzień dobry polska", "pl"),
        utterance(1, "pl", "tak", "tak nie", "cs"),
        utterance(2, "zh", "你好，世界", "你好世 间", "zh"),
        utterance(3, "pt-BR", "São Paulo", "são paulo", "pt"),
    ),
    failures=(Failure("lost.wav", "no such file"),),
)


def test_scores_are_counted_over_normalised_text() -> None:
    scores = RESULT.scores()
    assert list(scores) == ["pl", "pt-BR", "zh"]
    assert scores["pl"].wer_counts == ErrorCounts(hits=3, substitutions=1, insertions=1)
    assert scores["pl"].wer.rate == 0.5
    assert scores["pl"].cer_counts.reference_length == len("dzieńdobrypolsko" + "tak")
    assert (scores["zh"].unit, scores["zh"].cer.rate) == ("character", 0.25)
    assert (scores["pt-BR"].unit, scores["pt-BR"].wer.rate, scores["pt-BR"].utterances) == ("word", 0.0, 1)


def test_raw_scores_count_case_and_punctuation() -> None:
    assert replace(RESULT, normalizer="raw").scores()["pl"].wer_counts.substitutions == 3


def test_a_parent_tag_is_the_right_language() -> None:
    assert RESULT.language_id_accuracy() == 0.75
    not_asked = replace(RESULT, utterances=(replace(RESULT.utterances[0], predicted_language=None),))
    assert not_asked.language_id_accuracy() is None


def test_summary_has_the_published_keys() -> None:
    summary = RESULT.summary()
    assert summary["language_id"] == {"accuracy": 0.75}
    polish = summary["languages"]["pl"]
    assert set(polish) >= {"cer", "wer", "utterances"}
    assert set(polish["cer"]) == set(polish["wer"]) == {"rate", "low", "high"}
    assert json.loads(json.dumps(summary)) == summary


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    path = RESULT.save(tmp_path / "deep" / "result.json")
    assert EvaluationResult.load(path) == RESULT
    assert EvaluationResult.load(path).scores() == RESULT.scores()
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["scores"]["pl"]["wer_counts"] == {
        "hits": 3,
        "substitutions": 1,
        "deletions": 0,
        "insertions": 1,
    }
    assert stored["scores"]["pl"]["wer"]["rate"] == 0.5
    assert stored["utterances"][2]["reference"] == "你好，世界"


def test_how_many_beams_were_kept_is_stored_and_one_in_files_that_do_not_say(tmp_path: Path) -> None:
    path = replace(RESULT, beams=5).save(tmp_path / "result.json")
    assert EvaluationResult.load(path).beams == 5
    stored = json.loads(path.read_text(encoding="utf-8"))
    del stored["beams"]
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert EvaluationResult.load(path).beams == 1


def test_an_evaluation_of_nothing_can_be_saved(tmp_path: Path) -> None:
    nothing = replace(RESULT, utterances=())
    assert EvaluationResult.load(nothing.save(tmp_path / "r.json")) == nothing
    assert nothing.summary() == {"languages": {}, "language_id": {"accuracy": None}}


BREAK: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("has no 'format'", lambda data: data.pop("format")),
    ("its format is 'other'", lambda data: data.update(format="other")),
    ("the file has no 'seed'", lambda data: data.pop("seed")),
    ("'seed' of the file is '7'", lambda data: data.update(seed="7")),
    ("utterance 1 has no 'reference'", lambda data: data["utterances"][1].pop("reference")),
    ("'duration_s' of utterance 0 is None", lambda data: data["utterances"][0].update(duration_s=None)),
    ("'pl' of adapters is 3", lambda data: data["adapters"].update(pl=3)),
    ("failure 0 has no 'error'", lambda data: data["failures"][0].pop("error")),
    ("utterance 0 has no 'id'", lambda data: data.update(utterances=[5])),
]


@pytest.mark.parametrize(("message", "damage"), BREAK)
def test_a_damaged_file_is_named_with_its_fault(
    tmp_path: Path, message: str, damage: Callable[[dict[str, Any]], object]
) -> None:
    path = RESULT.save(tmp_path / "result.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    damage(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ManifestError, match=message) as error:
        EvaluationResult.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'"text"'])
def test_what_is_no_result_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match="not a result file") as error:
        EvaluationResult.load(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"absent\.json: cannot be read \(No such file"):
        EvaluationResult.load(tmp_path / "absent.json")
