"""BCP-47 tags for the names that corpora give to languages: `pl_pl`, `polish`, `cmn_hans_cn`, `Chinese`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lora_whisper.errors import UnknownLanguage
from lora_whisper.languages import WHISPER_LANGUAGES, normalize_tag

ALL = "all"

# Names that Whisper's tokenizer accepts beside those of its languages.
_OTHER_NAMES = {
    "burmese": "my",
    "castilian": "es",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "mandarin": "zh",
    "moldavian": "ro",
    "moldovan": "ro",
    "panjabi": "pa",
    "pushto": "ps",
    "sinhalese": "si",
    "valencian": "ca",
}


@dataclass(frozen=True)
class Choice:
    """A language that was asked for.

    Attributes:
        code: what the corpus calls it.
        tag: what the manifest is to call it.
    """

    code: str
    tag: str


@lru_cache(maxsize=1024)
def tag_of(code: str) -> str:
    """The shortest BCP-47 tag that means the same as a corpus's code or an English name.

    Script and region go where they are the likely ones: `pl_pl` is pl, `cmn_hans_cn` is zh, `pt_br` is pt,
    but `zh-TW` stays zh-TW and `es_419` es-419.

    Raises:
        UnknownLanguage: it is neither.
    """
    import langcodes

    named = _names().get(code.strip().casefold())
    tag = normalize_tag(named or code)
    if tag.split("-")[0] == "cmn":  # Mandarin: Whisper and most corpora say Chinese
        tag = normalize_tag("-".join(["zh", *tag.split("-")[1:]]))
    base = tag.split("-")[0]
    full = langcodes.Language.get(tag).maximize().to_tag()
    return base if full == langcodes.Language.get(base).maximize().to_tag() else tag


def is_code(name: str) -> bool:
    """Whether a folder of this name may hold a language."""
    try:
        tag_of(name)
    except UnknownLanguage:
        return False
    return True


def choose(
    requests: Sequence[str], codes: Sequence[str], corpus: str, special: Mapping[str, str] | None = None
) -> tuple[Choice, ...]:
    """The languages asked for, among the codes that a corpus has.

    A tag is found also where the corpus is more exact (`pt` finds `pt_br`) or says it differently, and the
    manifest gets the tag that was asked for; a code of the corpus becomes the tag that means the same.

    Args:
        requests: tags, codes of the corpus, or "all".
        codes: what the corpus has.
        corpus: its name, for messages.
        special: tags of codes that are none in themselves.

    Raises:
        UnknownLanguage: a language is not there, or stands for several that are.
    """
    tags = {code: (special or {}).get(code) or tag_of(code) for code in codes}
    if ALL in requests:
        return tuple(Choice(code, tag) for code, tag in tags.items())
    chosen = [_choose(request.strip(), tags, corpus, special or {}) for request in requests]
    return tuple({choice.code: choice for choice in chosen}.values())


def _choose(request: str, tags: Mapping[str, str], corpus: str, special: Mapping[str, str]) -> Choice:
    literal = {_folded(code): code for code in tags}.get(_folded(request))
    if literal and (literal in special or "_" in request or not _is_tag(request)):
        return Choice(literal, tags[literal])
    wanted = tag_of(request)
    label = wanted if "_" in request or not _is_tag(request) else normalize_tag(request)
    ordinary = {code: tag for code, tag in tags.items() if code not in special}
    found = [literal] if literal else [code for code, tag in ordinary.items() if tag == wanted]
    base = wanted.split("-")[0]
    found = found or [code for code, tag in ordinary.items() if wanted == base == tag.split("-")[0]]
    if len(found) == 1:
        return Choice(found[0], label)
    if found:
        raise UnknownLanguage(f"{corpus} has several of {request}: {', '.join(sorted(found))}; name one")
    there = ", ".join(sorted(tags)) or "no languages"
    raise UnknownLanguage(f"{corpus} has no {request}; there is {there}")


def _folded(code: str) -> str:
    return code.strip().casefold().replace("-", "_")


def _is_tag(text: str) -> bool:
    try:
        normalize_tag(text)
    except UnknownLanguage:
        return False
    return True


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    return {name.casefold(): code for code, name in WHISPER_LANGUAGES.items()} | _OTHER_NAMES
