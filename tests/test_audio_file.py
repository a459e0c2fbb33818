"""Reading audio files of any kind, and refusing what is none."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lora_whisper.audio import audio_duration_s, load_audio
from lora_whisper.errors import AudioError

RATE = 48_000
DURATION_S = 6.0
CODECS = {"m4a": "aac", "webm": "libopus", "mp3": "libmp3lame", "aac": "aac", "mkv": "flac"}
FORMATS = ["wav", "flac", "ogg", "opus", "aiff", *CODECS]


def signal(n_channels: int = 1) -> np.ndarray:
    """A swelling, rising tone (n, n_channels) of six seconds: no part of it looks like another."""
    t = np.arange(round(DURATION_S * RATE)) / RATE
    tone = 0.4 * np.sin(2 * np.pi * (200 + 100 * t) * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 1.7 * t))
    return np.repeat(tone[:, None], n_channels, axis=1).astype(np.float32)


def write_with_ffmpeg(path: Path, samples: np.ndarray, layout: str) -> None:
    import av

    with av.open(path, "w") as container:
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=RATE)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts = RATE, 0
        pieces = av.AudioResampler(stream.format, layout, RATE, frame_size=stream.frame_size or None)
        for piece in [*pieces.resample(frame), *pieces.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One file `a.EXT` of each format, all with the same sound."""
    path = tmp_path_factory.mktemp("formats")
    for extension in CODECS:
        write_with_ffmpeg(path / f"a.{extension}", signal(), "mono")
    for extension in ["wav", "flac", "ogg", "aiff"]:
        soundfile.write(path / f"a.{extension}", signal(), RATE)
    soundfile.write(path / "a.opus", signal(), RATE, format="OGG", subtype="OPUS")
    return path


def refusal(path: Path, *part: float) -> str:
    with pytest.raises(AudioError) as caught:
        load_audio(path, *part)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def patched(source: Path, target: Path, offset: int, new: bytes) -> Path:
    content = bytearray(source.read_bytes())
    content[offset : offset + len(new)] = new
    target.write_bytes(content)
    return target


@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_gives_the_same_sound(folder, capfd, extension):
    audio = load_audio(folder / f"a.{extension}")
    expected = load_audio(folder / "a.wav")
    assert len(audio) == pytest.approx(len(expected), abs=700)  # raw AAC keeps the codec's padding
    assert audio_duration_s(folder / f"a.{extension}") == pytest.approx(len(audio) / 16_000, abs=0.03)
    delay = 1024 * 16 // 48 if extension == "aac" else 0
    length = 90_000
    difference = audio[delay : delay + length] - expected[:length]
    assert np.sqrt(np.mean(difference**2)) < 0.03
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("start_s", [0.3, 2.0, 4.321])
def test_a_part_is_the_part_of_the_whole(folder, extension, start_s):
    path = folder / f"a.{extension}"
    whole, part = load_audio(path), load_audio(path, start_s, 1.25)
    assert len(part) == 20_000
    first = round(start_s * 16_000)
    shifts = range(-24, 25)  # Matroska counts in milliseconds
    errors = [np.abs(part[500:-500] - whole[first + s + 500 : first + s + 19_500]).max() for s in shifts]
    assert min(errors) < 0.02


@pytest.mark.parametrize("extension", FORMATS)
def test_a_part_may_reach_beyond_the_end_but_not_begin_there(folder, extension):
    path = folder / f"a.{extension}"
    assert len(load_audio(path, 5.5, 100.0)) == pytest.approx(8_000, abs=700)
    assert "start_s 9 lies beyond the end (6.0" in refusal(path, 9.0)


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_cut_off_is_refused(folder, tmp_path, capfd, extension, share):
    content = (folder / f"a.{extension}").read_bytes()
    path = tmp_path / f"cut.{extension}"
    path.write_bytes(content[: int(len(content) * share)])
    message = refusal(path)
    assert "cut off or damaged" in message or "is no audio, or damaged" in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("extension", ["flac", "mp3", "mkv"])
