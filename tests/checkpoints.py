"""Tiny random checkpoints: real architectures and real processors, a small tokenizer of our own, a seed.

Each function saves a model that a user could load into ``folder`` and returns the folder; one takes a
second or less. They need no weights and no network. ``make_checkpoint(family, folder)`` picks by name.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEED = 20250704
DIM = 16  # of the models whose library lets us choose
CORPUS = (
    "Query: what was the capital expenditure in 2018 and the revenue of the north region",
    "Question: Describe the image. Which table shows the costs of transport by year?",
)
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


def make_checkpoint(family: str, folder: Path) -> Path:
    """A tiny checkpoint of a family of ``MAKERS``, in a new folder."""
    import torch

    torch.manual_seed(SEED)
    folder.mkdir(parents=True)
    MAKERS[family](folder)
    return folder


def make_tokenizer(**special: Any) -> Any:
    """A byte-level BPE tokenizer of some 350 tokens, with special ones: ``pad_token=...``, ``extra=[...]``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    extra = special.pop("extra", [])
    named = [token for token in special.values() if isinstance(token, str)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.add_special_tokens({"additional_special_tokens": [token for token in extra if token not in named]})
    return fast


def _image_processor(model_type: str, name: str) -> type[Any]:
    """The image processor that transformers takes here: of torchvision where that is installed, else of PIL."""
    from importlib import import_module
    from importlib.util import find_spec

    backend, suffix = ("", "") if find_spec("torchvision") else ("pil_", "Pil")
    module = import_module(f"transformers.models.{model_type}.image_processing_{backend}{model_type}")
    return getattr(module, f"{name}ImageProcessor{suffix}")


# transformers-native late interaction


def _qwen_tokenizer() -> Any:
    extra = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    return make_tokenizer(pad_token="<|endoftext|>", eos_token="<|im_end|>", extra=extra)


def _qwen_images(min_pixels: int = 56 * 56, max_pixels: int = 28 * 28 * 40) -> Any:
    return _image_processor("qwen2_vl", "Qwen2VL")(min_pixels=min_pixels, max_pixels=max_pixels)


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return {key: tokenizer.convert_tokens_to_ids(token) for key, token in names.items()}


def _qwen_text(tokenizer: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    return TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope, "pad_token_id": tokenizer.pad_token_id}


def _qwen2_config(tokenizer: Any) -> Any:
    from transformers import Qwen2VLConfig

    vision = {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 32, "mlp_ratio": 2, "patch_size": 14}
    return Qwen2VLConfig(text_config=_qwen_text(tokenizer), vision_config=vision, **_qwen_ids(tokenizer))


def _colqwen2_native(folder: Path) -> None:
    from transformers import ColQwen2Config, ColQwen2ForRetrieval, ColQwen2Processor

    tokenizer = _qwen_tokenizer()
    config = ColQwen2Config(vlm_config=_qwen2_config(tokenizer).to_dict(), embedding_dim=DIM)
    ColQwen2ForRetrieval(config).save_pretrained(folder)
    ColQwen2Processor(_qwen_images(), tokenizer).save_pretrained(folder)


def _colpali_native(folder: Path) -> None:
    from transformers import ColPaliConfig, ColPaliForRetrieval, ColPaliProcessor

    tokenizer = make_tokenizer(pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    processor = ColPaliProcessor(_siglip_images(), tokenizer)
    vlm = _paligemma(tokenizer, processor.image_token_id)
    ColPaliForRetrieval(ColPaliConfig(vlm_config=vlm, embedding_dim=DIM)).save_pretrained(folder)
    processor.save_pretrained(folder)


def _siglip_images() -> Any:
    images = _image_processor("siglip", "Siglip")(size={"height": 112, "width": 112})
    images.image_seq_length = 64
    return images


def _paligemma(tokenizer: Any, image_token_id: int) -> dict[str, Any]:
    """The tokenizer as the processor left it: the processor adds 1,152 tokens to it."""
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 112, "patch_size": 14, "projection_dim": 32, "model_type": "siglip_vision_model"}
    text = TEXT | {"vocab_size": len(tokenizer), "head_dim": 8, "model_type": "gemma", "pad_token_id": 0}
    vlm = {"model_type": "paligemma", "vision_config": vision, "text_config": text, "projection_dim": 32}
    return vlm | {"image_token_id": image_token_id, "image_token_index": image_token_id}


def _split_tokenizer() -> Any:
    tiles = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
    extra = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", "<|im_start|>", *tiles]
    return make_tokenizer(pad_token="<pad>", bos_token="<|begin_of_text|>", eos_token="<end>", extra=extra)


def _split_images() -> Any:
    """Tiles of 64 pixels, at most 4 to a side."""
    images = _image_processor("idefics3", "Idefics3")
    return images(size={"longest_edge": 256}, max_image_size={"longest_edge": 64})


# 64 pixels in patches of 8, four of them shuffled into one: 4 × 4 patches a tile
_SPLIT_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_SPLIT_VISION |= {"image_size": 64, "patch_size": 8}


def _colmodernvbert(folder: Path) -> None:
    from transformers import ColModernVBertConfig, ColModernVBertForRetrieval, ColModernVBertProcessor

    tokenizer = _split_tokenizer()
    processor = ColModernVBertProcessor(_split_images(), tokenizer, image_seq_len=16)
    config = ColModernVBertConfig(vlm_config=_modernvbert(tokenizer), embedding_dim=DIM)
    ColModernVBertForRetrieval(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def _modernvbert(tokenizer: Any) -> dict[str, Any]:
    text = {key: value for key, value in TEXT.items() if key != "num_key_value_heads"}
    text |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "model_type": "modernbert"}
    vision = _SPLIT_VISION | {"model_type": "siglip_vision_model"}
    vlm = {"model_type": "modernvbert", "text_config": text, "vision_config": vision, "pixel_shuffle_factor": 2}
    return vlm | {"image_token_id": tokenizer.convert_tokens_to_ids("<image>")}


# colpali-engine


def _engine(folder: Path, config: Any, processor: Any, model_class: type[Any]) -> None:
    model = model_class(config)
    if hasattr(model, "multi_modal_projector"):  # Gemma 3 begins with zeros here, and sees nothing
        model.multi_modal_projector.mm_input_projection_weight.data.normal_(std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _engine_colqwen2(folder: Path) -> None:
    from colpali_engine.models import ColQwen2, ColQwen2Processor
    from transformers import Qwen2VLVideoProcessor

    tokenizer = _qwen_tokenizer()
    processor = ColQwen2Processor(_qwen_images(), tokenizer, video_processor=Qwen2VLVideoProcessor())
    _engine(folder, _qwen2_config(tokenizer), processor, ColQwen2)


def _engine_colqwen2_5(folder: Path) -> None:
    from colpali_engine.models import ColQwen2_5, ColQwen2_5_Processor
    from transformers import Qwen2_5_VLConfig, Qwen2VLVideoProcessor

    tokenizer = _qwen_tokenizer()
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32, "intermediate_size": 64}
    vision |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    config = Qwen2_5_VLConfig(text_config=_qwen_text(tokenizer), vision_config=vision, **_qwen_ids(tokenizer))
    processor = ColQwen2_5_Processor(_qwen_images(), tokenizer, video_processor=Qwen2VLVideoProcessor())
    _engine(folder, config, processor, ColQwen2_5)


def _engine_colqwen3(folder: Path) -> None:
    from colpali_engine.models import ColQwen3, ColQwen3Processor
    from transformers import Qwen3VLConfig, Qwen3VLVideoProcessor

    tokenizer = _qwen_tokenizer()
    vision = _QWEN3_VISION | {"deepstack_visual_indexes": [0]}
    text = _qwen_text(tokenizer) | {"head_dim": 8}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **_qwen_ids(tokenizer))
    processor = ColQwen3Processor(_qwen3_images(), tokenizer, video_processor=Qwen3VLVideoProcessor())
    _engine(folder, config, processor, ColQwen3)


