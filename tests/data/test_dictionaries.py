import pytest

from lora_whisper.data.dictionaries import capitalised


def test_names_are_capitalised_and_without_the_flags_of_their_inflection() -> None:
    english, french, polish = (set(capitalised(tag)) for tag in ("en", "fr", "pl"))
    assert {"Canada", "Aaliyah", "Mozart"} <= english
    assert {"Écosse", "Haïti"} <= french
    assert {"Łódź", "Hłasko"} <= polish  # ISO 8859-2
    for name in english | french | polish:
        assert name.isalpha() and name[0].isupper() and not name[1:].isupper()


@pytest.mark.parametrize("tag", ["en", "de", "es", "fr", "it", "pt", "pl", "nl"])
def test_each_well_covered_language_of_mini_has_some(tag: str) -> None:
    assert len(set(capitalised(tag))) > 900


def test_a_language_without_dictionary_has_none() -> None:
    assert not list(capitalised("zh"))
