"""The command line: exit codes, one-line errors, one JSON object; small runs of every command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_kokoro import toy_release

from lora_whisper.cli import INTERRUPTED, cli, run

COMMANDS = [
    "demo",
    "prepare",
    "doctor",
    "train",
    "add-language",
    "similarity",
    "evaluate",
    "compare",
    "report",
    "study",
    "transcribe",
    "adapters",
]


@pytest.fixture
def lora(capsys):
    """Runs a command in this process; gives exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def trained(tiny_backbone_folder, speech_folder, tmp_path_factory):
    """A folder with adapters of both languages, as `train` leaves it, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    command = [
        "train", speech_folder / "manifest.jsonl", "--backbone", tiny_backbone_folder, "--adapters",
        folder / "adapters", "--run", folder / "run", "--epochs", "1", "--rank", "2", "--json",
    ]  # fmt: skip
    done = start(*command).communicate(timeout=120)
    return folder / "adapters", json.loads(done[0])


SUMMARY = {
    "languages": {
        "pl": {
            "before": {"rate": 0.5, "low": 0.4, "high": 0.6},
            "after": {"rate": 0.1, "low": 0.05, "high": 0.15},
            "new": False,
        }
    },
    "unchanged": True,
    "seconds": 1.0,
}


def start(*arguments: object) -> subprocess.Popen[str]:
    """A command in a process of its own; it hears Ctrl-C even if the tests are a background job."""
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    return subprocess.Popen(
        [sys.executable, "-c", f"{hears}; from lora_whisper.cli import main; main()", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def copy_of(folder: Path, target: Path) -> Path:
    for path in folder.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(folder)).write_bytes(path.read_bytes())
    return target


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def one_line(text: str) -> bool:
    return text.startswith("error: ") and text.count("\n") == 1 and "Traceback" not in text


class TestHelp:
    def test_every_stage_is_there(self):
        assert sorted(cli.commands) == sorted(COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_help(self, lora, command):
        code, out, _ = lora(command, "--help")
        assert code == 0
        assert out.startswith(f"Usage: lora-whisper {command}")

    def test_help_imports_nothing_heavy(self):
        probe = (
            "import sys; from lora_whisper.cli import run; run(['--help']); run(['train', '--help']);"
            "heavy = {'torch', 'numpy', 'rich', 'soundfile', 'langcodes'};"
            "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "[]"

    def test_version(self, lora):
        assert lora("--version")[:2] == (0, "lora-whisper 0.1.0\n")


class TestWrongUse:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["nonsense"],
            ["train", "manifest.jsonl"],  # no --backbone
            ["train", "--backbone", "mini"],  # no manifest
            ["evaluate", "m.jsonl", "--backbone", "mini", "--language", "some"],
            ["evaluate", "m.jsonl", "--backbone", "mini", "--beams", "0"],
            ["train", "m.jsonl", "--backbone", "mini", "--epochs", "many"],
            ["train", "m.jsonl", "--backbone", "mini", "--proxy-token", "gsw"],
            ["add-language", "m.jsonl", "--backbone", "mini", "--method", "scratch", "--start", "pl"],
            ["similarity", "m.jsonl", "--backbone", "mini", "--adapters", "a", "--languages", "pl"],
            ["transcribe", "a.wav", "b.wav", "--backbone", "mini", "--format", "srt"],
        ],
    )
    def test_exits_with_2_and_one_line(self, lora, arguments):
        code, out, err = lora(*arguments)
        assert (code, out) == (2, "")
        assert one_line(err), err

    def test_without_arguments_shows_the_commands(self, lora):
        code, out, err = lora()
        assert code == 2
        assert "transcribe" in out + err


class TestFailures:
    def test_missing_manifest(self, lora, tmp_path):
        code, out, err = lora("evaluate", tmp_path / "none.jsonl", "--backbone", "mini", "--json")
        assert (code, out) == (1, "")
        assert one_line(err) and "none.jsonl" in err

    def test_faulty_manifest_names_the_line(self, lora, tmp_path):
        (tmp_path / "m.jsonl").write_text('{"audio": "a.wav", "text": "a", "language": "pl"}\n{oops\n')
        code, _, err = lora("train", tmp_path / "m.jsonl", "--backbone", "mini", "--adapters", tmp_path / "a")
        assert code == 1
        assert one_line(err) and "line 2" in err
        assert not (tmp_path / "a").exists()

    def test_unknown_language(self, lora, speech_folder):
        code, _, err = lora(
            "train", speech_folder / "manifest.jsonl", "--backbone", "mini", "--language", "polsih"
        )
        assert code == 1
        assert one_line(err) and "polsih" in err

    def test_missing_backbone(self, lora, speech_folder, tmp_path):
        code, _, err = lora("transcribe", speech_folder / "pl-0.wav", "--backbone", tmp_path / "nowhere")
        assert code == 1
        assert one_line(err) and "nowhere" in err

    @pytest.mark.parametrize("option", ["--adapters", "--run"])
    def test_output_folder_is_tried_before_any_work(self, lora, speech_folder, tmp_path, option):
        (tmp_path / "file").touch()
        folders = {
            "--adapters": tmp_path / "adapters",
            "--run": tmp_path / "run",
            option: tmp_path / "file" / "x",
        }
        # the backbone does not exist: an error about it would mean that it was looked for first
        code, _, err = lora(
            "train", speech_folder / "manifest.jsonl", "--backbone", tmp_path / "none",
            *(value for pair in folders.items() for value in pair),
        )  # fmt: skip
        assert code == 1
        assert one_line(err) and str(tmp_path / "file") in err

    def test_an_adapter_is_not_overwritten(self, lora, speech_folder, tmp_path):
        (tmp_path / "adapters" / "pl").mkdir(parents=True)
        code, _, err = lora(
            "train",
            speech_folder / "manifest.jsonl",
            "--backbone",
            tmp_path,
            "--adapters",
            tmp_path / "adapters",
        )
        assert code == 1
        assert one_line(err) and "remove pl" in err


class TestTraining:
    def test_train_saves_every_language_and_prints_one_object(self, trained):
        folder, printed = trained
        assert sorted(path.name for path in folder.iterdir()) == ["it", "pl"]
        assert set(printed["adapters"]) == {"it", "pl"}
        about = printed["adapters"]["pl"]
        assert about["epochs"] == 1 and about["parameters"] > 0 and Path(about["folder"]) == folder / "pl"
        assert printed["skipped"] == []

    def test_add_language_leaves_the_others_alone(
        self, trained, lora, speech_folder, tiny_backbone_folder, tmp_path
    ):
        folder = copy_of(trained[0], tmp_path / "adapters")
        before = contents(folder)
        manifest = tmp_path / "cy.jsonl"
        lines = (speech_folder / "manifest.jsonl").read_text().splitlines()[:6]
        rows = [json.loads(line) | {"language": "cy"} for line in lines]
        rows = [row | {"audio": str(speech_folder / row["audio"])} for row in rows]
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        code, out, err = lora(
            "add-language", manifest, "--language", "cy", "--backbone", tiny_backbone_folder,
            "--adapters", folder, "--run", tmp_path / "run", "--dev", manifest,
            "--epochs", "1", "--json", "--no-progress",
        )  # fmt: skip
        assert code == 0, err
        printed = json.loads(out)
        assert printed["start"] == next(iter(printed["similarity"]))
        assert printed["doctor"]["utterances"] == 6
        assert set(printed["similarity"]) == {"pl", "it"}
        after = contents(folder)
        assert {name: after[name] for name in before} == before
        assert any(name.startswith("cy/") for name in after)

    def test_train_skips_bad_files_and_names_them(self, lora, speech_folder, tiny_backbone_folder, tmp_path):
        lines = (speech_folder / "manifest.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines if '"pl"' in line]
        for row in rows:
            row["audio"] = str(speech_folder / row["audio"])
        rows[0]["audio"] = str(tmp_path / "missing.wav")
        rows[1]["text"] = "ala ma kota " * 100  # more than the decoder holds
        manifest = tmp_path / "m.jsonl"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        code, out, err = lora(
            "train", manifest, "--backbone", tiny_backbone_folder, "--adapters", tmp_path / "a",
            "--run", tmp_path / "run", "--epochs", "1", "--rank", "2", "--json", "--no-progress",
        )  # fmt: skip
        assert code == 0, err
        skipped = [one["audio"] for one in json.loads(out)["skipped"]]
        assert skipped == [rows[0]["audio"], rows[1]["audio"]]
        assert [
            line for line in err.splitlines() if line.startswith("skipped: ") and rows[1]["audio"] in line
        ]

    def test_ctrl_c_tells_how_to_go_on(self, speech_folder, tiny_backbone_folder, tmp_path):
        process = start(
            "train", speech_folder / "manifest.jsonl", "--backbone", tiny_backbone_folder, "--adapters",
            tmp_path / "a", "--run", tmp_path / "run", "--epochs", "2000", "--no-progress",
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not any((tmp_path / "run").glob("checkpoints/step-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == INTERRUPTED
        assert out == ""
        assert "same command" in err and "Traceback" not in err
        assert not list((tmp_path / "a").iterdir())


class TestDemo:
    @pytest.fixture(autouse=True)
    def no_work(self, monkeypatch):
        def run_demo(folder, say):
            say("working")
            return SUMMARY

        monkeypatch.setattr("lora_whisper.demo.run_demo", run_demo)

    def test_prints_the_summary(self, lora, tmp_path):
        code, out, err = lora("demo", "--out", tmp_path, "--json")
        assert (code, err) == (0, "working\n")
        assert json.loads(out) == SUMMARY

    def test_prints_a_table(self, lora, tmp_path):
        out = lora("demo", "--out", tmp_path)[1]
        assert "50.0 % (40.0-60.0)" in out
        assert "unchanged: yes" in out


class TestListening:
    def test_transcribe_goes_on_after_a_bad_file(
        self, trained, lora, speech_folder, tiny_backbone_folder, tmp_path
    ):
        bad = tmp_path / "bad.wav"
        bad.write_bytes(b"not audio")
        files = [speech_folder / "pl-0.wav", bad, speech_folder / "it-3.wav"]
        code, out, err = lora(
            "transcribe", *files, "--backbone", tiny_backbone_folder, "--adapters", trained[0], "--json"
        )
        assert code == 1
        assert one_line(err) and "bad.wav" in err
        printed = json.loads(out)
        assert [one["audio"] for one in printed["transcripts"]] == [str(files[0]), str(files[2])]
        assert {one["language"] for one in printed["transcripts"]} <= {"pl", "it"}
        assert [one["audio"] for one in printed["failures"]] == [str(bad)]

    @pytest.mark.parametrize(
        ("form", "suffix"), [("text", "txt"), ("json", "json"), ("srt", "srt"), ("vtt", "vtt")]
    )
    def test_transcribe_writes_files(self, lora, speech_folder, tiny_backbone_folder, tmp_path, form, suffix):
        files = [speech_folder / "pl-0.wav", speech_folder / "pl-1.wav"]
        code, out, err = lora(
            "transcribe", *files, "--backbone", tiny_backbone_folder, "--language", "pl", "--format", form,
            "--output-dir", tmp_path / "out",
        )  # fmt: skip
        assert (code, out) == (0, ""), err
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            f"pl-0.{suffix}",
            f"pl-1.{suffix}",
        ]

    def test_transcribe_refuses_to_overwrite_its_own_output(self, lora, tmp_path):
        files = [tmp_path / "a" / "x.wav", tmp_path / "b" / "x.wav"]
        code, _, err = lora("transcribe", *files, "--backbone", "mini", "--output-dir", tmp_path / "out")
        assert code == 2
        assert one_line(err)

    def test_evaluate_prints_the_promised_keys(
        self, trained, lora, speech_folder, tiny_backbone_folder, tmp_path
    ):
        code, out, err = lora(
            "evaluate", speech_folder / "manifest.jsonl", "--backbone", tiny_backbone_folder,
            "--adapters", trained[0], "--language", "auto", "--beams", 2,
            "--out", tmp_path / "result.json", "--json",
        )  # fmt: skip
        assert code == 0, err
        printed = json.loads(out)
        assert set(printed["languages"]) == {"pl", "it"}
        assert set(printed["languages"]["pl"]["cer"]) >= {"rate", "low", "high"}
        assert printed["languages"]["pl"]["utterances"] == 10
        assert 0 <= printed["language_id"]["accuracy"] <= 1
        result = json.loads((tmp_path / "result.json").read_text())
        assert len(result["utterances"]) == 20
        assert result["beams"] == 2

    def test_evaluate_takes_a_proxy_for_a_language_without_token(
        self, lora, speech_folder, tiny_backbone_folder, tmp_path
    ):
        rows = (speech_folder / "manifest.jsonl").read_text().splitlines()[:2]
        path = speech_folder / "sardinian.jsonl"
        path.write_text("\n".join(rows).replace('"pl"', '"sc"'))
        command = ["evaluate", path, "--backbone", tiny_backbone_folder, "--json"]
        assert lora(*command)[0] == 1
        code, out, err = lora(*command, "--proxy-token", "sc=it")
        assert code == 0, err
        assert json.loads(out)["languages"]["sc"]["utterances"] == 2

    def test_evaluate_shows_a_table(self, lora, speech_folder, tiny_backbone_folder):
        code, out, _ = lora("evaluate", speech_folder / "manifest.jsonl", "--backbone", tiny_backbone_folder)
        assert code == 0
        assert out.splitlines()[0].split()[:3] == ["language", "utterances", "WER"]
        assert len(out.splitlines()) == 3

    def test_similarity(self, trained, lora, speech_folder, tiny_backbone_folder, tmp_path):
        code, out, err = lora(
            "similarity", speech_folder / "manifest.jsonl", "--backbone", tiny_backbone_folder, "--adapters",
            trained[0], "--report", tmp_path / "similarity.html", "--json",
        )  # fmt: skip
        assert code == 0, err
        matrix = json.loads(out)["similarity"]
        assert sum(matrix["pl"].values()) == pytest.approx(1)
        assert (tmp_path / "similarity.html").stat().st_size > 1000


class TestAdapters:
    def test_list_and_show(self, trained, lora):
        code, out, _ = lora("adapters", "list", "--adapters", trained[0])
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()] == ["adapter", "it", "pl"]
        code, out, _ = lora("adapters", "show", "pl", "--adapters", trained[0], "--json")
        assert code == 0
        assert json.loads(out)["language"] == "pl"

    def test_verify_finds_the_damaged_one(self, trained, lora, tiny_backbone_folder, tmp_path):
        folder = copy_of(trained[0], tmp_path / "adapters")
        tensors = folder / "pl" / "adapter_model.safetensors"
        tensors.write_bytes(tensors.read_bytes()[:-100])
        code, out, err = lora(
            "adapters", "verify", "--adapters", folder, "--backbone", tiny_backbone_folder, "--json"
        )
        assert code == 1
        assert one_line(err) and "pl" in err
        assert {tag: one["ok"] for tag, one in json.loads(out)["adapters"].items()} == {
            "it": True,
            "pl": False,
        }

    def test_remove(self, trained, lora, tmp_path):
        folder = copy_of(trained[0], tmp_path / "adapters")
        assert lora("adapters", "remove", "pl", "--adapters", folder, "--yes")[0] == 0
        assert [path.name for path in folder.iterdir()] == ["it"]
        code, _, err = lora("adapters", "remove", "pl", "--adapters", folder, "--yes")
        assert code == 1
        assert one_line(err) and "there are it" in err

    def test_nothing_there(self, lora, tmp_path):
        code, out, err = lora("adapters", "list", "--adapters", tmp_path, "--json")
        assert (code, out) == (1, "")
        assert one_line(err)


class TestPrepare:
    @pytest.mark.parametrize("form", [["pl", "--language", "it"], ["pl,it"], ["pl", "it"]])
    def test_synthetic(self, lora, tmp_path, form):
        code, out, err = lora(
            "prepare", "synthetic", "--language", *form, "--split", "test", "--utterances", "2",
            "--seed", "7", "--out", tmp_path, "--json",
        )  # fmt: skip
        assert code == 0, err
        printed = json.loads(out)
        assert Path(printed["manifest"]) == tmp_path / "test.jsonl"
        assert printed["languages"] == ["pl", "it"] and printed["utterances"] == 4
        assert len((tmp_path / "test.jsonl").read_text().splitlines()) == 4

    def test_spoken_with_neural_voices(self, lora, tmp_path):
        texts = tmp_path / "texts.jsonl"
        (tmp_path / "a.wav").touch()
        texts.write_text(json.dumps({"audio": "a.wav", "text": "seven", "language": "en"}) + "\n")
        spoken, kokoro = ("prepare", "spoken", texts, "--copies", "4", "--out", tmp_path), tmp_path / "kokoro"
        code, out, err = lora(*spoken, "--kokoro", kokoro)
        assert (code, out) == (1, "") and one_line(err) and "fetch Kokoro's ONNX release" in err
        assert lora(*spoken, "--neural", "0.5")[0] == 2
        code, out, err = lora(*spoken, "--kokoro", toy_release(kokoro), "--json")
        assert code == 0, err
        rows = Path(json.loads(out)["manifest"]).read_text().splitlines()
        assert [json.loads(row)["text"] for row in rows] == ["seven"] * 4


def test_training_over_few_bits_records_them(lora, speech_folder, tiny_backbone_folder, tmp_path):
    code, _, err = lora(
        "train", speech_folder / "manifest.jsonl", "--backbone", tiny_backbone_folder, "--bits", "4",
        "--language", "pl", "--epochs", "1", "--adapters", tmp_path / "adapters", "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    described = json.loads((tmp_path / "adapters" / "pl" / "lora_whisper.json").read_text(encoding="utf-8"))
    assert described["backbone_bits"] == 4