def _engine_colqwen3_5(folder: Path) -> None:
    from colpali_engine.models import ColQwen3_5, ColQwen3_5Processor
    from transformers import Qwen3_5Config, Qwen3VLVideoProcessor

    tokenizer = _qwen_tokenizer()
    text = _qwen_text(tokenizer) | {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}
    text |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
    text |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    text["rope_parameters"] |= {"partial_rotary_factor": 1.0}
    config = Qwen3_5Config(text_config=text, vision_config=_QWEN3_VISION, **_qwen_ids(tokenizer))
    processor = ColQwen3_5Processor(_qwen3_images(), tokenizer, video_processor=Qwen3VLVideoProcessor())
    _engine(folder, config, processor, ColQwen3_5)


_QWEN3_VISION = {"depth": 2, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32, "intermediate_size": 64}
_QWEN3_VISION |= {"num_position_embeddings": 64}


def _qwen3_images() -> Any:
    """Patches of 32 pixels once merged."""
    size = {"shortest_edge": 64 * 64, "longest_edge": 32 * 32 * 40}
    return _image_processor("qwen2_vl", "Qwen2VL")(size=size, patch_size=16)


def _engine_colgemma3(folder: Path) -> None:
    from colpali_engine.models import ColGemma3, ColGemmaProcessor3
    from transformers import Gemma3Config

    parts = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = make_tokenizer(pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", extra_special_tokens=parts)
    tokenizer.chat_template = (
        "{% for turn in messages %}{% for part in turn.content %}"
        "{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text }}{% endif %}"
        "{% endfor %}{% endfor %}"
    )
    images = _image_processor("gemma3", "Gemma3")(size={"height": 128, "width": 128})
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 128, "patch_size": 8, "model_type": "siglip_vision_model"}
    text = TEXT | {"vocab_size": len(tokenizer), "head_dim": 8, "model_type": "gemma3_text", "pad_token_id": 0}
    names = {"boi_token_index": "boi_token", "eoi_token_index": "eoi_token", "image_token_id": "image_token"}
    ids = {name: tokenizer.convert_tokens_to_ids(parts[token]) for name, token in names.items()}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=64, **ids)
    _engine(folder, config, ColGemmaProcessor3(images, tokenizer, image_seq_length=64), ColGemma3)


