"""Each kind of arm, from backbone to files, on a toy bench."""

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_whisper.errors import UsageError
from lora_whisper.studies import runs
from lora_whisper.studies.arms import CONVOLVED, STUDIES, Arm, scaling_arms, similarity_arms
from lora_whisper.studies.bench import Bench, Speech
from lora_whisper.studies.grid import NAMES, QUICK, Part, do, parts
from lora_whisper.studies.models import models
from lora_whisper.studies.report import write_report
from lora_whisper.studies.runs import Job, run


def do_all(bench: Bench, names: Sequence[str], root: Path) -> dict[str, dict[str, object]]:
    known = {arm.name: arm for arms in STUDIES.values() for arm in arms}
    known |= {arm.name: arm for arm in (*scaling_arms(2), *similarity_arms(tuple(bench.base)))}
    found = {}
    for name in names:
        run(Job(known[name], bench, root, 0))
        found[name] = json.loads((root / "seed-0" / name / "run.json").read_text())
    return found


def adapter(root: Path, arm: str, tag: str) -> dict[str, torch.Tensor]:
    return load_file(root / "seed-0" / arm / "adapters" / tag / "adapter_model.safetensors")


def test_language_adapters_cost_as_much_as_a_shared_one(bench: Bench, tmp_path: Path) -> None:
    found = do_all(bench, ["bare", "language-lora", "shared-lora", "one-adapter"], tmp_path)
    assert found["bare"]["parameters"] == 0
    assert found["language-lora"]["parameters"] == found["shared-lora"]["parameters"]
    assert found["one-adapter"]["parameters"] == found["shared-lora"]["parameters"] / 2  # type: ignore[operator]
    assert found["language-lora"]["groups"] == [["pl"], ["it"]]
    assert found["shared-lora"]["groups"] == [["pl", "it"]]
    shared, other = adapter(tmp_path, "shared-lora", "pl"), adapter(tmp_path, "shared-lora", "it")
    assert all(torch.equal(tensor, other[name]) for name, tensor in shared.items())
    own, others = adapter(tmp_path, "language-lora", "pl"), adapter(tmp_path, "language-lora", "it")
    assert any(not torch.equal(tensor, others[name]) for name, tensor in own.items())


def test_new_adapters_leave_the_old_ones_and_what_they_hear(bench: Bench, tmp_path: Path) -> None:
    found = do_all(bench, ["language-lora", "scratch", "warm-closest", "warm-farthest", "moe"], tmp_path)
    before = json.loads((tmp_path / "seed-0" / "language-lora" / "told.json").read_text())["utterances"]
    heard = {one["id"]: one["hypothesis"] for one in before}
    for name in ("scratch", "warm-closest", "moe"):
        assert found[name]["unchanged"] is True
        after = json.loads((tmp_path / "seed-0" / name / "told.json").read_text())["utterances"]
        assert {one["id"]: one["hypothesis"] for one in after if one["id"] in heard} == heard
        assert {one["language"] for one in after} == {"pl", "it", "en", "cy"}
    starts = [found[name]["beginnings"]["en"] for name in ("warm-closest", "warm-farthest")]  # type: ignore[index]
    assert starts[0].keys() != starts[1].keys()
    assert set(found["moe"]["beginnings"]["en"]) == {"pl", "it"}  # type: ignore[index]
    assert found["scratch"]["beginnings"]["en"] == {}  # type: ignore[index]


def test_convolutions_are_adapted_and_copied(bench: Bench, tmp_path: Path) -> None:
    arms = ["language-lora", "language-lora-conv", "one-adapter-conv", *CONVOLVED]
    found = do_all(bench, arms, tmp_path)
    assert found["language-lora-conv"]["parameters"] > found["language-lora"]["parameters"]  # type: ignore[operator]
    for name in ("language-lora-conv", "warm-conv"):
        (kernel,) = (b for key, b in adapter(tmp_path, name, "pl").items() if "conv1.lora_B" in key)
        assert kernel.any()
    assert found["warm-conv"]["unchanged"] is True
    assert len(found["warm-conv"]["beginnings"]["cy"]) == 1  # type: ignore[index]
    assert found["warm-shared-conv"]["unchanged"] is True
    assert len(found["moe-token-conv"]["beginnings"]["cy"]) == 2  # type: ignore[index]


