"""Whether both trainings are the same: losses of ours and of transformers + PEFT on the same batches.

Full context, fp32, the same weights, the same start of the LoRA, the same AdamW: after each step the losses
must agree to what rounding allows.
"""

from collections.abc import Iterator, Sequence

import torch

from benchmarks import peers_transformers as peers
from benchmarks.measure import Row, Setting
from benchmarks.training import LANGUAGE
from benchmarks.workload import LORA, TINY, backbone, backbone_folder, row_of, utterances
from lora_whisper.data.batching import Batch, FixedRows, collate
from lora_whisper.lora.bank import AdapterBank
from lora_whisper.training.methods import language_lora
from lora_whisper.training.monitor import Monitor
from lora_whisper.training.state import StepReport, TrackState
from lora_whisper.training.trainer import TrainConfig, train

GOAL = 1e-4
N_ROWS, N_STEPS = 2, 3
CONFIG = TrainConfig(
    epochs=N_STEPS,
    learning_rate=1e-3,
    schedule="constant",
    warmup=0.0,
    batch_s=30.0 * N_ROWS,
    precision="fp32",
)
"""Every epoch is one step on the same rows, so that the loss must fall."""


class Recorder(Monitor):
    """Keeps the batches of a run and the loss of each."""

    def __init__(self) -> None:
        self.plan: list[list[int]] = []
        self.losses: list[float] = []

    def start(self, states: Sequence[TrackState]) -> None:
        """The run begins."""
        self.plan = states[0].plan

    def step(self, report: StepReport) -> None:
        """A step is done."""
        self.losses.append(report.losses[LANGUAGE])


def measure(setting: Setting) -> Iterator[Row]:
    """The largest difference of a loss."""
    peers.available()
    one = backbone(TINY, setting.folder, setting.device)
    rows = [row_of(each, one, "full") for each in utterances(N_ROWS, [LANGUAGE])]
    bank = AdapterBank(one)
    adapter = bank.add(LANGUAGE, LORA)
    start = bank.save(LANGUAGE, setting.folder / "start")
    recorder = Recorder()
    track = language_lora(adapter, FixedRows(rows), None)
    train(one.model, [track], CONFIG, setting.folder / "agreement", monitor=recorder)
    model = peers.load(backbone_folder(TINY, setting.folder), setting.device)
    model = peers.with_adapters(model, {LANGUAGE: start}, trainable=True)
    batches = [collate([rows[i] for i in indices]) for indices in recorder.plan]
    theirs = _their_losses(model, batches)
    apart = [abs(our - their) for our, their in zip(recorder.losses, theirs, strict=True)]
    figures = {"first_loss": theirs[0], "last_loss": theirs[-1], "difference_of_the_first": apart[0]}
    notes = (f"{len(apart)} AdamW steps on the same {N_ROWS} rows, learning rate {CONFIG.learning_rate}",)
    yield Row(
        "the same losses as transformers + PEFT, full context, fp32: the largest difference",
        None,
        None,
        None,
        GOAL,
        difference=max(apart),
        figures=figures,
        notes=notes,
    )


def _their_losses(model: "torch.nn.Module", batches: Sequence[Batch]) -> list[float]:
    """Losses of their model on the batches, one AdamW step after each."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, CONFIG.learning_rate, weight_decay=CONFIG.weight_decay)
    losses = []
    for batch in batches:
        moved = batch.to(learned[0].device)
        output = model(input_features=moved.mel, decoder_input_ids=moved.tokens, labels=moved.labels)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, CONFIG.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(output.loss.detach()))
    return losses
