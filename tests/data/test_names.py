import pytest

from lora_whisper.data.names import names


def test_names_are_in_the_language_and_without_what_explains_them():
    english, french, dutch = (set(names(tag)) for tag in ("en", "fr", "nl"))
    assert {"Swahili", "Bulu", "Cameroon", "Bayern"} <= english
    assert {"Bavière", "Danois"} <= french
    assert {"Oekraïne", "Lublin"} <= dutch
    assert not any(mark in name for name in english | french for mark in "(),;")
    assert len(english) > 10_000 < len(french)


def test_what_has_no_translation_is_left_out():
    assert "Bulu" in set(names("en")) - set(names("pt"))
    assert set(names("tlh")) == set()


@pytest.mark.parametrize("tag", ["pt", "es"])
def test_languages_with_few_translations_still_have_many_names(tag: str):
    assert len(set(names(tag))) > 900
