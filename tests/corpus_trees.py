"""Small corpora in the layouts in which the real ones are published."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile
from toy_whisper import toy_speech

from lora_whisper.audio import SAMPLE_RATE

SENTENCES = ("Wszyscy mówią: „dzień dobry”.", "Łódź ma 10 ulic, prawda?", "To jest trzecie zdanie.")


def speech(seconds: float = 0.5, seed: int = 0, kind: str = "WAV") -> bytes:
    """An audio file, as its bytes."""
    file = io.BytesIO()
    subtype = "OPUS" if kind == "OPUS" else None
    samples = toy_speech(seconds, seed)
    soundfile.write(file, samples, SAMPLE_RATE, format="OGG" if kind == "OPUS" else kind, subtype=subtype)
    return file.getvalue()


def write(path: Path, content: bytes | str) -> Path:
    """A file with all its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar archive, gzipped if it is named so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def parquet(path: Path, rows: Sequence[Mapping[str, Any]], group: int = 2) -> Path:
    """A parquet file as data sets on the Hub have it: audio is a struct of bytes and path."""
    import pyarrow
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    audio = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    names = [name for name in rows[0] if name != "audio"]
    columns = {"audio": pyarrow.array([row["audio"] for row in rows], audio)}
    columns |= {name: pyarrow.array([row[name] for row in rows]) for name in names}
    write_table(pyarrow.table(columns), path, row_group_size=group)
    return path


def fleurs_line(number: int, name: str, raw: str, gender: str = "FEMALE") -> str:
    """A line of FLEURS's tables, which have no head."""
    plain = "".join(char for char in raw.lower() if char.isalnum() or char == " ")
    characters = " ".join("|".join(plain.split())) + " |"
    return "\t".join([str(number), name, raw, plain, characters, "8000", gender])


