import os
import re
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
import soundfile

from lora_whisper.data.conditions import Condition
from lora_whisper.data.domains import find_domain
from lora_whisper.data.manifest import read_manifest
from lora_whisper.data.synthetic import LANGUAGES, SyntheticSpeech, prepare_synthetic
from lora_whisper.data.texts import SPLITS, TextSource
from lora_whisper.errors import OutputError, UnknownLanguage, UsageError


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_utterance_is_a_pure_function():
    speech = SyntheticSpeech(["pl", "zh"], "train", 3, "field")
    audio, text, speaker = speech.utterance("pl", 5)
    speech.utterance("zh", 0)
    again, same_text, same_speaker = SyntheticSpeech(["pl"], "train", 3, "field").utterance("pl", 5)
    np.testing.assert_array_equal(audio, again)
    assert (text, speaker) == (same_text, same_speaker)


def test_utterance_is_the_same_in_another_process():
    code = (
        "import hashlib; from lora_whisper.data.synthetic import SyntheticSpeech as S;"
        "a, t, s = S(['da'], 'dev', 1).utterance('da', 2);"
        "print(hashlib.md5(a.tobytes() + t.encode()).hexdigest())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout != b""


def test_seed_split_index_and_domain_change_the_utterance():
    texts = {
        SyntheticSpeech(["it"], split, seed, domain).utterance("it", index)[1]
        for split in ("train", "test")
        for seed in (0, 1)
        for index in (0, 1)
        for domain in ("general", "field")
    }
    assert len(texts) == 16


@pytest.mark.parametrize("domain", ["general", "field"])
def test_splits_share_neither_text_nor_speaker_nor_variant(domain):
    made = {}
    for split in SPLITS:
        speech = SyntheticSpeech(["el"], split, 0, domain)
        made[split] = [speech.utterance("el", index)[1:] for index in range(60)]
    for one, other in combinations(SPLITS, 2):
        for part in (0, 1):
            assert not {row[part] for row in made[one]} & {row[part] for row in made[other]}
        variants = find_domain(domain).variants_of
        assert variants(one) and not set(variants(one)) & set(variants(other))


def test_domains_share_no_voice():
    assert not find_domain("general").variants & find_domain("field").variants


@pytest.mark.parametrize("domain", ["general", "field"])
def test_durations_and_levels(domain):
    speech = SyntheticSpeech(["pl", "ja", "zh", "en"], "train", 0, domain)
    clips = [speech.utterance(language, index)[0] for language in speech.languages for index in range(40)]
    durations = np.array([len(clip) / 16_000 for clip in clips])
    assert durations.min() > 0.3 and durations.max() < 15 and 1.2 < np.median(durations) < 5
    assert all(0.05 < np.abs(clip).max() <= 1 and clip.dtype == np.float32 for clip in clips)


def test_telephone_has_no_sound_outside_its_band_and_the_asked_noise():
    time_s = np.arange(16_000) / 16_000
    tones = sum(np.sin(2 * np.pi * hertz * time_s) for hertz in (100, 1000, 6000)).astype(np.float32)
    band = Condition(bands_hz=((300, 3400),)).apply(tones, np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(band))
    assert spectrum[1000] > 100 * max(spectrum[100], spectrum[6000])
    noisy = Condition(gain_db=(0, 0), snr_db=(10, 10)).apply(tones, np.random.default_rng(0))
    signal = tones * (noisy @ tones) / (tones @ tones)
    measured = 10 * np.log10(np.sum(signal**2) / np.sum((noisy - signal) ** 2))
    assert measured == pytest.approx(10, abs=0.3)


def test_prepare_writes_a_manifest_that_reads_back(tmp_path):
    seen = []
    manifest = prepare_synthetic(
        ["pl", "cy"], "dev", 3, 0, tmp_path, progress=lambda *counts: seen.append(counts)
    )
    assert manifest == tmp_path / "dev.jsonl"
    rows = read_manifest(manifest)
    assert [row.language for row in rows] == ["pl"] * 3 + ["cy"] * 3
    assert seen == [(done, 6) for done in range(1, 7)]
    speech = SyntheticSpeech(["cy"], "dev", 0)
    audio, text, speaker = speech.utterance("cy", 1)
    info = soundfile.info(rows[4].audio)
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    np.testing.assert_allclose(soundfile.read(rows[4].audio)[0], audio, atol=2 / 32768)
    assert (rows[4].text, rows[4].speaker) == (text, speaker)
    assert rows[4].duration_s == pytest.approx(len(audio) / 16_000, abs=1e-3)


def test_prepare_again_gives_the_same_bytes(tmp_path):
    for folder in ("one", "other", "one"):
        prepare_synthetic(["it"], "test", 2, 9, tmp_path / folder, "field")
    assert content(tmp_path / "one") == content(tmp_path / "other")


def test_all_faulty_languages_are_named_before_any_work(tmp_path):
    with pytest.raises(UnknownLanguage) as error:
        prepare_synthetic(["pl", "so", "qqq"], "train", 2, 0, tmp_path / "out")
    assert "so" in str(error.value) and "qqq" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["pl"], "valid", 1, 0), "train, dev, test"),
        (([], "dev", 1, 0), "no languages"),
        ((["pl"], "dev", 0, 0), "0 utterances"),
    ],
)
def test_wrong_use(tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        prepare_synthetic(*arguments, tmp_path / "out")
    with pytest.raises(UsageError, match="general or field"):
        SyntheticSpeech(["pl"], "dev", 0, "studio")
    with pytest.raises(UsageError, match="'it' is not one of pl"):
        SyntheticSpeech(["pl"], "dev", 0).utterance("it", 0)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write there"):
        prepare_synthetic(["pl"], "dev", 1, 0, tmp_path / "file" / "out")


def test_interrupted_run_leaves_no_manifest(tmp_path):
    prepare_synthetic(["pl"], "dev", 2, 0, tmp_path)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_synthetic(["pl"], "dev", 2, 1, tmp_path, progress=interrupt)
    assert not (tmp_path / "dev.jsonl").exists()


def test_at_least_sixteen_languages_among_them_those_of_the_paper():
    assert len(LANGUAGES) >= 24
    assert {"pl", "pt", "it", "zh", "da", "el", "cy", "ja"} < set(LANGUAGES)


def test_known_words_are_those_of_training_in_new_combinations():
    """Voices stay those of the split, and no text is one entry alone, which training may well have."""
    speech = SyntheticSpeech(["pl"], "test", 4, words="known")
    domain = find_domain("general")
    known, new = (
        {entry.casefold() for entry in TextSource("pl", split, domain.kinds).entries}
        for split in ("train", "test")
    )
    said = []
    for index in range(60):
        _, text, speaker = speech.utterance("pl", index)
        names = re.split(", | i ", text.casefold().rstrip("."))
        assert len(names) > 1 and any(speaker.startswith(f"pl-{one}-") for one in domain.variants_of("test"))
        said += names
    assert np.mean([name in known for name in said]) > 0.8  # others are parts, such as those of a date
    assert np.mean([name in new for name in said]) < 0.05
    with pytest.raises(UsageError, match="no 'old' words; choose one of new, known"):
        SyntheticSpeech(["pl"], "test", 4, words="old")
