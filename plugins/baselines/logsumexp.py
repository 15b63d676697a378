"""Log-sum-exp of other libraries, forward, beside the suite's own: the same rows read, the same check, the same table.

- ``cupyx``: `cupyx.scipy.special.logsumexp`. It computes 16-bit rows in 16 bits, and is given the wide ones.
- ``quack``: `quack.cross_entropy.cross_entropy_fwd` returns the log-sum-exp of each row, in float32.
- ``liger``: the cross-entropy of Liger is ``y - x_t`` with t the target, in the dtype of x. The first element of each
  row is the target, and adding it gives y. The loss has been rounded by then: in float32 that may show as a failure
  where the first element is far from y, and 16 bits are not tried. Each of its launches waits for the device.

None of them takes an inverse temperature. Softmax, which Liger and QuACK have too, does not give y at all.
"""

import importlib.util
from collections.abc import Callable
from functools import partial

import torch
from boltzbench.harness import Implementation, Inputs, Launch, Tensors, Unsupported, hookimpl
from boltzbench.kernels.common.dispatch import unavailable as backend_unavailable
from boltzbench.kernels.cuda_module import cupy_stream
from torch import Tensor

BOLTZBENCH_API = 1

LONGEST_QUACK_ROW = 1 << 18


def unavailable(module: str, distribution: str, backend: str, device: torch.device) -> str | None:
    """Why the library cannot be used for tensors on ``device``, or None."""
    if importlib.util.find_spec(module) is None:
        return f"{distribution} is not installed"
    if device.type != "cuda":
        return f"{distribution} needs a GPU"
    return backend_unavailable(backend, device)


def _rows(inputs: Inputs, dtypes: tuple[torch.dtype, ...]) -> Tensor:
    """``x``; raises Unsupported where the libraries have nothing to compare."""
    x: Tensor = inputs["x"]
    if "grad" in inputs:
        raise Unsupported("its gradient is that of a loss, not of log-sum-exp")
    if inputs["beta"] != 1.0:
        raise Unsupported("it has no inverse temperature")
    if x.dtype not in dtypes:
        raise Unsupported(f"it has no {str(x.dtype).removeprefix('torch.')} result as precise as the operation asks")
    if not x.numel():
        raise Unsupported("it takes no empty input")
    return x


def prepare_cupyx(inputs: Inputs, outputs: Tensors) -> Launch:
    x, y = _rows(inputs, (torch.float32, torch.float64)), outputs["y"]
    import cupy
    from cupyx.scipy.special import logsumexp

    rows, result = cupy.from_dlpack(x), cupy.from_dlpack(y)

    def launch() -> Tensors:
        with cupy_stream(x.device):
            result[...] = logsumexp(rows, axis=1)
        return outputs

    return launch


def prepare_quack(inputs: Inputs, outputs: Tensors) -> Launch:
    x, y = require_contiguous(_rows(inputs, (torch.float32, torch.float16, torch.bfloat16))), outputs["y"]
    if x.shape[1] > LONGEST_QUACK_ROW:
        raise Unsupported(f"it keeps a row in the shared memory of a cluster: {LONGEST_QUACK_ROW} columns at most")
    from quack.cross_entropy import cross_entropy_fwd

    target = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def launch() -> Tensors:
        _, lse = cross_entropy_fwd(x, target, return_lse=True)
        y.copy_(lse)
        return outputs

    return launch


def prepare_liger(inputs: Inputs, outputs: Tensors) -> Launch:
    x, y = require_contiguous(_rows(inputs, (torch.float32,))), outputs["y"]
    from liger_kernel.ops import LigerCrossEntropyFunction

    if not bool(x[:, 0].isfinite().all()):
        raise Unsupported("its loss is y less an element of the row, which has to be finite")
    target = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    options = (None, -100, 0.0, 0.0, "none")  # weight, ignored target, z-loss, label smoothing, reduction

    def launch() -> Tensors:
        loss = LigerCrossEntropyFunction.apply(x, target, *options)[0]
        torch.add(loss, x[:, 0], out=y)
        return outputs

    return launch


def require_contiguous(x: Tensor) -> Tensor:
    if not x.is_contiguous():
        raise Unsupported("it copies an input that is not contiguous")
    return x


@hookimpl
def register_implementations(register: Callable[[Implementation], None]) -> None:
    for name, backend, module, distribution, prepare in (
        ("cupyx", "cupy", "cupyx", "cupy", prepare_cupyx),
        ("quack", "cute", "quack", "quack-kernels", prepare_quack),
        ("liger", "triton", "liger_kernel", "liger-kernel", prepare_liger),
    ):
        register(
            Implementation("logsumexp", name, backend, prepare, partial(unavailable, module, distribution, backend))
        )
