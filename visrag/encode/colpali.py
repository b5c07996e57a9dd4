"""Vision models through colpali-engine: the families and adapters that sentence-transformers does not load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import EncoderError, MissingExtra
from .attention import attend_together, keep_nothing
from .checkpoint import check_weights, pick_device
from .families import Checkpoint, find_vision_checkpoint, loading
from .patches import Features, PatchEncoder, Task

if TYPE_CHECKING:
    import torch


class ColpaliEncoder(PatchEncoder):
    """A vision model over colpali-engine's model and processor; made by ``ColpaliEncoder.load``."""

    def __init__(self, model: Any, processor: Any, checkpoint: Checkpoint) -> None:
        checkpoint.limit(processor)
        leg = checkpoint.leg(int(model.dim))
        super().__init__(processor, model.config, leg, str(model.device))
        self._model = model

    @classmethod
    def load(cls, model: str, device: str | None = None) -> ColpaliEncoder:
        """A hub id or a folder; ``device``: None takes CUDA if there is one. bfloat16 on CUDA, else float32.

        Raises MissingExtra without colpali-engine, EncoderError where the model cannot be found or loaded, or lacks
        weights.
        """
        return cls.of(find_vision_checkpoint(model), device)

    @classmethod
    def of(cls, checkpoint: Checkpoint, device: str | None = None) -> ColpaliEncoder:
        """As ``load``, for a checkpoint that was found."""
        family = checkpoint.family
        if family is None or family.processor is None:
            raise EncoderError(f"{checkpoint.name} is not a model of colpali-engine: sentence-transformers loads it")
        with loading(checkpoint), checkpoint.to_load() as folder:
            models = _colpali_models(family.architecture)
            device, dtype = pick_device(device)
            model = getattr(models, family.architecture).from_pretrained(folder, dtype=dtype)
            _tie_weights(model)
            check_weights(model, checkpoint.name, checkpoint.folder)
            if checkpoint.base is not None:
                _merge(model, dtype)
            attend_together(model)
            keep_nothing(model)
            processor = getattr(models, family.processor).from_pretrained(folder)
            return cls(model.to(device).eval(), processor, checkpoint)

    def _forward(self, features: Features, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        inputs = {name: value.to(self._model.device) for name, value in features.items()}
        with torch.inference_mode(), self._precision(task):
            embeddings = self._model(**inputs)
        return embeddings, inputs["attention_mask"].bool()


def _tie_weights(model: Any) -> None:
    """Ties the weights within each part: ColPali's head (0.3.18) stays without data where only the whole is tied."""
    for part in model.modules():
        if hasattr(part, "tie_weights"):
            part.tie_weights()


def _merge(model: Any, dtype: torch.dtype) -> None:
    """Puts what an adapter adds into the weights that it stands on: a layer is then one product of matrices, not three.
    In float32, so that it is rounded to ``dtype`` once."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.float().merge()
            layer.to(dtype)


def _colpali_models(architecture: str) -> Any:
    try:
        import colpali_engine.models
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {"colpali_engine", "peft", "torchvision"}:
            raise
        raise MissingExtra(architecture, "colpali") from error
    return colpali_engine.models
