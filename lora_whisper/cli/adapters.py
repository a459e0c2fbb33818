"""`adapters`: what is in an adapter folder, and whether it is sound."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_whisper.cli.console import print_json, print_table, say
from lora_whisper.cli.options import BackboneOptions, OutputOptions, backbone_options, output_options
from lora_whisper.cli.options import adapters_option as folder_option
from lora_whisper.errors import AdapterError, LoraWhisperError, UnknownLanguage

if TYPE_CHECKING:
    from lora_whisper.lora.bank import AdapterBank
    from lora_whisper.lora.cache import OnDemandAdapter


@click.group()
def adapters() -> None:
    """List, show, verify and remove adapters."""


@adapters.command("list")
@folder_option
@output_options
def list_adapters(adapters: Path, output: OutputOptions) -> None:
    """The adapters in a folder."""
    found = {folder.name: _describe(folder) for folder in _folders(adapters)}
    if output.as_json:
        print_json({"adapters": found})
        return
    columns = ("token_language", "backbone", "audio_context", "rank", "size_bytes")
    rows = [[name, *(str(about.get(column, "")) for column in columns)] for name, about in found.items()]
    print_table(["adapter", "token", "backbone", "context", "rank", "bytes"], rows)


@adapters.command()
@click.argument("tag")
@folder_option
@output_options
def show(tag: str, adapters: Path, output: OutputOptions) -> None:
    """What is known of the adapter TAG."""
    about = _describe(_folder(adapters, tag))
    if output.as_json:
        print_json(about)
        return
    for key, value in about.items():
        click.echo(f"{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


@adapters.command()
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@backbone_options
@folder_option
@output_options
def verify(tags: tuple[str, ...], backbone: BackboneOptions, adapters: Path, output: OutputOptions) -> int:
    """Read adapters (all of them without a TAG) and check files, shapes, fingerprints and backbone."""
    folders = [_folder(adapters, tag) for tag in tags] or _folders(adapters)
    from lora_whisper.lora.bank import AdapterBank

    bank = AdapterBank(backbone.load())
    opened, faults = _opened(bank, _folders(adapters))
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        try:
            if folder in faults:
                raise faults[folder]
            bank.cache.read(opened[folder], thorough=True)
            found[folder.name] = {"ok": True, "fingerprint": opened[folder].fingerprint}
        except LoraWhisperError as error:
            found[folder.name] = {"ok": False, "error": str(error)}
            say(f"error: {error}")
    if output.as_json:
        print_json({"adapters": found})
    else:
        print_table(
            ["adapter", "state", "fingerprint"],
            [[name, "ok" if one["ok"] else "bad", one.get("fingerprint", "")] for name, one in found.items()],
        )
    return 0 if all(one["ok"] for one in found.values()) else 1


@adapters.command()
@click.argument("tag")
@folder_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_options
def remove(tag: str, adapters: Path, yes: bool, output: OutputOptions) -> None:
    """Delete the adapter TAG."""
    folder = _folder(adapters, tag)
    if not yes:
        click.confirm(f"Delete {folder}?", abort=True, err=True)
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise AdapterError(
            f"{folder}: cannot be removed ({error.strerror or error}); check its permissions"
        ) from None
    if output.as_json:
        print_json({"removed": str(folder)})
    else:
        click.echo(f"removed {folder}")


def _opened(
    bank: "AdapterBank", folders: list[Path]
) -> "tuple[dict[Path, OnDemandAdapter], dict[Path, LoraWhisperError]]":
    """The adapters that can be opened, and why the others cannot."""
    opened: dict[Path, OnDemandAdapter] = {}
    faults: dict[Path, LoraWhisperError] = {}
    for folder in (*folders, *folders):  # twice, for some borrow others that come after them
        if folder not in opened:
            try:
                opened[folder] = bank.open(folder)
                faults.pop(folder, None)
            except LoraWhisperError as error:
                faults[folder] = error
    return opened, faults


def _folders(root: Path) -> list[Path]:
    from lora_whisper.lora.storage import adapter_folders

    folders = adapter_folders(root)
    if not folders:
        raise AdapterError(f"{root}: no adapters there; train some, or name their folder with --adapters")
    return folders


def _folder(root: Path, tag: str) -> Path:
    """Folder of one adapter; the tag as it is spelled, or normalised."""
    from lora_whisper.languages import normalize_tag

    names = [folder.name for folder in _folders(root)]
    name = tag if tag in names else normalize_tag(tag)
    if name not in names:
        raise UnknownLanguage(f"{root / name}: no such adapter; there are {', '.join(names)}")
    return root / name


def _describe(folder: Path) -> dict[str, Any]:
    """What the files of an adapter say about it, without loading it."""
    from lora_whisper.lora.storage import CONFIG_FILE, INFO_FILE, TENSORS_FILE

    config = _read(folder / CONFIG_FILE)
    info = _read(folder / INFO_FILE) if (folder / INFO_FILE).exists() else {}
    tensors = folder / TENSORS_FILE
    size = tensors.stat().st_size if tensors.exists() else None
    return {**info, "rank": config.get("r"), "alpha": config.get("lora_alpha"), "size_bytes": size}


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path}: cannot be read ({error}); restore it from a copy") from None
    return values if isinstance(values, dict) else {}
