"""Exact MaxSim of one question against all pages in a GPU's memory: a fused Triton kernel beside what else scores it.

    python benchmarks/maxsim_gpu.py [--pages 100000] [--patches 768] [--dim 128] [--tokens 20] [--rounds 11] [--json]
    python benchmarks/maxsim_gpu.py --check     # only whether the kernel is right; on a CPU in Triton's interpreter

The kernel reads each patch once for all tokens of the question and keeps no similarities: pages are ragged, by offsets,
and no padding scores. In int8 the products are added up in int32, and a page's one scale is multiplied in at its end,
as visrag does it on a CPU. Pages are of random unit vectors. "bound": the time of the bytes of all patches at the
bandwidth of a copy on the device, in the same run; "share": that time, of the time taken. Medians of the rounds, after
two that warm up. "recall@10": of the ten best by bfloat16 vectors multiplied in float32.

Peers that are not installed are left out: pip install flash-maxsim late-interaction-kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when the kernel is defined

try:
    import triton
    import triton.language as tl
    from triton.runtime.errors import OutOfResources
except ImportError:
    raise SystemExit("maxsim_gpu.py needs Triton: pip install triton") from None

from visrag.compress import to_int8, tokens_to_int8
from visrag.maxsim import Block, maxsim, score_pages

SETTINGS = (
    (64, 4, 3),
    (64, 4, 4),
    (128, 4, 3),
    (128, 4, 4),
    (128, 8, 3),
    (256, 8, 3),
)  # patches at once, warps, stages
CHUNK = 1000  # pages whose similarities torch holds at once
Scorer = Callable[[], torch.Tensor]


@triton.jit
def _maxsim(
    query,  # (TOKENS, dim), rows from ``tokens`` on are zero
    factors,  # (TOKENS,) float32: a token's weight × scale, 0 for such rows
    vectors,  # (n, dim), page after page
    offsets,  # (p + 1,) int64: a page's first row, the end last
    scales,  # (p,) float32
    scores,  # (p,) float32
    dim: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,  # dimensions multiplied at once
    INTEGER: tl.constexpr,
):
    page = tl.program_id(0)
    first = tl.load(offsets + page)
    count = (tl.load(offsets + page + 1) - first).to(tl.int32)
    token, row, inner = tl.arange(0, TOKENS), tl.arange(0, ROWS), tl.arange(0, DEPTH)
    base = vectors + first * dim
    if INTEGER:
        lowest: tl.constexpr = -2147483648
        best = tl.full([TOKENS], lowest, tl.int32)
    else:
        lowest: tl.constexpr = float("-inf")
        best = tl.full([TOKENS], lowest, tl.float32)
    for start in range(0, count, ROWS):
        inside = start + row < count
        found = tl.zeros([ROWS, TOKENS], best.dtype)
        for step in tl.static_range(0, dim, DEPTH):
            known = step + inner < dim
            patches = tl.load(
                base + (start + row)[:, None] * dim + (step + inner)[None, :],
                mask=inside[:, None] & known[None, :],
                other=0,
            )
            asked = tl.load(query + token[None, :] * dim + (step + inner)[:, None], mask=known[:, None], other=0)
            found = tl.dot(patches, asked, found, out_dtype=found.dtype)
        # a row beyond the page's end is zeros, which a best match below zero must not lose to
        best = tl.maximum(best, tl.max(tl.where(inside[:, None], found, lowest), axis=0))
    score = tl.sum(best.to(tl.float32) * tl.load(factors + token), axis=0) * tl.load(scales + page)
    tl.store(scores + page, tl.where(count > 0, score, float("nan")))


def fused(
    query: torch.Tensor,
    factors: torch.Tensor,
    vectors: torch.Tensor,
    offsets: torch.Tensor,
    scales: torch.Tensor,
    setting: tuple[int, int, int] = SETTINGS[3],
) -> torch.Tensor:
    """MaxSim of pages, (p,) float32; NaN for one without vectors.

    ``query`` (t, dim) and ``vectors`` (n, dim), both int8, or both bfloat16 or float16; ``factors`` (t,) float32, what
    each token's best match counts; ``offsets`` (p + 1,) int64, the first row of each page, and n; ``scales`` (p,)
    float32.
    """
    rows, warps, stages = setting
    tokens, dim = query.shape
    room = max(16, triton.next_power_of_2(tokens))
    padded = torch.zeros(room, dim, dtype=query.dtype, device=query.device)
    padded[:tokens] = query
    counted = torch.zeros(room, device=query.device)
    counted[:tokens] = factors
    depth = next(size for size in (128, 64, 32) if dim % size == 0 or size == 32)
    scores = torch.empty(len(scales), device=query.device)
    _maxsim[(len(scales),)](
        padded, counted, vectors, offsets, scales, scores, dim, room, rows, depth, query.dtype == torch.int8,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return scores


# Whether it is right


def check(device: str) -> str:
    """Compares the kernel with visrag's on ragged pages. Raises AssertionError."""
    rng = np.random.default_rng(0)
    cases = 0
    for dim in (96, 128, 320):
        for tokens in (1, 7, 16, 33, 70):
            counts = [1, 0, 17, 64, 65, 200, 3]
            pages = [rng.standard_normal((count, dim), np.float32) for count in counts]
            query = rng.standard_normal((tokens, dim), np.float32)
            pages[4] = -np.abs(pages[4]) * np.sign(query[0])  # all of its matches with the first token are negative
            pages[6] = -query.mean(axis=0, keepdims=True) + 0.01 * pages[6]
            weights = rng.uniform(0.1, 1.0, tokens).astype(np.float32)
            weights[tokens // 2] = 0.0 if tokens > 1 else 1.0
            for setting in SETTINGS[:1] if device == "cpu" else SETTINGS:
                for integer in (True, False):
                    with suppress(OutOfResources):
                        compare(pages, query, weights, device, setting, integer)
                        cases += 1
    return f"{cases} cases are right: dims 96, 128, 320; 1 to 70 tokens; ragged, empty, and with matches below zero"


def compare(
    pages: list[Any], query: Any, weights: Any, device: str, setting: tuple[int, int, int], integer: bool
) -> None:
    counts = np.array([len(page) for page in pages])
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)).to(device)
    if integer:
        codes = [to_int8(page) for page in pages]
        flat = np.concatenate([found for found, _ in codes])
        scales = np.array([scale for _, scale in codes], np.float32)
        asked, own = tokens_to_int8(query)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64) * query.shape[1]
        zeros = np.zeros(len(pages), np.int64)
        block = Block((flat.reshape(-1),), zeros, starts, counts.astype(np.int64), scales, query.shape[1], False)
        expected = score_pages(query, weights, block)
        given = [torch.from_numpy(value).to(device) for value in (asked, weights * own, flat)]
    else:
        # the interpreter cannot multiply bfloat16
        half = torch.float16 if device == "cpu" else torch.bfloat16
        rounded = [torch.from_numpy(value).to(half) for value in (query, np.concatenate(pages))]
        flat = rounded[1].float().numpy()
        parts = np.split(flat, np.cumsum(counts)[:-1])
        expected = np.array([maxsim(rounded[0].float().numpy(), weights, page) for page in parts])
        scales = np.ones(len(pages), np.float32)
        given = [rounded[0].to(device), torch.from_numpy(weights).to(device), rounded[1].to(device)]
    found = fused(*given, offsets, torch.from_numpy(scales).to(device), setting).cpu().numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-3, err_msg=f"{query.shape} {setting} {integer}")


