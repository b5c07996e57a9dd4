"""Vision models at their real sizes with random weights, for encode.py: what they are, their files, their FLOPs.

Sizes are those of the published configurations: vidore/colpali-v1.3 (google/paligemma-3b-pt-448), vidore/colqwen2-v1.0
(Qwen/Qwen2-VL-2B-Instruct), vidore/colqwen2.5-v0.2 (Qwen/Qwen2.5-VL-3B-Instruct), ModernVBERT/colmodernvbert
(jhu-clsp/ettin-encoder-150m, google/siglip2-base-patch16-512). The embedding tables have their real sizes, too, though
the tokenizer is a small one of our own, which makes some ten tokens more of a prompt.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from checkpoints import make_tokenizer

SEED = 20261121
BLOCK = 4_194_301  # a prime: rows of a weight that repeats so many random values differ
DIM = 128
VISION = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "connector")  # modules by their last name
Made = tuple[Any, Any]  # a model, whose weights are on the meta device, and its processor


@dataclass(frozen=True, slots=True)
class Model:
    """``native``: made with the class of transformers, None where there is none. ``engine``: with colpali-engine's.
    Both take a depth (None: the real one) and ``tokens``. ``tokens``: image tokens a page at most, None: one choice."""

    name: str
    native: Callable[[int | None, int | None], Made] | None
    engine: Callable[[int | None, int | None], Made]
    tokens: int | None = None
    bare: Callable[[int | None, int | None], Made] | None = None

    @property
    def label(self) -> str:
        return self.name if self.tokens is None else f"{self.name} at {self.tokens}"


def depth_of(real: int, layers: int | None) -> int:
    return real if layers is None else min(real, layers)


def image_processor(model_type: str, name: str) -> type[Any]:
    """The image processor that transformers takes here: of torchvision where that is installed, else of PIL."""
    backends = [("", "")] if find_spec("torchvision") else [("pil_", "Pil"), ("", "")]
    for backend, suffix in backends:
        try:
            module = import_module(f"transformers.models.{model_type}.image_processing_{backend}{model_type}")
            return getattr(module, f"{name}ImageProcessor{suffix}")  # type: ignore[no-any-return]
        except (ImportError, AttributeError):
            continue
    raise SystemExit(f"this transformers has no image processor of {name}")


def on_meta(model_class: Callable[[Any], Any], config: Any) -> Any:
    import torch

    with torch.device("meta"):
        return model_class(config).to(torch.bfloat16).eval()


# ColPali


def paligemma(layers: int | None, tokenizer: Any, image_token_id: int) -> dict[str, Any]:
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": depth_of(27, layers)}
    vision |= {"num_attention_heads": 16, "image_size": 448, "patch_size": 14, "projection_dim": 2048}
    vision |= {"model_type": "siglip_vision_model", "vision_use_head": False}
    text = {"hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": depth_of(18, layers)}
    text |= {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 257_216}
    text |= {"model_type": "gemma", "pad_token_id": tokenizer.pad_token_id}
    vlm = {"model_type": "paligemma", "vision_config": vision, "text_config": text, "projection_dim": 2048}
    return vlm | {"image_token_id": image_token_id, "image_token_index": image_token_id}


def colpali_parts() -> tuple[Any, Any]:
    images = image_processor("siglip", "Siglip")(size={"height": 448, "width": 448})
    images.image_seq_length = 1024
    return images, make_tokenizer(pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def colpali(layers: int | None, _: int | None) -> Made:
    from transformers import ColPaliConfig, ColPaliForRetrieval, ColPaliProcessor

    images, tokenizer = colpali_parts()
    processor = ColPaliProcessor(images, tokenizer)
    vlm = paligemma(layers, tokenizer, processor.image_token_id)
    return on_meta(ColPaliForRetrieval, ColPaliConfig(vlm_config=vlm, embedding_dim=DIM)), processor


def colpali_engine(layers: int | None, _: int | None) -> Made:
    from colpali_engine.models import ColPali, ColPaliProcessor
    from transformers import PaliGemmaConfig

    images, tokenizer = colpali_parts()
    processor = ColPaliProcessor(images, tokenizer)
    return on_meta(ColPali, PaliGemmaConfig(**paligemma(layers, tokenizer, processor.image_token_id))), processor


# ColQwen2, ColQwen2.5


def qwen_parts(tokens: int | None) -> tuple[Any, Any, dict[str, Any]]:
    """The image processor, the tokenizer, and the ids of the tokens that a configuration names."""
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    extra = ["<|im_start|>", "<|im_end|>", *names.values()]
    tokenizer = make_tokenizer(pad_token="<|endoftext|>", eos_token="<|im_end|>", extra=extra)
    most = 28 * 28 * (tokens or 768)
    images = image_processor("qwen2_vl", "Qwen2VL")(min_pixels=4 * 28 * 28, max_pixels=most)
    return images, tokenizer, {key: tokenizer.convert_tokens_to_ids(token) for key, token in names.items()}


def qwen_text(hidden: int, inner: int, heads: int, depth: int, tokenizer: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1_000_000.0}
    text = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": depth, "rope_parameters": rope}
    text |= {"num_attention_heads": heads, "num_key_value_heads": 2, "vocab_size": 151_936, "rms_norm_eps": 1e-6}
    return text | {"max_position_embeddings": 32_768, "pad_token_id": tokenizer.pad_token_id}


def qwen2_config(layers: int | None, tokenizer: Any, ids: dict[str, Any]) -> Any:
    from transformers import Qwen2VLConfig

    vision = {"depth": depth_of(32, layers), "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "hidden_size": 1536}
    vision |= {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
    text = qwen_text(1536, 8960, 12, depth_of(28, layers), tokenizer)
    return Qwen2VLConfig(text_config=text, vision_config=vision, **ids)


def colqwen2(layers: int | None, tokens: int | None) -> Made:
    from transformers import ColQwen2Config, ColQwen2ForRetrieval, ColQwen2Processor

    images, tokenizer, ids = qwen_parts(tokens)
    vlm = qwen2_config(layers, tokenizer, ids).to_dict()
    model = on_meta(ColQwen2ForRetrieval, ColQwen2Config(vlm_config=vlm, embedding_dim=DIM))
    return model, ColQwen2Processor(images, tokenizer)


def colqwen2_engine(layers: int | None, tokens: int | None) -> Made:
    from colpali_engine.models import ColQwen2, ColQwen2Processor
    from transformers import Qwen2VLVideoProcessor

    images, tokenizer, ids = qwen_parts(tokens)
    processor = ColQwen2Processor(images, tokenizer, video_processor=Qwen2VLVideoProcessor())
    return on_meta(ColQwen2, qwen2_config(layers, tokenizer, ids)), processor


def qwen2_5_config(layers: int | None, tokenizer: Any, ids: dict[str, Any]) -> Any:
    from transformers import Qwen2_5_VLConfig

    vision = {"depth": depth_of(32, layers), "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420}
    vision |= {"out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
    vision |= {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
    text = qwen_text(2048, 11_008, 16, depth_of(36, layers), tokenizer)
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)


def colqwen2_5_engine(layers: int | None, tokens: int | None) -> Made:
    from colpali_engine.models import ColQwen2_5, ColQwen2_5_Processor
    from transformers import Qwen2VLVideoProcessor

    images, tokenizer, ids = qwen_parts(tokens)
    processor = ColQwen2_5_Processor(images, tokenizer, video_processor=Qwen2VLVideoProcessor())
    return on_meta(ColQwen2_5, qwen2_5_config(layers, tokenizer, ids)), processor


def qwen2_5_bare(layers: int | None, tokens: int | None) -> Made:
    """The model under ColQwen2.5, without its projection (0.4 GFLOP): counts where colpali-engine is missing."""
    from transformers import ColQwen2Processor, Qwen2_5_VLModel

    images, tokenizer, ids = qwen_parts(tokens)
    return on_meta(Qwen2_5_VLModel, qwen2_5_config(layers, tokenizer, ids)), ColQwen2Processor(images, tokenizer)


# ColModernVBERT


def modernvbert(layers: int | None, tokenizer: Any) -> dict[str, Any]:
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": depth_of(12, layers)}
    vision |= {"num_attention_heads": 12, "image_size": 512, "patch_size": 16, "model_type": "siglip_vision_model"}
    text = {"hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": depth_of(22, layers)}
    text |= {
        "num_attention_heads": 12,
        "vocab_size": 50_408,
        "model_type": "modernbert",
        "max_position_embeddings": 7999,
    }
    text |= {"pad_token_id": tokenizer.pad_token_id}
    vlm = {"model_type": "modernvbert", "text_config": text, "vision_config": vision, "pixel_shuffle_factor": 4}
    return vlm | {"image_token_id": tokenizer.convert_tokens_to_ids("<image>")}


def split_parts() -> tuple[Any, Any]:
    """Pages of 2,048 pixels in tiles of 512, each 64 tokens."""
    tiles = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
    extra = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", "<|im_start|>", *tiles]
    tokenizer = make_tokenizer(pad_token="<pad>", bos_token="<|begin_of_text|>", eos_token="<end>", extra=extra)
    images = image_processor("idefics3", "Idefics3")
    return images(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}), tokenizer


def colmodernvbert(layers: int | None, _: int | None) -> Made:
    from transformers import ColModernVBertConfig, ColModernVBertForRetrieval, ColModernVBertProcessor

    images, tokenizer = split_parts()
    processor = ColModernVBertProcessor(images, tokenizer, image_seq_len=64)
    config = ColModernVBertConfig(vlm_config=modernvbert(layers, tokenizer), embedding_dim=DIM)
    return on_meta(ColModernVBertForRetrieval, config), processor


def colmodernvbert_engine(layers: int | None, _: int | None) -> Made:
    from colpali_engine.models import ColModernVBert, ColModernVBertProcessor
    from transformers import ModernVBertConfig

    images, tokenizer = split_parts()
    processor = ColModernVBertProcessor(images, tokenizer, image_seq_len=64)
    return on_meta(ColModernVBert, ModernVBertConfig(**modernvbert(layers, tokenizer))), processor


MODELS = {
    "colmodernvbert": Model("ColModernVBERT-250M", colmodernvbert, colmodernvbert_engine),
    "colqwen2-384": Model("ColQwen2-2B", colqwen2, colqwen2_engine, 384),
    "colqwen2-512": Model("ColQwen2-2B", colqwen2, colqwen2_engine, 512),
    "colqwen2-768": Model("ColQwen2-2B", colqwen2, colqwen2_engine, 768),
    "colqwen2.5-768": Model("ColQwen2.5-3B", None, colqwen2_5_engine, 768, qwen2_5_bare),
    "colpali": Model("ColPali-3B", colpali, colpali_engine),
}


# Files


def checkpoint(model: Model, root: Path, layers: int | None, device: str, engine: bool = False) -> Path:
    """The model's folder in ``root``, made where it is missing. ``engine``: colpali-engine's class of it."""
    build = model.engine if engine or model.native is None else model.native
    name = f"{model.name}{'-engine' if engine else ''}{f'-{layers}-layers' if layers else ''}"
    weights, folder = root / f"{name}-weights", root / f"{name}{f'-{model.tokens}' if model.tokens else ''}"
    if (folder / "complete").exists():
        return folder
    made, processor = build(layers, model.tokens)
    if not (weights / "complete").exists():
        shutil.rmtree(weights, ignore_errors=True)
        fill(made, device).save_pretrained(weights)
        (weights / "complete").touch()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in weights.iterdir():  # one set of weights serves all budgets of tokens
        os.link(path, folder / path.name)
    (folder / "complete").unlink()
    processor.save_pretrained(folder)
    (folder / "complete").touch()
    return folder


def fill(model: Any, device: str) -> Any:
    """Weights that keep activations near 1, so that nothing becomes NaN; the same on every machine."""
    import torch

    noise = torch.randn(BLOCK, generator=torch.Generator().manual_seed(SEED)).to(torch.bfloat16).to(device)
    model.to_empty(device=device)
    start = 0
    with torch.no_grad():
        for name, value in model.named_parameters():  # buffers are made anew when a model is loaded
            if value.ndim < 2:
                value.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            size, flat = value.numel(), value.view(-1)
            for first in range(0, size, BLOCK):
                flat[first : first + BLOCK] = noise.roll(-start)[: min(BLOCK, size - first)]
            value.mul_(0.02 if "embed" in name else (value.numel() / len(value)) ** -0.5)
            start = (start + 104_729) % BLOCK
    return model


# FLOPs


@dataclass(frozen=True, slots=True)
class Count:
    """Floating-point operations of one page, by part of the model."""

    vision: float
    language: float

    @property
    def all(self) -> float:
        return self.vision + self.language


class Counter:
    """Counts a model's FLOPs on pages as its processor makes them, without making its products.

    All weights are one zero that is seen in their shapes, so a model takes no memory; products of matrices give zeros
    of the shape that they would have. What FlopCounterMode counts of attention is the whole square, masked or not.
    """

    def __init__(self, model: Model, layers: int | None) -> None:
        import torch

        build = model.native or (model.engine if find_spec("colpali_engine") else model.bare)
        assert build is not None
        self.model, self.processor = build(layers, model.tokens)
        self.parameters = sum(value.numel() for value in self.model.parameters())
        self.vision_parameters = sum(
            value.numel() for name, value in self.model.named_parameters() if {*name.split(".")} & {*VISION}
        )
        for module in self.model.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    zero = torch.zeros((), dtype=value.dtype).expand(value.shape)
                    module._parameters[name] = torch.nn.Parameter(zero, requires_grad=False)
            for name, value in module._buffers.items():
                if value is not None:
                    module._buffers[name] = torch.zeros(value.shape, dtype=value.dtype)
        self._found: dict[Any, Count] = {}

    def tokens(self, features: Any) -> int:
        config = self.model.config
        image = getattr(getattr(config, "vlm_config", config), "image_token_id", None)
        return int((features["input_ids"] == image).sum())

    def features(self, picture: Any) -> Any:
        return self.processor.process_images([picture])

    def __call__(self, features: Any) -> Count:
        key = tuple((name, tuple(value.shape)) for name, value in sorted(features.items()))
        if key not in self._found:
            self._found[key] = self._count(features)
        return self._found[key]

    def _count(self, features: Any) -> Count:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        mapping = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}
        counter = FlopCounterMode(display=False, custom_mapping=mapping)
        inputs = {name: as_bfloat16(value) for name, value in features.items()}
        with torch.no_grad(), unmade_products(), counter:
            self.model(**inputs)
        counts = {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}
        vision = sum(
            count
            for name, count in counts.items()
            if name.split(".")[-1] in VISION and not {*name.split(".")[:-1]} & {*VISION}
        )
        return Count(vision, counts["Global"] - vision)


def as_bfloat16(value: Any) -> Any:
    import torch

    return value.to(torch.bfloat16) if value.is_floating_point() else value


def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Of shapes (b, heads, n, d): products with keys, then with values."""
    heads = query[0] * query[1] * query[2]
    return int(2 * heads * key[2] * (query[3] + value[3]))


@contextmanager
def unmade_products() -> Iterator[None]:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only
    from torch.utils.flop_counter import flop_registry

    skipped = {*flop_registry, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu}
    to_meta = partial(tree_map_only, torch.Tensor, lambda value: value.to("meta"))

    class Unmade(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func._overloadpacket not in skipped:
                return func(*args, **(kwargs or {}))
            out = func(*to_meta(args), **to_meta(kwargs or {}))
            return tree_map_only(torch.Tensor, lambda made: torch.zeros(made.shape, dtype=made.dtype), out)

    with Unmade():
        yield
