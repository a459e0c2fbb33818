"""Reading audio files: libsndfile for what it does best, FFmpeg for all the rest."""

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lora_whisper.errors import AudioError

if TYPE_CHECKING:
    import soundfile

Samples = npt.NDArray[np.float32]

_SOUNDFILE_MAGIC = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM")  # of mp3, libsndfile reports on stderr
_STREAMED = 0xFFFF_FFFF - 1024  # a length that says "not known yet": written to a pipe, never filled in
_UNKNOWN_FRAMES = 2**62
_LARGEST_OGG_PAGE = 65_307
_BLOCK = 2**22  # samples
_MPEG_FRAME = 1_500  # at least one whole frame of bytes
_LENGTH_TOLERANCE_S = 0.1  # codecs pad and trim by a few frames
_SEEKABLE = {"mov", "matroska", "mp3"}  # formats of FFmpeg that seek to exact times
_RATES = (1_000, 1_000_000)  # Hz
_CRASHING_PLANES = 8
_PREROLL_S = 0.5  # lossy codecs need some packets before a seek target to settle


def read_samples(path: Path, start_s: float = 0.0, duration_s: float | None = None) -> tuple[Samples, int]:
    """The samples (channels, n) of a file or a part of it, at full scale 1, and their rate in Hz.

    Raises:
        AudioError: the file is missing, damaged, cut off or no audio, or `start_s` lies beyond its end.
    """
    _check_range(path, start_s, duration_s)
    with _opened(path) as raw, _damage_reported(path):
        file = _soundfile(raw, path)
        if file is None:
            return _read_av(raw, path, start_s, duration_s)
        return _read_soundfile(file, path, start_s, duration_s)


def file_duration_s(path: Path) -> float:
    """Length of the audio in seconds, from the header if that tells it, else from the packets.

    Raises:
        AudioError: the file cannot be read as audio.
    """
    with _opened(path) as raw, _damage_reported(path):
        file = _soundfile(raw, path)
        if file is not None:
            return float(file.frames / file.samplerate)
        with _av_container(raw, path) as container:
            declared_s = _declared_s(container, raw)
            return _packets_s(container) if declared_s is None else declared_s


def _check_range(path: Path, start_s: float, duration_s: float | None) -> None:
    if not (math.isfinite(start_s) and start_s >= 0):
        raise AudioError(f"{path}: start_s is {start_s} but must be 0 or more seconds")
    if duration_s is not None and not (math.isfinite(duration_s) and duration_s > 0):
        raise AudioError(f"{path}: duration_s is {duration_s} but must be more than 0 seconds")


def _check_rate(rate: int, path: Path) -> None:
    low, high = _RATES  # damaged headers name others, and to resample those takes minutes and gigabytes
    if not low <= rate <= high:
        raise AudioError(f"{path}: has a sample rate of {rate} Hz; use one from {low} to {high} Hz")


def _opened(path: Path) -> FileIO:
    try:
        if path.exists() and not path.is_file():
            raise AudioError(
                f"{path}: is {'a folder' if path.is_dir() else 'no regular file'}; name an audio file"
            )
        raw = path.open("rb", buffering=0)  # the decoders keep buffers of their own
    except FileNotFoundError:
        raise AudioError(f"{path}: no such audio file; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{path}: cannot be read ({reason}); check the path and its permissions") from None
    if path.stat().st_size == 0:
        raw.close()
        raise AudioError(f"{path}: is empty (0 bytes); replace the file")
    return raw