def _engine_colmodernvbert(folder: Path) -> None:
    from colpali_engine.models import ColModernVBert, ColModernVBertProcessor
    from transformers import ModernVBertConfig

    tokenizer = _split_tokenizer()
    processor = ColModernVBertProcessor(_split_images(), tokenizer, image_seq_len=16)
    _engine(folder, ModernVBertConfig(**_modernvbert(tokenizer)), processor, ColModernVBert)


def _engine_colpali(folder: Path) -> None:
    from colpali_engine.models import ColPali, ColPaliProcessor
    from transformers import PaliGemmaConfig

    images, tokenizer = _siglip_images(), make_tokenizer(pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    processor = ColPaliProcessor(images, tokenizer)
    _engine(folder, PaliGemmaConfig(**_paligemma(tokenizer, processor.image_token_id)), processor, ColPali)


def _engine_colidefics3(folder: Path) -> None:
    from colpali_engine.models import ColIdefics3, ColIdefics3Processor
    from transformers import Idefics3Config

    tokenizer = _split_tokenizer()
    processor = ColIdefics3Processor(_split_images(), tokenizer, image_seq_len=16)
    text = TEXT | {"vocab_size": len(tokenizer), "model_type": "llama", "pad_token_id": tokenizer.pad_token_id}
    config = Idefics3Config(
        text_config=text,
        vision_config=_SPLIT_VISION,
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    _engine(folder, config, processor, ColIdefics3)


# text


def _bert(folder: Path, markers: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """A tiny BERT and its tokenizer, whose vocabulary has single letters and the corpus's words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = sorted({word.strip(string.punctuation).lower() for line in CORPUS for word in line.split()})
    letters = [*string.ascii_lowercase, *string.digits]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *markers, *string.punctuation, *letters]
    pieces += [f"##{letter}" for letter in letters] + [word for word in words if len(word) > 1]
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64)
    sizes = {key: TEXT[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")}
    return BertModel(BertConfig(vocab_size=len(pieces), max_position_embeddings=64, **sizes)), tokenizer


def _colbert_stanford(folder: Path) -> None:
    """The form of colbertv2.0: HF_ColBERT, ``linear.weight`` beside BERT's, artifact.metadata."""
    import torch
    from safetensors.torch import save_file

    model, tokenizer = _bert(folder, markers=("[unused0]", "[unused1]"))
    state = {f"bert.{name}": value.contiguous() for name, value in model.state_dict().items()}
    state["linear.weight"] = torch.randn(DIM, TEXT["hidden_size"])
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"architectures": ["HF_ColBERT"], "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    artifact = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": 12, "doc_maxlen": 48}
    (folder / "artifact.metadata").write_text(json.dumps(artifact | {"mask_punctuation": True}), encoding="utf-8")
    tokenizer.save_pretrained(folder)


def _colbert(folder: Path) -> None:
    """The same model as sentence-transformers saves it."""
    from tempfile import TemporaryDirectory

    from sentence_transformers import MultiVectorEncoder

    with TemporaryDirectory() as stanford:
        _colbert_stanford(Path(stanford))
        MultiVectorEncoder(stanford, device="cpu").save(str(folder), create_model_card=False)


MAKERS: dict[str, Callable[[Path], None]] = {
    "ColQwen2ForRetrieval": _colqwen2_native,
    "ColPaliForRetrieval": _colpali_native,
    "ColModernVBertForRetrieval": _colmodernvbert,
    "ColQwen2": _engine_colqwen2,
    "ColQwen2_5": _engine_colqwen2_5,
    "ColQwen3": _engine_colqwen3,
    "ColQwen3_5": _engine_colqwen3_5,
    "ColIdefics3": _engine_colidefics3,
    "ColGemma3": _engine_colgemma3,
    "ColModernVBert": _engine_colmodernvbert,
    "ColPali": _engine_colpali,
    "ColBERT": _colbert,
    "HF_ColBERT": _colbert_stanford,
}
