"""All checks of some manifests, in one examination; and the manifests without what is bad."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lora_whisper.data.batching import RowEncoder
from lora_whisper.data.manifest import Utterance, read_lines, write_manifest
from lora_whisper.decoding.clips import Clip
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.doctor.corpus import Item, copies, leaks, rate_faults, style_faults
from lora_whisper.doctor.faults import (
    BROKEN_LINE,
    DOUBLE_START,
    TOO_MANY_TOKENS,
    UNREADABLE,
    WRONG_LANGUAGE,
    Examination,
    Fault,
    Place,
)
from lora_whisper.doctor.recordings import listen
from lora_whisper.doctor.texts import text_faults
from lora_whisper.errors import LoraWhisperError, ManifestError, UsageError
from lora_whisper.files import write_text
from lora_whisper.languages import whisper_code
from lora_whisper.model.checkpoint import Backbone

SURE = 0.9
"""Probability of another language from which an utterance is suspect."""

_MOST_TOKENS = 448  # of every Whisper's decoder
_AROUND_TEXT = 5  # tokens: four to start with, one to end
_BLIP = np.zeros(1_600, np.float32)  # audio for rows of which only the tokens are looked at

Progress = Callable[[int, int], None]
Line = tuple[Place, Utterance | LoraWhisperError]


def examine(
    manifests: Sequence[Path],
    backbone: Backbone | None = None,
    progress: Progress | None = None,
    languages: Sequence[str] = (),
    against: Sequence[Path] = (),
) -> Examination:
    """Everything that is wrong with some manifests, each of which is a split.

    Args:
        manifests: each file once.
        backbone: counts tokens and identifies languages; None leaves these checks out.
        progress: is told how many recordings are heard, and of how many.
        languages: tags to which the examination is limited; empty for all.
        against: other splits, of which nothing is told but what the manifests share with them.

    Raises:
        ManifestError: a file cannot be read, or there is nothing in it.
    """
    lines, others = _lines(manifests), _lines(against)
    if not lines:
        raise ManifestError(f"{', '.join(map(str, manifests))}: no lines; nothing to examine")
    heard = _listened([*others, *lines], languages, progress or (lambda _done, _total: None))
    items = [item for item in heard if item.place.manifest not in against]
    known = [item for item in heard if item.place.manifest in against]
    broken = [Fault(BROKEN_LINE, place, str(row)) for place, row in lines if not isinstance(row, Utterance)]
    compared = [*rate_faults(items), *style_faults(items), *copies(items)]
    leaked = [fault for fault in leaks([*known, *items]) if fault.place.manifest not in against]
    faults = [*broken, *_alone(items), *compared, *leaked]
    if backbone is None:
        faults += _words(items)
    else:
        faults += [*_tokens(items, backbone), *_languages(items, backbone)]
    order = {place: rank for rank, (place, _) in enumerate(lines)}
    left_out = _not_done(others, known, backbone)
    return Examination(len(items), tuple(sorted(faults, key=lambda one: order[one.place])), left_out)


def _lines(manifests: Sequence[Path]) -> list[Line]:
    return [(Place(path, number), row) for path in manifests for number, row in read_lines(path)]


def _listened(lines: Sequence[Line], languages: Sequence[str], progress: Progress) -> list[Item]:
    """What is heard of each line that is an utterance in one of the languages."""
    rows = [
        (place, row)
        for place, row in lines
        if isinstance(row, Utterance) and (not languages or row.language in languages)
    ]
    heard = listen([row for _, row in rows], progress)
    return [Item(place, row, one) for (place, row), one in zip(rows, heard, strict=True)]


def _not_done(others: Sequence[Line], known: Sequence[Item], backbone: Backbone | None) -> tuple[str, ...]:
    lost = sum(not isinstance(row, Utterance) for _, row in others) + sum(map(_unreadable, known))
    lines = "1 line" if lost == 1 else f"{lost:,} lines"
    unknown = f"{lines} of the other splits cannot be read, so not compared"
    needed = "language, and the exact number of tokens, need a --backbone"
    return ((needed,) if backbone is None else ()) + ((unknown,) if lost else ())


def _alone(items: Sequence[Item]) -> Iterator[Fault]:
    """What is wrong with each utterance by itself."""
    for item in items:
        for kind, detail in (*item.heard.faults, *text_faults(item.utterance.text, item.utterance.language)):
            yield Fault(kind, item.place, detail)


def _words(items: Sequence[Item]) -> Iterator[Fault]:
    """Texts that no tokenizer makes short enough: each word takes one token at least."""
    for item in items:
        least = len(item.utterance.text.split()) + _AROUND_TEXT
        if least > _MOST_TOKENS:
            yield Fault(
                TOO_MANY_TOKENS, item.place, f"at least {least} tokens; a decoder holds {_MOST_TOKENS}"
            )


def _tokens(items: Sequence[Item], backbone: Backbone) -> Iterator[Fault]:
    """Rows that cannot be trained on: more than the decoder holds, or another start than one start token."""
    tokenizer, dims = backbone.tokenizer, backbone.model.dims
    encoder = RowEncoder(tokenizer, dims.n_mels, "dynamic", dims.n_text_ctx)
    for item in items:
        code = whisper_code(item.utterance.language)
        token = code if code and code in tokenizer.languages else tokenizer.languages[0]
        try:
            tokens = encoder.row(_BLIP, item.utterance.text, token).tokens
        except ManifestError as error:
            yield Fault(TOO_MANY_TOKENS, item.place, str(error))
            continue
        starts = tokens.count(tokenizer.sot)
        if starts != 1 or tokens[0] != tokenizer.sot:
            yield Fault(DOUBLE_START, item.place, f"{starts} start tokens; {tokens[:4]}")


def _languages(items: Sequence[Item], backbone: Backbone) -> Iterator[Fault]:
    """Utterances that the bare backbone is sure are in another of its languages."""
    codes = backbone.tokenizer.languages
    known = [item for item in items if _can_be_identified(item, codes)]
    pieces = [_clip(item) for item in known]
    for item, row in zip(known, LoraWhisper(backbone).language_probabilities(pieces, codes), strict=True):
        own, best = whisper_code(item.utterance.language), codes[int(row.argmax())]
        if best != own and row.max() >= SURE:
            yield Fault(WRONG_LANGUAGE, item.place, f"{best} with {row.max():.2f}, not {own}")


def _clip(item: Item) -> Clip:
    one = item.utterance
    return Clip(one.audio, None, one.start_s, min(one.duration_s or item.heard.duration_s, 30.0))


def _can_be_identified(item: Item, codes: Sequence[str]) -> bool:
    own = whisper_code(item.utterance.language)
    return own in codes and not _unreadable(item) and item.heard.duration_s > 0


def _unreadable(item: Item) -> bool:
    return any(kind is UNREADABLE for kind, _ in item.heard.faults)


def check_new(out: Path) -> None:
    """Raise before any work is spent if what `cleaned` writes would replace something.

    Raises:
        UsageError: one of the two files is there already, be it the manifest itself.
    """
    for path in (out, dropped_path(out)):
        if path.exists():
            raise UsageError(f"{path}: is there already and will not be overwritten; choose another name")


def dropped_path(out: Path) -> Path:
    """Where is told what a cleaned manifest left out."""
    return out.with_suffix(".dropped.jsonl")


def cleaned(manifest: Path, examination: Examination, out: Path) -> tuple[int, int]:
    """Write the lines without errors to `out`, and what was left out beside it; how many of each.

    Raises:
        UsageError: one of the two files is there already.
        ManifestError: no line would be left.
        OutputError: it cannot be written.
    """
    check_new(out)
    bad = examination.bad_places
    rows = _lines([manifest])
    kept = [row for place, row in rows if place not in bad and isinstance(row, Utterance)]
    if not kept:
        raise ManifestError(
            f"{manifest}: every line has an error, so nothing is left to write; see the report"
        )
    reasons: dict[Place, list[str]] = {}
    for one in examination.faults:
        reasons.setdefault(one.place, []).append(f"{one.kind.name}: {one.detail}")
    dropped = [place for place, _ in rows if place in bad]
    about = [{"manifest": str(one.manifest), "line": one.line, "faults": reasons[one]} for one in dropped]
    told = "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in about)
    write_text(dropped_path(out), told)  # first: no cleaned manifest without its list
    write_manifest(out, kept)
    return len(kept), len(dropped)
