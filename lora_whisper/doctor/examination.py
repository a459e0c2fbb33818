"""All checks of some manifests, in one examination; and the manifests without what is bad."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lora_whisper.data.manifest import Utterance, read_lines, write_manifest
from lora_whisper.decoding.clips import Clip
from lora_whisper.decoding.transcribe import LoraWhisper
from lora_whisper.doctor.corpus import Item, copies, leaks, rate_faults, style_faults
from lora_whisper.doctor.faults import (
    BROKEN_LINE,
    TOO_MANY_TOKENS,
    UNREADABLE,
    WRONG_LANGUAGE,
    Examination,
    Fault,
    Place,
)
from lora_whisper.doctor.recordings import listen
from lora_whisper.doctor.texts import text_faults
from lora_whisper.errors import ManifestError, UsageError
from lora_whisper.files import write_json
from lora_whisper.languages import whisper_code
from lora_whisper.model.checkpoint import Backbone

SURE = 0.9
"""Probability of another language from which an utterance is suspect."""

Progress = Callable[[int, int], None]


def examine(
    manifests: Sequence[Path],
    backbone: Backbone | None = None,
    progress: Progress | None = None,
    languages: Sequence[str] = (),
) -> Examination:
    """Everything that is wrong with some manifests, each of which is a split.

    Args:
        manifests: each file once.
        backbone: counts tokens and identifies languages; None leaves these checks out.
        progress: is told how many recordings are heard, and of how many.
        languages: tags to which the examination is limited; empty for all.

    Raises:
        ManifestError: a file cannot be read, or there is nothing in it.
    """
    lines = [(Place(path, number), row) for path in manifests for number, row in read_lines(path)]
    if not lines:
        raise ManifestError(f"{', '.join(map(str, manifests))}: no lines; nothing to examine")
    broken = [Fault(BROKEN_LINE, place, str(row)) for place, row in lines if not isinstance(row, Utterance)]
    rows = [
        (place, row)
        for place, row in lines
        if isinstance(row, Utterance) and (not languages or row.language in languages)
    ]
    heard = listen([row for _, row in rows], progress or (lambda _done, _total: None))
    items = [Item(place, row, one) for (place, row), one in zip(rows, heard, strict=True)]
    compared = [*rate_faults(items), *style_faults(items), *copies(items), *leaks(items)]
    faults = [*broken, *_alone(items), *compared]
    left_out: tuple[str, ...] = ()
    if backbone is None:
        left_out = ("tokens and language need a --backbone",)
    else:
        faults += [*_tokens(items, backbone), *_languages(items, backbone)]
    order = {place: rank for rank, (place, _) in enumerate(lines)}
    return Examination(len(rows), tuple(sorted(faults, key=lambda one: order[one.place])), left_out)


def _alone(items: Sequence[Item]) -> Iterator[Fault]:
    """What is wrong with each utterance by itself."""
    for item in items:
        for kind, detail in (*item.heard.faults, *text_faults(item.utterance.text, item.utterance.language)):
            yield Fault(kind, item.place, detail)


def _tokens(items: Sequence[Item], backbone: Backbone) -> Iterator[Fault]:
    """Texts that the decoder cannot hold beside its start sequence and the end."""
    tokenizer, most = backbone.tokenizer, backbone.model.dims.n_text_ctx
    around = len(tokenizer.start_sequence(tokenizer.languages[0])) + 1
    for item in items:
        count = len(tokenizer.encode(f" {item.utterance.text}")) + around
        if count > most:
            yield Fault(TOO_MANY_TOKENS, item.place, f"{count} tokens; the decoder holds {most}")


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
    kinds = {kind for kind, _ in item.heard.faults}
    own = whisper_code(item.utterance.language)
    return own in codes and not kinds & {UNREADABLE} and item.heard.duration_s > 0


def cleaned(manifest: Path, examination: Examination, out: Path) -> tuple[int, int]:
    """Write the lines without errors to `out`, and what was left out beside it; how many of each.

    Raises:
        UsageError: `out` is the manifest itself.
        OutputError: it cannot be written.
    """
    if out.resolve() == manifest.resolve():
        raise UsageError(f"{out}: is the manifest itself; choose another name for the cleaned one")
    bad = examination.bad_places
    rows = [(Place(manifest, number), row) for number, row in read_lines(manifest)]
    kept = [row for place, row in rows if place not in bad and isinstance(row, Utterance)]
    reasons: dict[Place, list[str]] = {}
    for one in examination.faults:
        reasons.setdefault(one.place, []).append(f"{one.kind.name}: {one.detail}")
    dropped = [{"line": place.line, "faults": reasons[place]} for place, _ in rows if place in bad]
    write_manifest(out, kept)
    write_json(out.with_suffix(".dropped.json"), {"manifest": str(manifest), "dropped": dropped})
    return len(kept), len(dropped)