# The measure


def made(pages: int, patches: int, dim: int, tokens: int, device: str) -> SimpleNamespace:
    """Pages (p, n, dim) as bfloat16 and as int8 with their scales, and a question."""
    generator = torch.Generator(device).manual_seed(0)
    floats = torch.empty(pages, patches, dim, dtype=torch.bfloat16, device=device)
    codes = torch.empty(pages, patches, dim, dtype=torch.int8, device=device)
    scales = torch.empty(pages, device=device)
    for first in range(0, pages, CHUNK):
        some = torch.randn(min(CHUNK, pages - first), patches, dim, device=device, generator=generator)
        some = torch.nn.functional.normalize(some, dim=-1)
        largest = some.abs().amax(dim=(1, 2)) / 127
        floats[first : first + CHUNK], scales[first : first + CHUNK] = some.bfloat16(), largest
        codes[first : first + CHUNK] = torch.round(some / largest[:, None, None]).to(torch.int8)
    query = torch.nn.functional.normalize(torch.randn(tokens, dim, device=device, generator=generator), dim=-1)
    asked, own = tokens_to_int8(query.cpu().numpy())
    offsets = torch.arange(pages + 1, device=device, dtype=torch.int64) * patches
    return SimpleNamespace(
        floats=floats, codes=codes, scales=scales, query=query, offsets=offsets,
        asked=torch.from_numpy(asked).to(device), own=torch.from_numpy(own).to(device),
        ones=torch.ones(pages, device=device), weights=torch.ones(tokens, device=device),
    )  # fmt: skip


def ours(data: SimpleNamespace) -> Iterator[tuple[str, str, Scorer]]:
    dim = data.query.shape[1]
    forms = {
        "int8": (data.asked, data.own, data.codes.view(-1, dim), data.offsets, data.scales),
        "bfloat16": (data.query.bfloat16(), data.weights, data.floats.view(-1, dim), data.offsets, data.ones),
    }
    for mode, given in forms.items():
        times = {}
        for setting in SETTINGS:
            with suppress(OutOfResources):  # more shared memory than this GPU has
                times[setting] = typical(lambda given=given, setting=setting: fused(*given, setting), 3)
        best = min(times, key=lambda setting: times[setting])
        yield f"fused kernel {best}", mode, lambda given=given, best=best: fused(*given, best)


