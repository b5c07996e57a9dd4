"""The kernel's paths on other processors than this machine's: compiled for them, run in an emulator, against numpy; and
on this one with AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import visrag.maxsim
from visrag.compress import sign_bits, to_bits

HERE = Path(__file__).parent
SOURCE = Path(visrag.maxsim.__file__).parent
COUNTS = (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65)
DIMS = (8, 16, 24, 96, 128, 136, 320)
TOKENS = (1, 4, 5, 6, 12, 13, 25)

NATIVE = ["gcc"]
SANITIZED = ["gcc", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
ARM = ["aarch64-linux-gnu-gcc", "-static"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.system() != "Linux" or platform.machine() != "x86_64", reason="emulators of Linux"),
]


@pytest.fixture(scope="module")
def cases() -> tuple[bytes, np.ndarray]:
    """The driver's input, and the matches that it must give."""
    rng = np.random.default_rng(7)
    given, expected = b"", []
    for dim in DIMS:
        for tokens, count in zip(TOKENS * 2, COUNTS + COUNTS[:3], strict=True):
            page = rng.integers(-128, 128, (count, dim)).astype(np.int8)
            query = rng.integers(-127, 128, (tokens, dim)).astype(np.int8)
            given += np.array([0, dim, tokens, count], np.int32).tobytes() + query.tobytes() + page.tobytes()
            expected.append((query.astype(np.int64) @ page.T.astype(np.int64)).max(axis=1))
            given += np.array([1, dim, tokens, count], np.int32).tobytes()
            given += sign_bits(query).tobytes() + to_bits(page).tobytes()
            expected.append(((query > 0)[:, None] != (page > 0)[None]).sum(axis=2).min(axis=1))
    return given, np.concatenate(expected)


def build(compiler: list[str], folder: Path) -> str:
    if shutil.which(compiler[0]) is None:
        pytest.fail(f"{compiler[0]} is missing: make debian")
    program = str(folder / "driver")
    options = ["-O3", "-Wall", "-Wextra", "-Werror", f"-I{SOURCE}"]
    subprocess.run([*compiler, *options, str(HERE / "driver.c"), "-o", program], check=True)
    return program


@pytest.mark.parametrize(
    ("compiler", "emulator", "names"),
    [
        (NATIVE, ["qemu-x86_64", "-cpu", "Nehalem"], []),
        (NATIVE, ["qemu-x86_64", "-cpu", "Haswell"], ["avx2"]),
        (ARM, ["qemu-aarch64", "-cpu", "cortex-a53"], []),  # without dot products
        (ARM, ["qemu-aarch64", "-cpu", "max"], ["neon"]),
        (SANITIZED, [], None),
    ],
    ids=["older than AVX2", "AVX2", "older than dot products", "NEON", "this one, sanitized"],
)
def test_every_kernel_gives_the_oracles_matches(
    compiler: list[str],
    emulator: list[str],
    names: list[str] | None,
    cases: tuple[bytes, np.ndarray],
    tmp_path: Path,
) -> None:
    given, expected = cases
    command = [*emulator, build(compiler, tmp_path)]
    known = subprocess.run(command, capture_output=True, check=True).stdout.decode().split()
    assert known == names or names is None
    for name in known:
        done = subprocess.run([*command, name], input=given, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        np.testing.assert_array_equal(np.frombuffer(done.stdout, np.int32), expected)
