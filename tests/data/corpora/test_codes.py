"""Language tags for what corpora call their languages."""

import pytest

from lora_whisper.data.corpora.codes import Choice, choose, is_code, tag_of
from lora_whisper.errors import UnknownLanguage

FLEURS = ["cmn_hans_cn", "cy_gb", "es_419", "nb_no", "pl_pl", "pt_br", "yue_hant_hk"]
COMMON_VOICE = ["pl", "pt", "rm-sursilv", "rm-vallader", "sv-SE", "zh-CN", "zh-TW"]


@pytest.mark.parametrize(
    ("code", "tag"),
    [
        ("pl_pl", "pl"),
        ("pt_br", "pt"),
        ("cmn_hans_cn", "zh"),
        ("yue_hant_hk", "yue"),
        ("es_419", "es-419"),
        ("zh-CN", "zh"),
        ("zh-TW", "zh-TW"),
        ("sv-SE", "sv"),
        ("nan-tw", "nan-TW"),
        ("polish", "pl"),
        ("Chinese", "zh"),
        ("Mandarin", "zh"),
        ("tagalog", "fil"),
        ("fil_ph", "fil"),
        ("javanese", "jv"),
    ],
)
def test_codes_become_tags(code, tag):
    assert tag_of(code) == tag


def test_what_is_no_language():
    with pytest.raises(UnknownLanguage):
        tag_of("klingonese")
    assert not any(map(is_code, ["data", "audio", "clips", "train"]))


@pytest.mark.parametrize(
    ("request_", "codes", "chosen"),
    [
        ("pl", FLEURS, Choice("pl_pl", "pl")),
        ("pl_pl", FLEURS, Choice("pl_pl", "pl")),
        ("pl-PL", FLEURS, Choice("pl_pl", "pl-PL")),
        ("pt", FLEURS, Choice("pt_br", "pt")),
        ("pt-BR", FLEURS, Choice("pt_br", "pt-BR")),
        ("es", FLEURS, Choice("es_419", "es")),
        ("zh", FLEURS, Choice("cmn_hans_cn", "zh")),
        ("Welsh", FLEURS, Choice("cy_gb", "cy")),
        ("zh", COMMON_VOICE, Choice("zh-CN", "zh")),
        ("zh-TW", COMMON_VOICE, Choice("zh-TW", "zh-TW")),
        ("sv", COMMON_VOICE, Choice("sv-SE", "sv")),
        ("sv-SE", COMMON_VOICE, Choice("sv-SE", "sv-SE")),
        ("pl", ["german", "polish"], Choice("polish", "pl")),
        ("polish", ["german", "polish"], Choice("polish", "pl")),
    ],
)
def test_the_manifest_gets_the_tag_that_was_asked_for(request_, codes, chosen):
    assert choose([request_], codes, "X") == (chosen,)


def test_all_and_twice_the_same():
    assert choose(["all"], ["pl_pl", "cy_gb"], "X") == (Choice("pl_pl", "pl"), Choice("cy_gb", "cy"))
    assert choose(["pl", "pl_pl"], FLEURS, "X") == (Choice("pl_pl", "pl"),)


def test_a_special_code_is_taken_only_by_its_own_name():
    special = {"en_accented": "en"}
    codes = ["en", "en_accented"]
    assert choose(["en"], codes, "X", special) == (Choice("en", "en"),)
    assert choose(["en_accented"], codes, "X", special) == (Choice("en_accented", "en"),)
    with pytest.raises(UnknownLanguage):
        choose(["en"], ["en_accented"], "X", special)


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ("it", "X has no it; there is pl, pt"),
        ("rm", "several of rm: rm-sursilv, rm-vallader"),
        ("pt-PT", "no pt-PT"),
    ],
)
def test_what_is_not_there_or_not_clear(request_, complaint):
    with pytest.raises(UnknownLanguage, match=complaint):
        choose([request_], COMMON_VOICE, "X")
