"""Pages on their way to the model's device: by which threads, in what dtype; and vectors on their way back."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from visrag.encode.preparing import LANCZOS, Preparing, fetch

BICUBIC = 3  # PIL's number
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_on_a_cpu_one_thread_prepares_in_order_with_a_processor_of_its_own() -> None:
    processor: list[int] = []
    preparing = Preparing(processor, "cpu", torch.float32)

    def prepare(own: list[int], number: int) -> tuple[int, str, list[int]]:
        own.append(number)
        return number, threading.current_thread().name, own

    numbers, threads, own = zip(*preparing.each(prepare, range(5)), strict=True)
    assert numbers == (0, 1, 2, 3, 4)
    assert len({*threads} - {threading.current_thread().name}) == 1
    assert [len(each) for each in own] == [5] * 5  # one list
    assert processor == []


def test_what_preparing_raises_is_raised_in_its_place() -> None:
    def prepare(_: None, number: int) -> float:
        return 1 / number

    found = Preparing(None, "cpu", torch.float32).each(prepare, [2, 0, 1])
    assert next(found) == 0.5
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_no_more_is_taken_than_is_needed_soon() -> None:
    """Two pages ahead: pictures take memory."""
    taken: list[int] = []

    def pages() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    found = Preparing(None, "cpu", torch.float32).each(lambda _, number: number, pages())
    assert (next(found), len(taken)) == (0, 3)
    assert (next(found), len(taken)) == (1, 4)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (5, 4), (17, 16), (64, 16)])
def test_for_a_gpu_all_cores_but_one_prepare_up_to_sixteen(
    cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert Preparing(None, "cuda", torch.bfloat16)._threads._max_workers == threads


def test_on_a_cpu_features_stay_as_they_are() -> None:
    features = {"pixel_values": torch.ones(1, 3), "input_ids": torch.tensor([[7]])}
    assert Preparing(None, "cpu", torch.bfloat16).to_device(features) is features


def test_vectors_come_back_in_float32_and_masks_as_they_are() -> None:
    vectors = fetch(torch.tensor([[1.0, 1 / 3]], dtype=torch.bfloat16)).numpy()
    assert (vectors.dtype, vectors.tolist()) == (np.float32, [[1.0, 171 / 512]])  # 1/3 in 8 bits
    mask = fetch(torch.tensor([True, False])).numpy()
    assert (mask.dtype, mask.tolist()) == (np.bool_, [True, False])


@gpu
def test_a_gpu_gets_pictures_in_its_dtype_and_ids_as_they_are() -> None:
    preparing = Preparing(None, "cuda", torch.bfloat16)
    features = {"pixel_values": torch.tensor([1.0, 0.5]), "input_ids": torch.tensor([3, 70_000])}
    (found,) = preparing.each(lambda _, given: preparing.to_device(given), [features])
    assert all(value.is_cuda for value in found.values())
    assert (found["pixel_values"].dtype, found["pixel_values"].tolist()) == (torch.bfloat16, [1.0, 0.5])
    assert (found["input_ids"].dtype, found["input_ids"].tolist()) == (torch.int64, [3, 70_000])
    assert fetch(found["pixel_values"]).numpy().tolist() == [1.0, 0.5]


@gpu
@pytest.mark.parametrize(
    ("backend", "resample", "device"),
    [("torchvision", BICUBIC, "cuda"), ("torchvision", LANCZOS, None), ("pil", BICUBIC, None)],
)
def test_a_gpu_prepares_what_it_can_prepare_alike(backend: str, resample: int, device: str | None) -> None:
    images = SimpleNamespace(backend=backend, resample=resample, device=None)
    preparing = Preparing(SimpleNamespace(image_processor=images), "cuda", torch.bfloat16)

    def prepare(own: Any, _: None) -> Any:
        return own.image_processor.device

    assert list(preparing.each(prepare, [None])) == [device]
    assert images.device is None
