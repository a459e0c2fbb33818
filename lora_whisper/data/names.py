"""Names of languages, scripts, countries and their parts, for pre-training: far more than CLDR has.

They are those of ISO 639-3, 639-5, 15924, 3166-1, 3166-2 and 3166-3, translated in Debian's iso-codes, as the
`pycountry` package has them.
"""

import gettext
import re
from collections.abc import Iterator

from lora_whisper.data.extras import optional_module

_STANDARDS = {
    "languages": "iso639-3",
    "language_families": "iso639-5",
    "scripts": "iso15924",
    "countries": "iso3166-1",
    "historic_countries": "iso3166-3",
    "subdivisions": "iso3166-2",
}
"""Databases of `pycountry` and the domains of their translations."""
_LOCALES = {"pt": ["pt", "pt_BR"]}
_BETWEEN = re.compile(r"\s*[,;:/()\[\]–]\s*")


class _Untranslated(gettext.NullTranslations):
    """Nothing for what the translators left out."""

    def gettext(self, message: str) -> str:  # noqa: ARG002 - the interface
        return ""


def names(language: str) -> Iterator[str]:
    """Names as the language writes them; "Arabic (Egypt)" and "Arabic, Egypt" are two each.

    Raises:
        MissingExtra: the `pretrain` extra is not installed.
    """
    pycountry = optional_module("pycountry", "pretrain")
    for database, domain in _STANDARDS.items():
        translation = _translation(language, domain, pycountry.LOCALES_DIR)
        for one in getattr(pycountry, database):
            yield from filter(None, _BETWEEN.split(translation.gettext(one.name)))


def _translation(language: str, domain: str, folder: str) -> gettext.NullTranslations:
    if language == "en":
        return gettext.NullTranslations()
    wanted = _LOCALES.get(language, [language])
    found = gettext.translation(domain, folder, wanted, fallback=True)
    if type(found) is gettext.NullTranslations:
        return _Untranslated()
    found.add_fallback(_Untranslated())
    return found
