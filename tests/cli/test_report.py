"""`report`: from result files to a page, tables or JSON."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_results import BAD, GOOD, made_audio, made_result

from lora_whisper.cli.report import report
from lora_whisper.errors import LoraWhisperError, ManifestError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made_audio(tmp_path)
    made_result(BAD).save(tmp_path / "bare.json")
    made_result(GOOD, adapters={"pl": "1"}).save(tmp_path / "lora.json")
    (tmp_path / "matrix.csv").write_text("speech,like,similarity\npl,cs,0.75\npl,de,0.25\n")
    return tmp_path


def call(folder: Path, *arguments: str, code: int = 0) -> Result:
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner().invoke(report, list(arguments))
    finally:
        os.chdir(before)
    if isinstance(done.exception, LoraWhisperError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done


def test_a_page_is_the_default_and_a_table_is_printed(folder: Path) -> None:
    done = call(folder, "lora.json", "--worst", "1", "--similarity", "matrix.csv")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 2, "only two languages have errors"
    assert "<h2>Similarity</h2>" in page
    assert done.stdout.startswith("language")
    assert "Polish (pl)" in done.stdout
    assert "report: report.html" in done.stderr


def test_tables_alone_write_no_file(folder: Path) -> None:
    done = call(folder, "lora.json", "bare.json", "--markdown", "--latex", "--worst", "0")
    assert not (folder / "report.html").exists()
    assert done.stdout.startswith("| language | utterances | rate | lora | bare |")
    assert done.stdout.rstrip().endswith(r"\end{table}")


def test_json_is_one_object(folder: Path) -> None:
    arguments = (
        "lora.json",
        "--before",
        "bare.json",
        "--json",
        "--latex",
        "--out",
        "new/r.md",
        "--worst",
        "0",
    )
    done = json.loads(call(folder, *arguments).stdout)
    assert done["report"] == "new/r.md"
    assert (folder / "new" / "r.md").read_text(encoding="utf-8").startswith("# Evaluation: lora")
    assert list(done["systems"]) == ["lora"]
    changes = {one["language"]: one for one in done["changes"]}
    assert changes["pl"]["adapter"] == "new"
    assert set(changes["pl"]["difference"]) == {"rate", "low", "high"}
    assert changes["pl"]["transcripts_changed"] == 5
    assert done["latex"].startswith("% needs")


def test_files_of_one_name_are_told_apart_by_their_folders(folder: Path) -> None:
    for name in ("one", "two"):
        made_result(GOOD).save(folder / name / "result.json")
    done = call(folder, "one/result.json", "two/result.json", "bare.json", "--json", "--worst", "0")
    assert list(json.loads(done.stdout)["systems"]) == ["one/result", "two/result", "bare"]


def test_another_normaliser_scores_all_files(folder: Path) -> None:
    ours, raw = (
        json.loads(call(folder, "lora.json", "--json", "--worst", "0", *more).stdout)["systems"]["lora"]
        for more in ((), ("--normalizer", "raw"))
    )
    assert ours["languages"]["pl"]["wer"]["rate"] == 0.0
    assert raw["languages"]["pl"]["wer"]["rate"] > 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("lost.json",), ManifestError, "lost.json: cannot be read"),
        (("lora.json", "lora.json"), UsageError, "two systems are called"),
        (("lora.json", "--out", "r.pdf"), UsageError, r"\.html or \.md"),
        (("lora.json", "--normalizer", "best"), UsageError, "no normalizer 'best'"),
        (("lora.json", "--similarity", "lora.json"), ManifestError, "is no complete table"),
        (("lora.json", "--similarity", "lost.csv"), ManifestError, "cannot be read"),
    ],
)
def test_wrong_use_is_one_line(
    folder: Path, arguments: tuple[str, ...], error: type[LoraWhisperError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        call(folder, *arguments)
    assert "\n" not in str(caught.value)


def test_a_file_is_needed(folder: Path) -> None:
    call(folder, code=2)
