"""What was heard of every utterance: nobody is dropped, nobody changes places, bad files are named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
from toy_whisper import toy_backbone, toy_bank, toy_speech

from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data.manifest import Utterance
from lora_whisper.decoding.search import DecodingOptions
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.errors import UnknownLanguage, UsageError
from lora_whisper.evaluation.evaluate import evaluate, git_revision
from lora_whisper.evaluation.results import EvaluationResult
from lora_whisper.version import __version__

LENGTHS_S = (1.0, 2.5, 35.0, 0.5, 1.5, 3.0)
LANGUAGES = ("pl", "it", "pl", "it", "en", "it-CH")


@pytest.fixture(scope="module")
def asr() -> LoraWhisper:
    backbone = toy_backbone()
    return LoraWhisper(backbone, toy_bank(backbone, {"pl": 4, "it": 4}))


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory, asr: LoraWhisper) -> list[Utterance]:
    """Their texts are what the model hears, so that a row that changed places would be an error."""
    folder = tmp_path_factory.mktemp("speech")
    made = []
    for number, (length_s, language) in enumerate(zip(LENGTHS_S, LANGUAGES, strict=True)):
        path = folder / f"{number}.wav"
        soundfile.write(path, toy_speech(length_s, seed=number), SAMPLE_RATE, subtype="FLOAT")
        text = " ".join(segment.text for segment in asr.transcribe(path, language)[0])
        made.append(Utterance(path, text, language, speaker=f"s{number % 2}", id=f"u{number}"))
    assert len({one.text for one in made}) == len(made)
    return made


def test_everything_is_heard_and_in_its_place(asr: LoraWhisper, utterances: list[Utterance]) -> None:
    steps: list[tuple[int, int]] = []
    result = evaluate(asr, utterances, manifest="t.jsonl", progress=lambda *step: steps.append(step))
    assert [one.id for one in result.utterances] == [f"u{number}" for number in range(6)]
    assert all(one.hypothesis == one.reference for one in result.utterances)
    assert [one.language for one in result.utterances] == list(LANGUAGES)
    assert [one.duration_s for one in result.utterances] == list(LENGTHS_S)
    assert [one.speaker for one in result.utterances][:2] == ["s0", "s1"]
    assert steps == [(number, 6) for number in range(1, 7)]
    assert result.failures == ()
    assert {tag: score.cer.rate for tag, score in result.scores().items()} == dict.fromkeys(LANGUAGES, 0.0)


def test_an_utterance_over_30_s_is_heard_to_its_end(asr: LoraWhisper, utterances: list[Utterance]) -> None:
    (whole,) = evaluate(asr, [utterances[2]]).utterances
    (part,) = evaluate(asr, [replace(utterances[2], duration_s=20.0)]).utterances
    assert whole.duration_s == 35
    assert part.duration_s == 20
    assert len(list(asr.transcribe(utterances[2].audio, "pl")[0])) == 2
    assert whole.hypothesis != part.hypothesis


def test_bad_files_are_named_and_counted(
    asr: LoraWhisper, utterances: list[Utterance], tmp_path: Path
) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    bad = [
        replace(utterances[0], audio=tmp_path / "absent.wav"),
        replace(utterances[0], audio=tmp_path / "text.wav", duration_s=1.0),
        replace(utterances[0], language="de"),
    ]
    result = evaluate(asr, [bad[0], utterances[0], bad[1], utterances[1], bad[2]])
    assert [one.id for one in result.utterances] == ["u0", "u1"]
    assert [Path(one.audio).name for one in result.failures] == ["absent.wav", "text.wav", "0.wav"]
    assert "absent.wav" in result.failures[0].error
    assert "de: no adapter" in result.failures[2].error
    only_bad = evaluate(asr, bad)
    assert len(only_bad.failures) == 3
    assert only_bad.scores() == {}


def test_oracle_tells_and_auto_recognises(asr: LoraWhisper, utterances: list[Utterance]) -> None:
    told = evaluate(asr, utterances)
    assert told.language_id_accuracy() is None
    recognised = evaluate(asr, utterances, language="auto", languages=["it"])
    assert {one.predicted_language for one in recognised.utterances} == {"it"}
    assert recognised.language_id_accuracy() == 3 / 6  # it-CH is Italian too
    free = evaluate(asr, utterances, language="auto")
    for utterance, one in zip(utterances, free.utterances, strict=True):
        assert one.predicted_language == asr.transcribe(utterance.audio)[1].language
    with pytest.raises(UnknownLanguage):
        evaluate(asr, utterances, language="auto", languages=["de"])


def test_the_bare_backbone_hears_otherwise(asr: LoraWhisper, utterances: list[Utterance]) -> None:
    """The adapters exist, but nobody is routed to them."""
    result = evaluate(LoraWhisper(asr.backbone), utterances)
    equal = [one.hypothesis == one.reference for one in result.utterances]
    assert equal[4]  # English has no adapter
    assert not any(equal[:4])
    assert result.adapters == {}


def test_the_result_says_what_was_used(asr: LoraWhisper, utterances: list[Utterance], tmp_path: Path) -> None:
    result = evaluate(asr, utterances[:2], manifest="m.jsonl", normalizer="raw")
    assert (result.manifest, result.backbone, result.normalizer) == ("m.jsonl", "toy", "raw")
    assert result.backbone_fingerprint == asr.backbone.fingerprint
    assert result.adapters == {adapter.tag: adapter.fingerprint for adapter in asr.bank}
    assert result.package_version == __version__
    path = result.save(tmp_path / "result.json")
    assert EvaluationResult.load(path) == result
    summary = json.loads(json.dumps(result.summary()))
    assert set(summary["languages"]) == {"pl", "it"}
    assert summary["languages"]["pl"]["cer"]["rate"] == 0


def test_options_reach_the_search(asr: LoraWhisper, utterances: list[Utterance]) -> None:
    (one,) = evaluate(asr, utterances[:1], options=DecodingOptions(max_tokens=1)).utterances
    assert len(one.hypothesis) <= 1


def test_a_wrong_normalizer_is_found_before_the_work(asr: LoraWhisper, utterances: list[Utterance]) -> None:
    with pytest.raises(UsageError, match="nosuch"):
        evaluate(asr, utterances, normalizer="nosuch", progress=lambda *_: pytest.fail("work was done"))


def test_nothing_to_evaluate(asr: LoraWhisper) -> None:
    result = evaluate(asr, [])
    assert (result.utterances, result.failures) == ((), ())


def test_the_revision_is_that_of_this_checkout_or_unknown() -> None:
    revision = git_revision()
    assert revision is None or len(revision) == 40