def by_torch(data: SimpleNamespace) -> Iterator[tuple[str, str, Scorer]]:
    asked = data.query.bfloat16()

    def einsum() -> torch.Tensor:
        parts = data.floats.split(CHUNK)
        return torch.cat([torch.einsum("td,pnd->ptn", asked, part).amax(dim=2).float().sum(dim=1) for part in parts])

    def products() -> torch.Tensor:
        tokens, dim = data.asked.shape
        right = torch.zeros(-tokens % 8 + tokens, dim, dtype=torch.int8, device=asked.device)
        right[:tokens] = data.asked
        found = []
        for part in data.codes.split(CHUNK):
            sums = torch._int_mm(part.view(-1, dim), right.T)[:, :tokens]
            found.append(sums.view(len(part), -1, tokens).amax(dim=1).float() @ data.own)
        return torch.cat(found) * data.scales

    yield f"torch einsum, {CHUNK} pages at once", "bfloat16", einsum
    yield f"torch _int_mm, {CHUNK} pages at once", "int8", products


def by_flash_maxsim(data: SimpleNamespace) -> Iterator[tuple[str, str, Scorer]]:
    import flash_maxsim

    name = f"flash-maxsim {version('flash-maxsim')}"
    asked = data.query.bfloat16()
    yield name, "bfloat16", lambda: flash_maxsim.flash_maxsim(asked, data.floats)
    scales = data.scales[:, None].expand(-1, data.codes.shape[1]).half().contiguous()
    own = data.own.half()
    yield name, "int8", lambda: flash_maxsim.flash_maxsim_int8x8(None, data.codes, scales, data.asked, own)


def by_late_interaction_kernels(data: SimpleNamespace) -> Iterator[tuple[str, str, Scorer]]:
    from late_interaction_kernels import maxsim as theirs

    asked = data.query.bfloat16()
    name = f"late-interaction-kernels {version('late-interaction-kernels')}"
    yield name, "bfloat16", lambda: theirs(asked, data.floats)


PEERS = {
    "torch": by_torch, "flash-maxsim": by_flash_maxsim, "late-interaction-kernels": by_late_interaction_kernels,
}  # fmt: skip


def typical(work: Callable[[], Any], rounds: int) -> float:
    """Milliseconds, the median of the rounds."""
    times = []
    for _ in range(rounds + 2):
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        work()
        ended.record()
        ended.synchronize()
        times.append(begun.elapsed_time(ended))
    return statistics.median(times[2:])


def bandwidth(device: str, size: int = 4 << 30) -> float:
    """Bytes a second that a copy on the device reads and writes."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / typical(lambda: target.copy_(source), 9) * 1000


def engines(data: SimpleNamespace) -> Iterator[tuple[str, str, Scorer]]:
    yield from ours(data)
    for name, peer in PEERS.items():
        try:
            yield from peer(data)
        except (ImportError, PackageNotFoundError) as error:
            print(f"left out: {name} ({error})", file=sys.stderr, flush=True)


def run(as_json: bool, sizes: tuple[int, int, int, int], rounds: int = 11) -> None:
    """Prints the table. ``sizes``: pages, patches, dim, tokens."""
    device = "cuda"
    pages, patches, dim, tokens = sizes
    note = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    note(check(device))
    speed = bandwidth(device)
    data = made(pages, patches, dim, tokens, device)
    note(f"{torch.cuda.get_device_name(device)}, Triton {triton.__version__}, a copy moves {speed / 1e9:,.0f} GB/s")
    note(f"{'engine':38} {'mode':9} {'ms':>8} {'GB/s':>7}   share  recall@10  times ours")
    exact, first = None, dict[str, float]()
    for name, mode, score in engines(data):
        try:
            found = score()
            taken = typical(score, rounds)
        except Exception as error:  # whatever a peer does wrong costs no other
            note(f"{name:38} {mode:9} cannot: {type(error).__name__}: {str(error)[:160]}")
            continue
        exact = exact if exact is not None else best_ten(data)
        size = pages * patches * dim * (1 if mode == "int8" else 2)
        first.setdefault(mode, taken)
        row = {"engine": name, "mode": mode, "ms": taken, "gb_per_s": size / taken / 1e6, "times": taken / first[mode]}
        row |= {"share": size / speed * 1000 / taken, "recall@10": len(exact & {*found.topk(10).indices.tolist()}) / 10}
        line = f"{name:38} {mode:9} {taken:8.2f} {row['gb_per_s']:7,.0f} {row['share']:7.0%} {row['recall@10']:10.1f}"
        print(json.dumps(row) if as_json else f"{line} {row['times']:11.2f}", flush=True)


def best_ten(data: SimpleNamespace) -> set[int]:
    """By bfloat16 vectors, multiplied in float32."""
    parts = [
        torch.einsum("td,pnd->ptn", data.query.bfloat16().float(), part.float()).amax(dim=2).sum(dim=1)
        for part in data.floats.split(CHUNK)
    ]
    return {*torch.cat(parts).topk(10).indices.tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("pages", 100_000), ("patches", 768), ("dim", 128), ("tokens", 20), ("rounds", 11)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.check:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        print(check(device), f"({'on the GPU' if device == 'cuda' else 'in the interpreter'})")
    elif not torch.cuda.is_available():
        parser.error("no CUDA device here: --check runs the kernel in Triton's interpreter")
    else:
        run(args.json, (args.pages, args.patches, args.dim, args.tokens), args.rounds)


if __name__ == "__main__":
    main()