def fleurs_tree(root: Path, code: str = "pl_pl", split: str = "test", unpacked: bool = False) -> Path:
    """Three readings of two sentences, as google/fleurs has them."""
    names = [f"{10**15 + index}.wav" for index in range(3)]
    lines = [fleurs_line(1600 + index // 2, name, SENTENCES[index // 2]) for index, name in enumerate(names)]
    write(root / "data" / code / f"{split}.tsv", "\n".join(lines) + "\n")
    files = {f"{split}/{name}": speech(0.4 + 0.1 * index, index) for index, name in enumerate(names)}
    audio = root / "data" / code / "audio"
    if unpacked:
        for name, data in files.items():
            write(audio / name, data)
    else:
        tar(audio / f"{split}.tar.gz", files)
    return root


def fleurs_rows(count: int = 3) -> list[dict[str, Any]]:
    """The rows of FLEURS's parquet files."""
    return [
        {
            "id": 1600 + index // 2,
            "num_samples": 8000,
            "path": f"/cache/test/{10**15 + index}.wav",
            "audio": {"bytes": speech(0.4, index), "path": f"test/{10**15 + index}.wav"},
            "transcription": f"zdanie {index}",
            "raw_transcription": f"Zdanie {index}.",
            "gender": index % 3,
            "lang_id": 72,
            "language": "Polish",
        }
        for index in range(count)
    ]


def mls_tree(root: Path, name: str = "mls_polish", kind: str = "FLAC") -> Path:
    """Train (six utterances), dev and test of Multilingual LibriSpeech, with limited supervision."""
    suffix = {"FLAC": ".flac", "OPUS": ".opus"}[kind]
    head = " SPEAKER   |   GENDER   | PARTITION  |  MINUTES   |  BOOK ID   | TITLE   | CHAPTER \n"
    people = "".join(
        f" {100 + n}       |   {'FM'[n % 2]}   | train | 1.5 | 7 | Tytuł | I \n" for n in range(6)
    )
    write(root / name / "metainfo.txt", head + people)
    for split, count in (("train", 6), ("dev", 1), ("test", 2)):
        folder = root / name / split
        names = [f"{100 + index}_7_{index:06d}" for index in range(count)]
        for index, utterance in enumerate(names):
            place = folder / "audio" / str(100 + index) / "7"
            write(place / f"{utterance}{suffix}", speech(0.4, index, kind))
        texts = "".join(f"{utterance}\tzdanie numer {index}\n" for index, utterance in enumerate(names))
        write(folder / "transcripts.txt", texts)
        times = "".join(f"{utterance}\thttp://archive.org/a.mp3\t1.0\t1.4\n" for utterance in names)
        write(folder / "segments.txt", times)
        if split == "train":
            limited = folder / "limited_supervision"
            write(limited / "9hr" / "handles.txt", "\n".join(names[:3]) + "\n")
            write(limited / "1hr" / "0" / "handles.txt", names[4] + "\n")
            write(limited / "1hr" / "1" / "handles.txt", names[5] + "\n")
    return root


COMMON_VOICE_HEAD = [
    "client_id",
    "path",
    "sentence_id",
    "sentence",
    "sentence_domain",
    "up_votes",
    "down_votes",
    "age",
    "gender",
    "accents",
    "variant",
    "locale",
    "segment",
]


def common_voice_tree(root: Path, code: str = "pl") -> Path:
    """One split of Common Voice 17, with a stray quotation mark."""
    lines = ["\t".join(COMMON_VOICE_HEAD)]
    for index, sentence in enumerate((*SENTENCES[:2], 'Powiedział: "tak.')):
        name = f"common_voice_{code}_{index}.mp3"
        gender = ("female_feminine", "male", "")[index]
        cells = [f"c{index % 2}", name, f"s{index}", sentence, "", "2", "0", "", gender, "", "", code, ""]
        lines.append("\t".join(cells))
        write(root / code / "clips" / name, speech(0.5, index, "MP3"))
    write(root / code / "train.tsv", "\n".join(lines) + "\n")
    return root


VOXPOPULI_HEAD = [
    "id",
    "raw_text",
    "normalized_text",
    "speaker_id",
    "split",
    "gender",
    "is_gold_transcript",
    "accent",
]


def voxpopuli_rows(code: str = "pl") -> list[list[str]]:
    """The lines of asr_test.tsv; the second has no raw text, the third no speaker."""
    name = "20120118-0900-PLENARY-10-{}_20120118-10:0{}:00_{}"
    rows = [("Mam 3 uwagi.", "mam trzy uwagi", "7"), ("", "dziękuję", "8"), ("Tak.", "tak", "None")]
    return [
        [name.format(code, n, n), raw, normal, speaker, "test", "male", "True", "None"]
        for n, (raw, normal, speaker) in enumerate(rows)
    ]


def voxpopuli_tree(root: Path, code: str = "pl", years: bool = False) -> Path:
    """One split of VoxPopuli: as on the Hub, or as its own scripts leave it."""
    rows = voxpopuli_rows(code)
    lines = ["\t".join(row) for row in ([VOXPOPULI_HEAD, *rows])]
    home = root / ("transcribed_data" if years else "data") / code
    write(home / "asr_test.tsv", "\n".join(lines) + "\n")
    if years:
        for index, row in enumerate(rows):
            write(home / "2012" / f"{row[0]}.ogg", speech(0.5, index, "OGG"))
        return root
    for part, members in enumerate((rows[:2], rows[2:])):
        files = {
            f"test_part_{part}/{row[0]}.wav": speech(0.5, 10 * part + n) for n, row in enumerate(members)
        }
        tar(home / "test" / f"test_part_{part}.tar.gz", files)
    return root


def json_lines(path: Path, *values: object) -> Path:
    """A file with a JSON value on each line; texts stand as they are."""
    lines = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
    return write(path, "\n".join(lines) + "\n")


def records(out: Path, name: str) -> list[dict[str, Any]]:
    """What the record of a manifest says of each utterance."""
    lines = (out / "records" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
