import json
import re
from pathlib import Path

import pytest
from toy_whisper import toy_backbone

from lora_whisper import demo
from lora_whisper.demo import DemoConfig, Keepsake, run_demo
from lora_whisper.model.checkpoint import load_backbone

SMALL = DemoConfig(base=("pl", "it"), new="ca", train=3, dev=2, test=4, epochs=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr(demo, "load_backbone", lambda name: toy_backbone(max_tokens=150))
    folder = tmp_path_factory.mktemp("demo") / "run"
    run_demo(folder, SMALL, say=lambda line: None)
    patch.undo()
    return folder


def test_the_summary_has_its_documented_form(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert list(summary) == ["languages", "unchanged", "seconds"]
    assert {tag: row["new"] for tag, row in summary["languages"].items()} == {
        "pl": False,
        "it": False,
        "ca": True,
    }
    for row in summary["languages"].values():
        assert set(row["before"]) == set(row["after"]) == {"rate", "low", "high"}
    assert summary["unchanged"] is True


def test_the_report_is_one_self_contained_page(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "Catalan" in page and "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page.replace(
        "https://www.w3.org", ""
    )


def test_a_new_language_is_said_to_be_as_similar_as_the_table_has_it(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    said = re.findall(r"(Polish|Italian) (\d+)%", page)
    row = re.search(r"<h2>Similarity</h2>.*?Catalan(.*?)</tr>", page, re.DOTALL)
    assert row is not None
    cells = [round(float(cell)) for cell in re.findall(r">\s*(\d+\.\d)\s*<", row[1])]
    assert {name: int(share) for name, share in said} == dict(zip(("Polish", "Italian"), cells, strict=True))


def test_adapters_are_left_where_the_commands_find_them(finished: Path) -> None:
    assert sorted(path.name for path in (finished / "adapters").iterdir()) == ["ca", "it", "pl"]


def test_the_keepsake_notices_a_change_of_weights_and_of_files(finished: Path, tmp_path: Path) -> None:
    from lora_whisper.data.manifest import read_manifest
    from lora_whisper.lora.bank import AdapterBank

    bank = AdapterBank(toy_backbone(max_tokens=150))
    bank.load(finished / "adapters" / "pl")
    bank.save("pl", tmp_path / "pl")
    keepsake = Keepsake(bank, read_manifest(finished / "data" / "test.jsonl"), tmp_path)
    assert all(one.holds for one in keepsake.compare())

    next(iter(bank["pl"].parts.values())).b.data[0, 0] += 0.5
    broken = {one.name: one.holds for one in keepsake.compare()}
    assert broken == {"backbone": True, "adapter pl": False}

    bank.backbone.model.decoder.ln.bias.data[0] += 0.5
    (tmp_path / "pl" / "lora_whisper.json").write_text("{}")
    changed = {one.name: one for one in keepsake.compare()}
    assert not changed["backbone"].holds
    assert changed["adapter pl"].hash_before != changed["adapter pl"].hash_after


@pytest.mark.skipif(
    not (Path(demo.__file__).parent / "assets" / "mini" / "config.json").exists(),
    reason="the bundled backbone is not there yet",
)
def test_the_bundled_backbone_fits_the_demonstration() -> None:
    backbone = load_backbone("mini")
    config = DemoConfig()
    assert set(config.base) <= set(backbone.tokenizer.languages)
    assert config.new not in backbone.tokenizer.languages
