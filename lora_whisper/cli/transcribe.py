"""`transcribe`: from audio files to text, subtitles or JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_whisper.cli.console import print_json, progress, say
from lora_whisper.cli.options import (
    FILE,
    AdapterOptions,
    BackboneOptions,
    OutputOptions,
    backbone_options,
    beams_option,
    candidates_option,
    decoding_adapters_options,
    gathered,
    output_options,
)
from lora_whisper.errors import UsageError
from lora_whisper.files import prepare_folder, write_text
from lora_whisper.languages import normalize_tag

if TYPE_CHECKING:
    from lora_whisper.decoding.activity import Activity
    from lora_whisper.decoding.clips import Clip
    from lora_whisper.decoding.longform import LongFormOptions
    from lora_whisper.decoding.transcribe import LoraWhisper, Outcome
    from lora_whisper.decoding.transcript import Transcript

FORMATS = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "tsv": ".tsv"}
"""Output formats and the suffix of their files."""

SOUNDS = frozenset(str.split(".wav .flac .mp3 .ogg .opus .m4a .mp4 .webm .aac .wma .aiff .mkv .mov"))
"""Suffixes of what is taken from a folder."""


@dataclass(frozen=True)
class SearchOptions:
    """How audio is cut and decoded."""

    cut: str
    beams: int
    timestamps: bool
    words: bool
    prompt: str
    forget: bool
    follow: bool
    pack: float
    rescore: int
    unknown: Any
    vad: Path | None

    def longform(self) -> "LongFormOptions":
        """The same as a value.

        Raises:
            UsageError: a value is out of range.
        """
        from lora_whisper.decoding.longform import LongFormOptions
        from lora_whisper.decoding.search import DecodingOptions

        if self.forget and self.cut != "sequential":
            raise UsageError("--no-previous-text needs --cut sequential; elsewhere there is no text before")
        if self.follow and self.cut != "sequential":
            raise UsageError("--follow-speech needs --cut sequential; --cut speech does it anyway")
        if self.rescore < 1 or self.pack < 0:
            raise UsageError("--rescore must be 1 or more, and --pack 0 or more seconds")
        return LongFormOptions(
            DecodingOptions(beams=self.beams, timestamps=self.timestamps),
            packed_s=self.pack,
            rescore=self.rescore,
            unknown=self.unknown,
            words=self.words,
            previous_text=not self.forget,
            initial_prompt=self.prompt,
        )

    def activity(self) -> "Activity":
        """What tells speech from everything else.

        Raises:
            MissingExtra: the extra `vad` is not installed.
            CheckpointError: the file cannot be used.
        """
        from lora_whisper.decoding.activity import SileroActivity

        return SileroActivity(self.vad)


search_options = gathered(
    "search",
    SearchOptions,
    click.option(
        "--cut",
        type=click.Choice(["pauses", "speech", "sequential"]),
        default="pauses",
        help="pauses: one language a file, cut where it is quiet. speech: stretches of speech, each in its "
        "own language (needs the vad extra). sequential: Whisper's own way, window after window.",
    ),
    beams_option,
    click.option("--timestamps", is_flag=True, help="Segments by Whisper's timestamps, within each window."),
    click.option("--words", is_flag=True, help="The time of each word, in JSON."),
    click.option("--prompt", default="", help="Text to go before what is said: names, spelling, style."),
    click.option(
        "--no-previous-text",
        "forget",
        is_flag=True,
        help="With --cut sequential, hear each window without the text before it, whose errors may spread.",
    ),
    click.option(
        "--follow-speech",
        "follow",
        is_flag=True,
        help="With --cut sequential, leave no speech out that a text breaks off before, and do not listen to "
        "silence (needs the vad extra).",
    ),
    click.option(
        "--pack",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="With --cut speech, hear neighbours in one language together, up to this length.",
    ),
    click.option(
        "--rescore", type=int, default=1, help="With --cut speech, decode so many languages; keep the best."
    ),
    click.option(
        "--unknown",
        type=click.Choice(["nearest", "bare", "refuse"]),
        default="nearest",
        help="With --cut speech, other languages: as the nearest, by the bare backbone, or no text.",
    ),
    click.option("--vad", type=FILE, metavar="FILE", help="silero_vad_16k_sequence.onnx, if not installed."),
)


@dataclass(frozen=True)
class TranscriptOptions:
    """How transcripts are written."""

    form: str
    output_dir: Path | None
    resume: bool
    line_width: int | None
    line_count: int | None

    def rendered(self, transcript: "Transcript") -> str:
        """The transcript in its format, with one line end."""
        from lora_whisper.decoding import transcript as writers

        layout = writers.Layout(self.line_width, self.line_count)
        text = {
            "text": lambda: writers.to_text(transcript),
            "json": lambda: writers.to_json(transcript),
            "srt": lambda: writers.to_srt(transcript, layout),
            "vtt": lambda: writers.to_vtt(transcript, layout),
            "tsv": lambda: writers.to_tsv(transcript),
        }[self.form]()
        return text.rstrip("\n") + "\n"

    def path(self, audio: Path) -> Path | None:
        """Where the transcript of a file goes; None for stdout."""
        return None if self.output_dir is None else self.output_dir / f"{audio.stem}{FORMATS[self.form]}"


transcript_options = gathered(
    "written",
    TranscriptOptions,
    click.option(
        "--format", "form", type=click.Choice(list(FORMATS)), default="text", help="Of the transcripts."
    ),
    click.option("--output-dir", type=FILE, metavar="DIR", help="Write files there.  [default: stdout]"),
    click.option("--resume", is_flag=True, help="Leave out audio whose file is in --output-dir already."),
    click.option("--line-width", type=click.IntRange(1), help="Most characters of a line of subtitles."),
    click.option("--line-count", type=click.IntRange(1), help="Most lines of a subtitle."),
)


@click.command()
@click.argument("audio", type=FILE, nargs=-1, required=True)
@backbone_options
@decoding_adapters_options
@click.option("--language", default="auto", metavar="auto|TAG", help="auto: recognised by the bare backbone.")
@candidates_option
@search_options
@transcript_options
@output_options
def transcribe(
    audio: tuple[Path, ...],
    backbone: BackboneOptions,
    adapters: AdapterOptions,
    language: str,
    candidates: tuple[str, ...],
    search: SearchOptions,
    written: TranscriptOptions,
    output: OutputOptions,
) -> int:
    """Transcribe AUDIO: files, folders, patterns such as '*.mp3'.

    They may be in any mixture of languages. A file that cannot be used is reported, and the others go on.
    """
    files = _files(audio)
    if len(files) > 1 and written.form != "text" and written.output_dir is None and not output.as_json:
        raise UsageError(
            f"several files as {written.form} need --output-dir (or --json for one object with all of them)"
        )
    if written.resume and written.output_dir is None:
        raise UsageError("--resume needs --output-dir, where the finished transcripts are")
    _check_names(files, written.output_dir)
    longform, tag = search.longform(), None if language == "auto" else normalize_tag(language)
    if written.resume:
        files = [path for path in files if not (written.path(path) or path).exists()]
    from lora_whisper.decoding.clips import Clip

    asr = adapters.recogniser(backbone)
    clips = [Clip(path, tag) for path in files]
    outcomes: dict[int, Outcome] = {}
    with progress("transcribing", not output.no_progress) as advance:
        for outcome in _outcomes(asr, clips, candidates, search, longform):
            outcomes[outcome.index] = outcome
            advance(len(outcomes), len(files))
            place = written.path(files[outcome.index])
            if place is not None and outcome.transcript is not None:
                write_text(place, written.rendered(outcome.transcript))
    return _tell(files, outcomes, written, output)


def _outcomes(
    asr: "LoraWhisper",
    clips: "Sequence[Clip]",
    candidates: tuple[str, ...],
    search: SearchOptions,
    longform: "LongFormOptions",
) -> "Iterator[Outcome]":
    """What becomes of each clip, cut as asked."""
    if search.cut == "speech":
        from lora_whisper.decoding.by_speech import transcribe_by_speech

        return transcribe_by_speech(asr, clips, search.activity(), candidates or None, longform)
    if search.cut == "sequential":
        from lora_whisper.decoding.sequential import transcribe_sequentially

        followed = search.activity() if search.follow else None
        return transcribe_sequentially(asr, clips, candidates or None, longform, followed)
    if search.prompt or search.timestamps or search.words:
        raise UsageError("--prompt, --timestamps and --words need --cut speech or --cut sequential")
    return asr.transcribe_batch(clips, candidates or None, longform.decoding)


def _tell(
    files: Sequence[Path], outcomes: "dict[int, Outcome]", written: TranscriptOptions, output: OutputOptions
) -> int:
    """Print what was not written, and what failed; the exit code."""
    from lora_whisper.decoding.transcript import to_dict

    ordered = [(path, outcomes[index]) for index, path in enumerate(files)]
    failures = [{"audio": str(path), "error": str(one.error)} for path, one in ordered if one.error]
    transcripts = [one.transcript for _, one in ordered if one.transcript is not None]
    for failure in failures:
        say(f"error: {failure['error']}")
    if output.as_json:
        print_json({"transcripts": [to_dict(one) for one in transcripts], "failures": failures})
    elif written.output_dir is None:
        for transcript in transcripts:
            if len(files) > 1:
                click.echo(f"{transcript.audio} ({transcript.language}):")
            click.echo(written.rendered(transcript), nl=False)
    return 1 if failures else 0


def _files(audio: Sequence[Path]) -> list[Path]:
    """The files that are meant: those of folders by their suffixes, those of patterns by name.

    Raises:
        UsageError: a folder or pattern has none.
    """
    files: list[Path] = []
    for path in audio:
        pattern = next((part for part in path.parts if set(part) & set("*?[")), None)
        if pattern is not None and not path.exists():
            place = path.parts.index(pattern)
            matches = sorted(Path(*path.parts[:place]).glob(str(Path(*path.parts[place:]))))
        else:
            matches = [path]
        found = [file for match in matches for file in (_sounds(match) if match.is_dir() else [match])]
        if not found:
            raise UsageError(f"{path}: no audio there; name files, a folder that holds some, or a pattern")
        files += found
    return list(dict.fromkeys(files))


def _sounds(folder: Path) -> list[Path]:
    """The audio files of a folder and of those below it."""
    return sorted(one for one in folder.rglob("*") if one.suffix.lower() in SOUNDS and one.is_file())


def _check_names(audio: Sequence[Path], folder: Path | None) -> None:
    """Refuse an output folder that cannot be written, and files that would overwrite each other there."""
    if folder is None:
        return
    prepare_folder(folder)
    seen: dict[str, Path] = {}
    for path in audio:
        if seen.setdefault(path.stem, path) != path:
            raise UsageError(f"{seen[path.stem]} and {path} would both be written to {folder / path.stem}.*")
