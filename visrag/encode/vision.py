"""Vision models through sentence-transformers: ColPali, ColQwen2, ColModernVBERT and what it has saved itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ..errors import EncoderError
from .attention import attend_together, keep_nothing
from .checkpoint import check_weights, pick_device
from .colpali import ColpaliEncoder
from .families import Checkpoint, find_vision_checkpoint, loading
from .patches import Features, PatchEncoder, Task

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def load_vision(
    model: str, device: str | None = None, visual_tokens: int | None = None, base: str | None = None
) -> PatchEncoder:
    """The vision model in a folder or of a hub id, over the library that knows its family (see ``FAMILIES``).

    ``visual_tokens``: image tokens of a page, at most; None for as many as the model's processor says. ``base``: as of
    ``find_vision_checkpoint``. Raises EncoderError where it cannot be found or loaded, MissingExtra where it needs
    colpali-engine, UsageError for ``visual_tokens`` where all its pages have the same number, or more.
    """
    checkpoint = find_vision_checkpoint(model, visual_tokens, base)
    if checkpoint.family is not None and checkpoint.family.processor is not None:
        return ColpaliEncoder.of(checkpoint, device)
    return VisionEncoder.of(checkpoint, device)


class VisionEncoder(PatchEncoder):
    """A vision model over ``sentence_transformers.MultiVectorEncoder``; made by ``VisionEncoder.load``."""

    def __init__(self, model: Any, checkpoint: Checkpoint) -> None:
        checkpoint.limit(model.processor)
        leg = checkpoint.leg(int(model.get_embedding_dimension()))
        super().__init__(model.processor, model[0].model.config, leg, str(model.device))
        self._model = model
        self._preprocessing = threading.Lock()  # of the model's own processor

    @classmethod
    def load(cls, model: str, device: str | None = None) -> VisionEncoder:
        """A hub id or a folder; ``device``: None takes CUDA if there is one. bfloat16 on CUDA, else float32.

        Raises EncoderError where the model cannot be found or loaded, or lacks weights.
        """
        return cls.of(find_vision_checkpoint(model), device)

    @classmethod
    def of(cls, checkpoint: Checkpoint, device: str | None = None) -> VisionEncoder:
        """As ``load``, for a checkpoint that was found."""
        if checkpoint.base is not None:
            raise EncoderError(f"{checkpoint.name} is an adapter: merge it into {checkpoint.base.name} and save that")
        if checkpoint.family is not None and checkpoint.family.processor is not None:
            raise EncoderError(f"{checkpoint.name} is a model of colpali-engine: sentence-transformers cannot load it")
        from sentence_transformers import MultiVectorEncoder

        device, dtype = pick_device(device)
        with loading(checkpoint):
            model = MultiVectorEncoder(
                str(checkpoint.folder), device=device, local_files_only=True, model_kwargs={"dtype": dtype}
            )
        if getattr(model.processor, "image_processor", None) is None:
            raise EncoderError(f"{checkpoint.name} reads text, not pictures: it cannot be a vision model")
        check_weights(model[0].model, checkpoint.name, checkpoint.folder)
        attend_together(model)
        keep_nothing(model)
        return cls(model, checkpoint)

    def _features(self, processor: Any, what: Image | str, task: Task) -> Features:
        # The retrieval processors of transformers know their own prompts and augmentation, and MultiVectorEncoder
        # calls them as these methods do; but of ColModernVBERT's it makes no input_ids (6.2), so they are called here.
        if hasattr(processor, "process_images"):
            return super()._features(processor, what, task)
        with self._preprocessing:
            features = self._model.preprocess([what], prompt=self._model.prompts.get(task), task=task)
        return {name: value for name, value in features.items() if hasattr(value, "shape")}

    def _forward(self, features: Features, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
        import torch
        from sentence_transformers.util import batch_to_device

        modality = "message" if "message" in self._model[0].modality_config else _MODALITY[task]
        with torch.inference_mode(), self._precision(task):
            inputs = batch_to_device({**features, "modality": modality}, self._model.device)
            output = self._model(inputs, task=task)
        return output["token_embeddings"], output["attention_mask"].bool()

    def _weight(self, tokens: int) -> float:
        return 1.0 / tokens if self._model.similarity_fn_name == "meanmaxsim" else 1.0


_MODALITY: dict[Task, str] = {"document": "image", "query": "text"}
