"""Launches of Triton kernels with a fault: the rehearsal names it.

`test_launches.py` runs these tests in a process of their own. They compile, and a kernel that was interpreted before
may leave Triton's language patched for the interpreter.
"""

from dataclasses import replace

import pytest
import torch
import triton.language as tl
from support import rehearsal
from support.standin_gpu import DEVICES, GPUS, standin_gpus
from triton.runtime.jit import JITFunction

SM_80, SM_90, _ = DEVICES.values()


def scaled(x, y, n, FACTOR: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < n) * FACTOR, mask=i < n)


def product(x, y, n, BLOCK: tl.constexpr):
    """Its loads take (``num_stages`` - 1) * 2 * 4 * BLOCK**2 bytes of shared memory."""
    i = tl.arange(0, BLOCK)
    total = tl.full((BLOCK, BLOCK), 0.0, tl.float32)
    for k in range(0, n, BLOCK):
        a = tl.load(x + i[:, None] * n + k + i[None, :])
        b = tl.load(x + (k + i[:, None]) * n + i[None, :])
        total = tl.dot(a, b, total)
    tl.store(y + i[:, None] * BLOCK + i[None, :], total)


def triton_faults(function, launch, compiled_for=GPUS):
    """What the rehearsal says of ``launch(kernel, x, y)``, and of the kernel for architectures."""
    kernel, recorder = JITFunction(function), rehearsal.TritonRecorder()
    with standin_gpus(), recorder.recording():
        x, y = (torch.zeros(1024, device=SM_80) for _ in range(2))
        launch(kernel, x, y)
    assert recorder.launches == 1
    found = [
        rehearsal.compile_fault(replace(of, gpu=gpu), given)
        for of, given in recorder.specialisations.items()
        for gpu in compiled_for
    ]
    return recorder.faults + [each for each in found if each]


def test_a_right_triton_launch_has_no_fault():
    assert triton_faults(scaled, lambda kernel, x, y: kernel[(8,)](x, y, 1024, FACTOR=2.0, BLOCK=128)) == []


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        (lambda kernel, x, y: kernel[(8,)](x, 1024, y, FACTOR=2.0, BLOCK=128), "does not compile"),
        (lambda kernel, x, y: kernel[(8,)](x, y, 1024, FACTOR=2.0, BLOCK=100), "does not compile"),
        (lambda kernel, x, y: kernel[(8,)](x, y, 1024.0, FACTOR=2.0, BLOCK=y), "does not compile"),
        (lambda kernel, x, y: kernel[(1, 65536)](x, y, 1024, FACTOR=2.0, BLOCK=128), "the grid (1, 65536, 1)"),
        (lambda kernel, x, y: kernel[(1 << 31,)](x, y, 1024, FACTOR=2.0, BLOCK=128), "the grid (2147483648, 1, 1)"),
        (lambda kernel, x, y: kernel[(8.0,)](x, y, 1024, FACTOR=2.0, BLOCK=128), "the grid (8.0, 1, 1)"),
        (lambda kernel, x, y: kernel[(8,)](x, y, 1024, FACTOR=2.0, BLOCK=128, num_warps=64), "num_warps is 64"),
        (lambda kernel, x, y: kernel[(8,)](x, y.cpu(), 1024, FACTOR=2.0, BLOCK=128), "y is on cpu"),
        (lambda kernel, x, y: kernel[(8,)](x, y.to(SM_90), 1024, FACTOR=2.0, BLOCK=128), "y is on cuda:1"),
    ],
)
def test_a_wrong_triton_launch_is_rejected(launch, words):
    found = triton_faults(scaled, launch, GPUS[:1])
    assert any(words in sentence for sentence in found), found


def test_a_missing_argument_of_triton_is_rejected():
    with pytest.raises(TypeError, match="BLOCK"):
        triton_faults(scaled, lambda kernel, x, y: kernel[(8,)](x, y, 1024, FACTOR=2.0))
    with pytest.raises(KeyError, match="BLOK"):
        triton_faults(scaled, lambda kernel, x, y: kernel[(8,)](x, y, 1024, FACTOR=2.0, BLOCK=128, BLOK=1))


def test_shared_memory_beyond_the_architecture_is_rejected():
    found = triton_faults(
        product, lambda kernel, x, y: kernel[(1,)](x, y, 1024, BLOCK=64, num_stages=7, num_warps=8), GPUS[:2]
    )
    assert len(found) == 1, found
    assert "on sm_80 needs 196608 bytes of shared memory, and a block has 166912" in found[0]
