"""Cross-entropy of other libraries beside generalised cross-entropy at q = 0, the one q that they have.

- ``liger``: Liger's fused cross-entropy, forward. Its loss has the dtype of the logits, so 16 bits are not tried; it is
  a difference of the log-sum-exp and a logit, so that it may fail in float32 where rows lie far from 0. The logit added
  gives the log-sum-exp. Its gradient is computed in the forward pass, in place of the logits, and has no pass of its
  own. Each of its launches waits for the device.
- ``quack``: `quack.cross_entropy.cross_entropy_fwd` and `cross_entropy_bwd_out`, which compute in float32.
"""

from collections.abc import Callable
from functools import partial

import torch
from boltzbench.harness import Implementation, Inputs, Launch, Tensors, Unsupported, hookimpl
from boltzbench.plugins.baselines.logsumexp import LONGEST_QUACK_ROW, require_contiguous, unavailable
from torch import Tensor

BOLTZBENCH_API = 1


def _logits(inputs: Inputs, dtypes: tuple[torch.dtype, ...]) -> Tensor:
    """The logits; raises Unsupported where the libraries have nothing to compare."""
    logits: Tensor = inputs["logits"]
    if inputs["q"] != 0:
        raise Unsupported("it has cross-entropy alone, which is q = 0")
    if logits.dtype not in dtypes:
        raise Unsupported(f"it has no {str(logits.dtype).removeprefix('torch.')} loss as precise as is asked")
    if not logits.numel():
        raise Unsupported("it takes no empty input")
    return require_contiguous(logits)


def prepare_liger(inputs: Inputs, outputs: Tensors) -> Launch:
    logits, labels = _logits(inputs, (torch.float32,)), inputs["labels"]
    if "grad" in inputs:
        raise Unsupported("it computes the gradient in the forward pass")
    from liger_kernel.ops import LigerCrossEntropyFunction

    options = (None, inputs["ignore_index"], 0.0, 0.0, "none")  # weight, ignored label, z-loss, smoothing, reduction
    if bool((labels == inputs["ignore_index"]).any()):
        raise Unsupported("an ignored label has no logit to add to the loss")

    def launch() -> Tensors:
        outputs["loss"].copy_(LigerCrossEntropyFunction.apply(logits, labels, *options)[0])
        torch.add(outputs["loss"], logits.gather(1, labels[:, None])[:, 0], out=outputs["lse"])
        return outputs

    return launch


def prepare_quack(inputs: Inputs, outputs: Tensors) -> Launch:
    logits, labels = _logits(inputs, (torch.float32, torch.float16, torch.bfloat16)), inputs["labels"]
    if logits.shape[1] > LONGEST_QUACK_ROW:
        raise Unsupported(f"it keeps a row in the shared memory of a cluster: {LONGEST_QUACK_ROW} columns at most")
    from quack.cross_entropy import cross_entropy_bwd_out, cross_entropy_fwd

    ignore_index = inputs["ignore_index"]

    def forward() -> Tensors:
        loss, lse = cross_entropy_fwd(logits, labels, ignore_index=ignore_index, return_lse=True)
        outputs["loss"].copy_(loss)
        outputs["lse"].copy_(lse)
        return outputs

    def backward() -> Tensors:
        cross_entropy_bwd_out(
            x=logits, target=labels, dloss=inputs["grad"], lse=inputs["lse"], dx=outputs["dlogits"],
            ignore_index=ignore_index,
        )  # fmt: skip
        return outputs

    return backward if "grad" in inputs else forward


@hookimpl
def register_implementations(register: Callable[[Implementation], None]) -> None:
    for name, backend, module, distribution, prepare in (
        ("quack", "cute", "quack", "quack-kernels", prepare_quack),
        ("liger", "triton", "liger_kernel", "liger-kernel", prepare_liger),
    ):
        reason = partial(unavailable, module, distribution, backend)
        register(Implementation("generalised_cross_entropy", name, backend, prepare, reason))