def test_what_is_there_of_a_file_cut_off_can_be_asked_for(folder, tmp_path, extension):
    content = (folder / f"a.{extension}").read_bytes()
    path = tmp_path / f"cut.{extension}"
    path.write_bytes(content[: len(content) // 2])
    assert len(load_audio(path, 0.5, 1.0)) == 16_000
    assert "cut off" in refusal(path, 5.5, 0.2)


def test_an_mp3_without_a_count_of_frames(folder, tmp_path):
    content = (folder / "a.mp3").read_bytes()
    assert b"Info" in content or b"Xing" in content
    path = tmp_path / "plain.mp3"
    path.write_bytes(content.replace(b"Info", b"none").replace(b"Xing", b"none"))
    assert audio_duration_s(path) == pytest.approx(DURATION_S, abs=0.1)
    assert len(load_audio(path)) == pytest.approx(DURATION_S * 16_000, abs=1600)
    assert "beyond the end (6." in refusal(path, 9.0)


def test_a_wav_and_a_flac_written_to_a_pipe_know_no_length(folder, tmp_path):
    wav = folder / "a.wav"
    where = wav.read_bytes().index(b"data") + 4
    assert len(load_audio(patched(wav, tmp_path / "a.wav", where, b"\xff" * 4))) == 96_000
    flac = folder / "a.flac"
    path = patched(flac, tmp_path / "a.flac", 21, bytes([flac.read_bytes()[21] & 0xF0, 0, 0, 0, 0]))
    assert len(load_audio(path)) == 96_000
    assert audio_duration_s(path) == pytest.approx(DURATION_S)


def test_a_header_that_announces_terabytes(folder, tmp_path):
    flac = folder / "a.flac"
    path = patched(flac, tmp_path / "a.flac", 21, bytes([flac.read_bytes()[21] | 0x0F]))
    assert "cut off or damaged" in refusal(path)


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
def test_a_damaged_sample_rate(folder, tmp_path, rate):
    path = patched(folder / "a.wav", tmp_path / "a.wav", 24, struct.pack("<I", rate))
    assert f"has a sample rate of {rate} Hz" in refusal(path)


def test_eight_channels_through_ffmpeg(tmp_path):
    write_with_ffmpeg(tmp_path / "a.m4a", signal(8), "7.1")
    assert len(load_audio(tmp_path / "a.m4a")) == pytest.approx(96_000, abs=700)


def test_channels_that_change_on_the_way(folder, tmp_path):
    write_with_ffmpeg(tmp_path / "stereo.aac", signal(2), "stereo")
    path = tmp_path / "both.aac"
    path.write_bytes((folder / "a.aac").read_bytes() + (tmp_path / "stereo.aac").read_bytes())
    assert "sample rate or channels change" in refusal(path)


def test_wrong_ranges(folder):
    path = folder / "a.wav"
    assert "start_s is -1" in refusal(path, -1)
    assert "start_s is nan" in refusal(path, float("nan"))
    assert "duration_s is 0" in refusal(path, 0, 0)
    assert "duration_s is inf" in refusal(path, 0, float("inf"))


def test_missing_folder_empty_and_pipe(tmp_path):
    assert "no such audio file" in refusal(tmp_path / "none.wav")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "empty.wav").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "empty.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert "no regular file" in refusal(tmp_path / "pipe.wav")
    assert "cannot be read" in refusal(tmp_path / ("x" * 300 + ".wav"))
    assert "cannot be read" in refusal(tmp_path / "a\0b.wav")


@pytest.mark.parametrize(
    "content",
    [
        b"These are words, not sounds.\n" * 50,
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        bytes(5_000),
        b"RIFF" + struct.pack("<I", 4) + b"WAVE",
        b"RIFF",
        b"OggS",
        b"fLaC" + bytes(60),
        b"ID3\x04\x00\x00\x00\x00\x00\x05",
        b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n",
        b"ffconcat version 1.0\nfile a.wav\n",
    ],
)
@pytest.mark.parametrize("extension", ["wav", "mp3"])
def test_what_is_no_audio(tmp_path, capfd, content, extension):
    path = tmp_path / f"a.{extension}"
    path.write_bytes(content)
    assert "damaged" in refusal(path) or "no audio" in refusal(path)
    with pytest.raises(AudioError):
        audio_duration_s(path)
    assert capfd.readouterr() == ("", "")


def test_a_film_without_sound(tmp_path):
    import av

    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    assert "holds no audio stream" in refusal(tmp_path / "a.mkv")


def test_random_damage_never_raises_anything_else(folder, tmp_path, capfd):
    rng = np.random.default_rng(0)
    for extension in FORMATS:
        content = np.frombuffer((folder / f"a.{extension}").read_bytes(), np.uint8)
        for _ in range(6):
            damaged = content[: rng.integers(1, len(content))].copy()
            where = rng.integers(0, min(len(damaged), rng.choice([100, 10_000])), size=8)
            damaged[where] = rng.integers(0, 256, size=8)
            path = tmp_path / f"a.{extension}"
            path.write_bytes(damaged.tobytes())
            for read in (load_audio, audio_duration_s):
                try:
                    read(path)
                except AudioError as error:
                    assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")
