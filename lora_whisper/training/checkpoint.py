"""Everything a training run needs to go on exactly where it was, as safetensors and JSON.

A checkpoint is a new folder that is renamed into place when it is complete, and the older one is removed
after that: whenever the process dies, the newest folder is a whole one.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_whisper.errors import TrainingError
from lora_whisper.files import replaced_folder, write_json
from lora_whisper.training.state import EpochReport, TrackState

PREFIX = "step-"


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, if there is one."""
    return max(folder.glob(f"{PREFIX}*"), default=None)


def save_checkpoint(folder: Path, step: int, config: Mapping[str, Any], states: Sequence[TrackState]) -> Path:
    """Write a checkpoint and then remove the older ones.

    Raises:
        OutputError: the folder cannot be written; the older checkpoint is intact.
    """
    path = folder / f"{PREFIX}{step:08d}"
    with replaced_folder(path) as new:
        save_file(
            {name: t for state in states for name, t in _tensors(state).items()}, new / "state.safetensors"
        )
        tracks = {state.track.name: _position(state) for state in states}
        write_json(new / "state.json", {"step": step, "config": config, "tracks": tracks})
    for older in folder.glob(f"{PREFIX}*"):
        if older.name < path.name:
            shutil.rmtree(older)
    return path


def load_checkpoint(path: Path, config: Mapping[str, Any], states: Sequence[TrackState]) -> int:
    """Put the states back to where a checkpoint left them; the step it was written at.

    Raises:
        TrainingError: it is damaged, or of another configuration, backbone, other tracks or other data.
    """
    try:
        saved = json.loads((path / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(path / "state.safetensors")
    except Exception as error:  # noqa: BLE001  safetensors raises its own kinds
        raise TrainingError(f"{path}: damaged checkpoint ({error}); delete it to start anew") from None
    expected = {
        **{f"config.{key}": value for key, value in config.items()},
        **{f"{state.track.name}.plan": _plan_size(state) for state in states},
    }
    found = {
        **{f"config.{key}": value for key, value in saved["config"].items()},
        **{f"{name}.plan": track["plan"] for name, track in saved["tracks"].items()},
    }
    for key in expected.keys() | found.keys():
        if expected.get(key) != found.get(key):
            raise TrainingError(
                f"{path}: the run there has {key} = {found.get(key)}, this one {expected.get(key)}; "
                "repeat it as it was to resume, or choose another output folder"
            )
    for state in states:
        _restore(state, tensors, saved["tracks"][state.track.name])
    return int(saved["step"])


def _plan_size(state: TrackState) -> list[int]:
    """What must agree about the data: batches, and rows over all epochs."""
    return [len(state.plan), sum(map(len, state.plan))]


def _position(state: TrackState) -> dict[str, Any]:
    """The part of a state that is not tensors."""
    return {
        "step": state.step,
        "plan": _plan_size(state),
        "best_score": state.best_score,
        "stopped_early": state.stopped_early,
        "epochs": [asdict(report) for report in state.epochs],
    }


def _tensors(state: TrackState) -> dict[str, Tensor]:
    """Parameters, the best ones so far, and the optimiser's moments, by `track/kind/parameter`."""
    name = state.track.name
    tensors: dict[str, Tensor] = {}
    for key, parameter in state.track.parameters.items():
        tensors[f"{name}/now/{key}"] = parameter.detach()
        for kind, moment in state.optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{kind}/{key}"] = moment
    return tensors | {f"{name}/best/{key}": tensor for key, tensor in state.best.items()}


def _restore(state: TrackState, tensors: Mapping[str, Tensor], position: Mapping[str, Any]) -> None:
    """Put one track's state back."""
    name = state.track.name
    with torch.no_grad():
        for key, parameter in state.track.parameters.items():
            parameter.copy_(tensors[f"{name}/now/{key}"])
            moments = {
                kind: tensors[f"{name}/{kind}/{key}"].clone()
                for kind in ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")
                if f"{name}/{kind}/{key}" in tensors
            }
            if moments:
                moments |= {k: m.to(parameter.device) for k, m in moments.items() if k != "step"}
                state.optimizer.state[parameter] = moments
    prefix = f"{name}/best/"
    state.best = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    state.step = position["step"]
    state.best_score = position["best_score"]
    state.stopped_early = position["stopped_early"]
    state.epochs = [EpochReport(**report) for report in position["epochs"]]
