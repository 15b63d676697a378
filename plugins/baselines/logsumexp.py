"""Forward log-sum-exp of other libraries.

- ``cupyx``: `cupyx.scipy.special.logsumexp`. It computes 16-bit rows in 16 bits, so it is tried on wider ones only.
- ``quack``: `quack.cross_entropy.cross_entropy_fwd` returns the log-sum-exp of each row in float32.
- ``liger``: Liger's cross-entropy is ``y - x_t`` with target t, in the dtype of x. Here the target is the first element
  of each row, which is added to the loss. The loss has been rounded before: in float32 this may exceed the bound if the
  first element is far from y, and 16 bits are not tried. Each launch waits for the device.

These libraries support no inverse temperature. Their softmax does not return y.
"""

from collections.abc import Callable
from functools import partial

import torch
from boltzbench.harness import Implementation, Inputs, Launch, Tensors, Unsupported, hookimpl
from boltzbench.kernels.cuda_module import cupy_stream
from boltzbench.plugins.support.libraries import LIGER_OPTIONS, quack_rows, supported_rows, unavailable
from torch import Tensor

BOLTZBENCH_API = 1


def _rows(inputs: Inputs) -> Tensor:
    """``x``; raises Unsupported where the libraries compute something else."""
    if "grad" in inputs:
        raise Unsupported("its gradient is that of a loss, not of log-sum-exp")
    if inputs["beta"] != 1.0:
        raise Unsupported("it has no inverse temperature")
    x: Tensor = inputs["x"]
    return x


def prepare_cupyx(inputs: Inputs, outputs: Tensors) -> Launch:
    x, y = supported_rows(_rows(inputs), (torch.float32, torch.float64), strided=True), outputs["y"]
    import cupy
    from cupyx.scipy.special import logsumexp

    rows, result = cupy.from_dlpack(x), cupy.from_dlpack(y)

    def launch() -> Tensors:
        with cupy_stream(x.device):
            result[...] = logsumexp(rows, axis=1)
        return outputs

    return launch


def prepare_quack(inputs: Inputs, outputs: Tensors) -> Launch:
    x, y = quack_rows(_rows(inputs)), outputs["y"]
    from quack.cross_entropy import cross_entropy_fwd

    target = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def launch() -> Tensors:
        _, lse = cross_entropy_fwd(x, target, return_lse=True)
        y.copy_(lse)
        return outputs

    return launch


def prepare_liger(inputs: Inputs, outputs: Tensors) -> Launch:
    x, y = supported_rows(_rows(inputs), (torch.float32,)), outputs["y"]
    from liger_kernel.ops import LigerCrossEntropyFunction

    if not bool(x[:, 0].isfinite().all()):
        raise Unsupported("its loss is y minus the first element of the row, which must be finite")
    target = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    options = (None, -100, *LIGER_OPTIONS)  # weight, ignored target

    def launch() -> Tensors:
        loss = LigerCrossEntropyFunction.apply(x, target, *options)[0]
        torch.add(loss, x[:, 0], out=y)
        return outputs

    return launch


@hookimpl
def register_implementations(register: Callable[[Implementation], None]) -> None:
    for name, backend, module, distribution, prepare in (
        ("cupyx", "cupy", "cupyx", "cupy", prepare_cupyx),
        ("quack", "cute", "quack", "quack-kernels", prepare_quack),
        ("liger", "triton", "liger_kernel", "liger-kernel", prepare_liger),
    ):
        reason = partial(unavailable, module, distribution, backend, "cuda")
        register(Implementation("logsumexp", name, backend, prepare, reason))