def test_full_fine_tuning_goes_on_from_its_own_weights_and_changes_them(bench: Bench, tmp_path: Path) -> None:
    found = do_all(bench, ["full", "full-new", "full-rehearsal", "full-new-each"], tmp_path)
    assert found["full"]["unchanged"] is False and found["full-new"]["unchanged"] is False
    weights = [
        load_file(tmp_path / "seed-0" / name / "backbone" / "model.safetensors")
        for name in ("full", "full-new")
    ]
    assert any(not torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert found["full-rehearsal"]["heard_s"] > found["full-new"]["heard_s"]  # type: ignore[operator]
    assert found["full-new-each"]["groups"] == [["en"], ["cy"]]
    assert found["full-new-each"]["parameters"] == 2 * found["full-new"]["parameters"]  # type: ignore[operator]


def test_only_the_layers_that_adapters_reach_are_trained(bench: Bench, tmp_path: Path) -> None:
    found = do_all(bench, ["layers-each", "full-each"], tmp_path)
    assert found["layers-each"]["parameters"] < found["full-each"]["parameters"]  # type: ignore[operator]
    arm = next(arm for arm in STUDIES["capacity"] if arm.name == "layers-each")
    model = next(models(arm, bench, Speech(bench, tmp_path / "speech"), tmp_path, 0))
    (learner,) = model.learners
    assert all(
        re.search(r"\.(query|key|value|out|fc1|fc2)\.weight$", name) for name in learner.track.parameters
    )


def test_the_shared_adapter_goes_on_with_new_languages(bench: Bench, tmp_path: Path) -> None:
    do_all(bench, ["shared-lora", "shared-lora-new"], tmp_path)
    before, after = adapter(tmp_path, "shared-lora", "pl"), adapter(tmp_path, "shared-lora-new", "pl")
    assert any(not torch.equal(tensor, after[name]) for name, tensor in before.items())
    new = adapter(tmp_path, "shared-lora-new", "cy")
    assert all(torch.equal(tensor, new[name]) for name, tensor in after.items())


def test_languages_of_a_cluster_share_an_adapter(bench: Bench, tmp_path: Path) -> None:
    four = replace(bench, base={**bench.base, "en": 2, "cy": 2}, new={})
    clustered = Arm("clusters-2", "two clusters", learns="base", clusters=2)
    run(Job(clustered, four, tmp_path, 0))
    told = json.loads((tmp_path / "seed-0" / "clusters-2" / "run.json").read_text())
    assert len(told["groups"]) == 2
    assert sorted(tag for group in told["groups"] for tag in group) == ["cy", "en", "it", "pl"]


def test_a_finished_run_is_not_repeated(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do_all(bench, ["bare"], tmp_path)
    monkeypatch.setattr(runs, "models", None)
    do_all(bench, ["bare"], tmp_path)
    with pytest.raises(TypeError):
        do_all(replace(bench, seeds=(0,)), ["language-lora"], tmp_path)


class Here(Executor):
    """Does a job when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def test_the_report_is_made_from_the_files_alone(bench: Bench, tmp_path: Path) -> None:
    arms = {arm.name: arm for group in STUDIES.values() for arm in group}
    planned = [
        Part("paper", bench, tuple(arms.values())),
        Part(
            "similarity",
            replace(bench, new={"cy": 2}),
            (arms["language-lora"], *similarity_arms(("pl", "it"))),
        ),
        Part("scaling-2", replace(bench, new={}), scaling_arms(2)),
    ]
    do(planned, tmp_path / "runs", lambda _: None, executor=Here())
    found = write_report(planned, NAMES, tmp_path / "runs", tmp_path / "docs")
    assert json.loads((tmp_path / "docs" / "studies.json").read_text()) == json.loads(json.dumps(found))
    for claim in ("multilingual", "expansion"):
        assert {"relative_gain", "baseline", "p"} <= found[claim].keys()
    assert found["multilingual"]["baseline"] == "full" and found["forgetting"] == 0
    text = (tmp_path / "docs" / "studies.md").read_text()
    assert text.count("\n## ") == len(NAMES) and "nan" not in text
    for name in ("multilingual", "expansion", "expansion-curves", "similarity-curves", "scaling"):
        assert (tmp_path / "docs" / f"{name}.svg").read_text().startswith("<svg")


def test_runs_beside_each_other_wait_for_what_they_go_on_from(bench: Bench, tmp_path: Path) -> None:
    arms = tuple(arm for arm in STUDIES["multilingual"] if arm.name in ("bare", "language-lora"))
    part = Part("paper", bench, (STUDIES["moe-cost"][0], *arms))
    assert [job.ready for job in part.jobs(tmp_path)] == [True, True, False]
    said: list[str] = []
    do([part], tmp_path, said.append, processes=2)
    assert all(job.done for job in part.jobs(tmp_path))
    assert [line.rsplit("/", 1)[-1].split(":")[0] for line in said[-3:]] == [
        "bare",
        "language-lora",
        "scratch",
    ]


def test_another_size_in_the_same_folder_is_refused(bench: Bench, tmp_path: Path) -> None:
    do([Part("paper", bench, ())], tmp_path, lambda _: None, executor=Here())
    with pytest.raises(UsageError, match="another size"):
        do([Part("paper", replace(bench, rank=4), ())], tmp_path, lambda _: None, executor=Here())
    do([Part("paper", replace(bench, seeds=(0, 1)), ())], tmp_path, lambda _: None, executor=Here())


def test_what_an_arm_goes_on_from_comes_first() -> None:
    for part in parts(NAMES, QUICK, "mini"):
        names = [job.arm.name for job in part.jobs(Path())]
        assert len(set(names)) == len(names)
        assert all(names.index(arm.after) < names.index(arm.name) for arm in part.arms if arm.after)
    with pytest.raises(UsageError, match="multilingual, capacity"):
        parts(["nothing"], QUICK, "mini")