def _count(duration_s: float, rate: int) -> int:
    return max(1, round(duration_s * rate))


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Turns what the decoders raise in the midst of a file into AudioError."""
    import av
    import soundfile

    try:
        yield
    except (av.error.FFmpegError, soundfile.SoundFileError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _cut_off(path, str(reason).rstrip(".")) from None


def _cut_off(path: Path, detail: str) -> AudioError:
    return AudioError(f"{path}: is cut off or damaged ({detail}); copy or download it again")


def _beyond_end(path: Path, start_s: float, length_s: float) -> AudioError:
    return AudioError(f"{path}: start_s {start_s:g} lies beyond the end ({length_s:.2f} s); correct start_s")


def _soundfile(raw: FileIO, path: Path) -> "soundfile.SoundFile | None":
    """The file opened by libsndfile, or None if this is work for FFmpeg.

    Raises:
        AudioError: the file is shorter than it says.
    """
    import soundfile

    raw.seek(0)
    magic = raw.read(4)
    if magic not in _SOUNDFILE_MAGIC:
        return None
    missing = _missing_ogg_bytes(raw) if magic == b"OggS" else _missing_chunk_bytes(raw)
    if missing > 0:
        raise _cut_off(path, f"at least {missing} bytes are missing at its end")
    raw.seek(0)
    try:  # by its descriptor: a name may mislead (.raw), and errors in a Python object's methods get printed
        file = soundfile.SoundFile(raw.fileno(), closefd=False)
    except soundfile.SoundFileError:
        return None
    _check_rate(file.samplerate, path)
    return file if file.frames < _UNKNOWN_FRAMES else None


def _read_soundfile(
    file: "soundfile.SoundFile", path: Path, start_s: float, duration_s: float | None
) -> tuple[Samples, int]:
    rate, start = file.samplerate, round(start_s * file.samplerate)
    if start >= file.frames and start > 0:
        raise _beyond_end(path, start_s, file.frames / rate)
    wanted = file.frames - start
    if duration_s is not None:
        wanted = min(wanted, _count(duration_s, rate))
    blocks, n_read = [], 0
    with file:
        file.seek(start)
        while n_read < wanted:  # in blocks, for a damaged header may announce terabytes
            blocks.append(file.read(min(wanted - n_read, _BLOCK), dtype="float32", always_2d=True).T)
            n_read += blocks[-1].shape[1]
            if not blocks[-1].size:
                raise _cut_off(path, f"{wanted} samples announced, {n_read} there")
    return _joined(blocks), rate


def _missing_chunk_bytes(raw: FileIO) -> int:
    """How many bytes the sound chunk of a wav or aiff announces beyond the end of the file."""
    size = raw.seek(0, 2)
    raw.seek(0)
    order = ">" if raw.read(12)[:4] == b"FORM" else "<"
    while len(header := raw.read(8)) == 8:
        name, length = struct.unpack(f"{order}4sI", header)
        if name in (b"data", b"SSND"):
            return 0 if length >= _STREAMED else raw.tell() + length - size
        raw.seek(length + length % 2, 1)
    return 0


def _missing_ogg_bytes(raw: FileIO) -> int:
    """How many bytes the last page announces beyond the end of the file."""
    size = raw.seek(0, 2)
    raw.seek(max(0, size - _LARGEST_OGG_PAGE))
    tail = raw.read()
    page = tail[tail.rfind(b"OggS") :]
    n_segments = page[26] if len(page) > 26 else 0
    return 27 + n_segments + sum(page[27 : 27 + n_segments]) - len(page)


def _av_container(raw: FileIO, path: Path) -> Any:
    """An FFmpeg container with at least one audio stream, read from `raw` and from nothing else.

    Raises:
        AudioError: FFmpeg knows no such format, or it holds no audio.
    """
    import av

    raw.seek(0)
    try:  # no protocol: a playlist must not make us open other files or addresses
        container = av.open(raw, options={"protocol_whitelist": "none"})
    except (av.error.FFmpegError, ValueError):
        raise AudioError(f"{path}: is no audio, or damaged; convert it to wav, flac, mp3 or m4a") from None
    if not container.streams.audio:
        container.close()
        raise AudioError(f"{path}: holds no audio stream; name a file with sound")
    return container


def _read_av(raw: FileIO, path: Path, start_s: float, duration_s: float | None) -> tuple[Samples, int]:
    end_s = math.inf if duration_s is None else start_s + duration_s
    blocks: list[Samples] = []
    rate, begin_s, reached_s = 1, 0.0, 0.0
    with _av_container(raw, path) as container:
        declared_s = _declared_s(container, raw)
        sought = declared_s is not None and _seek(container, start_s)
        for frame in _av_frames(container, strict=declared_s is None):
            if not blocks:
                rate, begin_s = frame.sample_rate, _position_s(frame, container) if sought else 0.0
                reached_s = begin_s
            blocks.append(_channels(frame))
            reached_s += frame.samples / rate
            if reached_s >= end_s:
                break
    if blocks:
        _check_rate(rate, path)
    length_s = reached_s if declared_s is None else declared_s
    if start_s < length_s and min(length_s, end_s) - reached_s > _LENGTH_TOLERANCE_S:
        raise _cut_off(path, f"{length_s:.2f} s announced, {reached_s:.2f} s there")
    if 0 < start_s >= min(length_s, reached_s):
        raise _beyond_end(path, start_s, length_s)
    first = max(0, round((start_s - begin_s) * rate))
    last = None if duration_s is None else first + _count(duration_s, rate)
    return _joined(blocks)[:, first:last], rate


def _joined(blocks: list[Samples]) -> Samples:
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((1, 0), np.float32)


def _seek(container: Any, start_s: float) -> bool:
    """Whether the container now stands a little before `start_s` instead of at its beginning."""
    if start_s <= _PREROLL_S or not _SEEKABLE & set(container.format.name.split(",")):
        return False
    stream = container.streams.audio[0]
    container.seek(int((start_s - _PREROLL_S) / stream.time_base) + (stream.start_time or 0), stream=stream)
    return True


def _position_s(frame: Any, container: Any) -> float:
    if frame.pts is None:
        raise ValueError("packets without times")
    stream = container.streams.audio[0]
    return float(frame.pts * frame.time_base - (stream.start_time or 0) * stream.time_base)


def _channels(frame: Any) -> Samples:
    samples: Samples = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(frame.samples, -1).T


def _av_frames(container: Any, *, strict: bool) -> Iterator[Any]:
    """Decoded frames as float32, all of one rate and number of channels.

    A packet that cannot be decoded is passed over where the length will be checked, and raises
    where it will not (`strict`).
    """
    import av

    converter = kind = None
    for packet in container.demux(container.streams.audio[0]):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            if strict:
                raise
            continue
        for frame in frames:
            if converter is None:
                kind = (frame.sample_rate, frame.layout.nb_channels)
                # planar is what most codecs give, but PyAV crashes on eight planes or more
                converter = av.AudioResampler(format="fltp" if kind[1] < _CRASHING_PLANES else "flt")
            elif kind != (frame.sample_rate, frame.layout.nb_channels):
                raise ValueError("its sample rate or channels change on the way")
            yield from converter.resample(frame)


def _declared_s(container: Any, raw: FileIO) -> float | None:
    """The length that the header itself states; None if FFmpeg would only guess it from the bit rate."""
    formats = set(container.format.name.split(","))
    stream = container.streams.audio[0]
    if "mov" in formats or ("mp3" in formats and _has_mp3_length(raw)):
        return None if stream.duration is None else float(stream.duration * stream.time_base)
    if "matroska" in formats and len(container.streams) == 1 and container.duration is not None:
        return float(container.duration / 1_000_000)
    return None


def _has_mp3_length(raw: FileIO) -> bool:
    """Whether the first MPEG frame, after any ID3 tag, is one that counts the frames."""
    where = raw.tell()  # FFmpeg reads on from here
    raw.seek(0)
    header = raw.read(10)
    tag_bytes = 10 + sum(byte << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=False))
    raw.seek(tag_bytes if header[:3] == b"ID3" else 0)
    frame = raw.read(_MPEG_FRAME)
    raw.seek(where)
    return any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def _packets_s(container: Any) -> float:
    """Sum of the packets' durations: exact to a packet, and nothing is decoded."""
    stream = container.streams.audio[0]
    return float(sum(packet.duration or 0 for packet in container.demux(stream)) * stream.time_base)
