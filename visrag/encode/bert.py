"""The forward pass of a BERT encoder in numpy, for one question at a time.

A search need not wait the seconds that importing torch takes: the question's vectors come from here,
the pages' from torch. A test holds the two against each other.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from ..blas import one_blas_thread
from ..records import Floats

_erf = np.frompyfunc(math.erf, 1, 1)


class BertQuestions:
    """A BERT checkpoint's encoder (Devlin et al. 2018, post-layer-norm, absolute positions, exact GELU)."""

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        config = json.loads((folder / "config.json").read_text())
        self._heads: int = config["num_attention_heads"]
        self._layers: int = config["num_hidden_layers"]
        self._eps: float = config["layer_norm_eps"]
        self._limit: int = config["max_position_embeddings"]
        self._weights = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()

    @staticmethod
    def supports(folder: Path) -> bool:
        """Whether a checkpoint is a BERT of the kind computed here."""
        path = folder / "config.json"
        needed = (folder / "model.safetensors", folder / "tokenizer.json")
        if not path.is_file() or not all(file.is_file() for file in needed):
            return False
        config = json.loads(path.read_text())
        return bool(
            config.get("model_type") == "bert"
            and config.get("hidden_act") == "gelu"
            and config.get("position_embedding_type", "absolute") == "absolute"
        )

    def __call__(self, question: str, limit: int) -> tuple[Floats, tuple[str, ...], list[bool]]:
        """The last hidden states (t, dim), the tokens, and which of them are special.

        ``limit``: tokens kept, [CLS] and [SEP] included.
        """
        self._tokenizer.enable_truncation(min(limit, self._limit))
        encoding = self._tokenizer.encode(question)
        ids = np.array(encoding.ids)
        hidden = (
            self._weight("embeddings.word_embeddings.weight")[ids]
            + self._weight("embeddings.position_embeddings.weight")[: len(ids)]
            + self._weight("embeddings.token_type_embeddings.weight")[0]
        )
        hidden = self._norm(hidden, "embeddings.LayerNorm")
        with one_blas_thread():
            for layer in range(self._layers):
                hidden = self._layer(hidden, f"encoder.layer.{layer}")
        return hidden, tuple(encoding.tokens), [bool(flag) for flag in encoding.special_tokens_mask]

    def _layer(self, hidden: Floats, name: str) -> Floats:
        query, key, value = (
            self._linear(hidden, f"{name}.attention.self.{part}").reshape(len(hidden), self._heads, -1)
            for part in ("query", "key", "value")
        )
        scores = np.einsum("ihd,jhd->hij", query, key) / math.sqrt(query.shape[2])
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        scores /= scores.sum(axis=2, keepdims=True)
        context = np.einsum("hij,jhd->ihd", scores, value).reshape(hidden.shape)
        attended = self._linear(context, f"{name}.attention.output.dense")
        hidden = self._norm(hidden + attended, f"{name}.attention.output.LayerNorm")
        inner = self._linear(hidden, f"{name}.intermediate.dense")
        inner *= 0.5 * (1.0 + _erf(inner / math.sqrt(2.0)).astype(np.float32))
        return self._norm(hidden + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _weight(self, name: str) -> Floats:
        weight = self._weights.get(name)
        return weight if weight is not None else self._weights[f"bert.{name}"]

    def _linear(self, x: Floats, name: str) -> Floats:
        result: Floats = x @ self._weight(f"{name}.weight").T + self._weight(f"{name}.bias")
        return result

    def _norm(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + self._eps)
        result: Floats = centred / scale * self._weight(f"{name}.weight") + self._weight(f"{name}.bias")
        return result
