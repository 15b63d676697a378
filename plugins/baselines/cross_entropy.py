"""Cross-entropy of other libraries, which is generalised cross-entropy at q = 0.

- ``liger``: Liger's fused cross-entropy, forward. The loss has the dtype of the logits, so 16 bits are not tried. It is
  the log-sum-exp minus a logit, so it may exceed the bound in float32 if rows lie far from 0; adding the logit gives
  the log-sum-exp. Liger computes the gradient in the forward pass, in place of the logits, and has no backward pass to
  compare. Each launch waits for the device.
- ``flag_gems``: FlagGems' cross-entropy, forward, with the same limits.
- ``quack``: `quack.cross_entropy.cross_entropy_fwd` and `cross_entropy_bwd_out`, which compute in float32.
"""

from collections.abc import Callable
from functools import partial

import torch
from boltzbench.harness import Implementation, Inputs, Launch, Tensors, Unsupported, hookimpl
from boltzbench.plugins.support import peer_kernels
from boltzbench.plugins.support.libraries import LIGER_OPTIONS, quack_rows, supported_rows, unavailable
from torch import Tensor

BOLTZBENCH_API = 1


def _logits(inputs: Inputs) -> Tensor:
    """The logits; raises Unsupported where the libraries compute something else."""
    if inputs["q"] != 0:
        raise Unsupported("it computes cross-entropy only, which is q = 0")
    if inputs["apart"]:
        raise Unsupported("it has one log-sum-exp, not the peak and the logarithm of the total apart")
    logits: Tensor = inputs["logits"]
    return logits


def prepare_liger(inputs: Inputs, outputs: Tensors) -> Launch:
    logits, labels = supported_rows(_logits(inputs), (torch.float32,)), inputs["labels"]
    if "grad" in inputs:
        raise Unsupported("it computes the gradient in the forward pass")
    from liger_kernel.ops import LigerCrossEntropyFunction

    options = (None, inputs["ignore_index"], *LIGER_OPTIONS)  # weight, ignored label
    if bool((labels == inputs["ignore_index"]).any()):
        raise Unsupported("an ignored label has no logit to add to the loss")

    def launch() -> Tensors:
        outputs["loss"].copy_(LigerCrossEntropyFunction.apply(logits, labels, *options)[0])
        torch.add(outputs["loss"], logits.gather(1, labels[:, None])[:, 0], out=outputs["lse"])
        return outputs

    return launch


def prepare_flag_gems(inputs: Inputs, outputs: Tensors) -> Launch:
    logits, labels = supported_rows(_logits(inputs), (torch.float32,)), inputs["labels"]
    if "grad" in inputs:
        raise Unsupported("its gradient is that of autograd, which computes the forward pass again")
    from flag_gems.fused import cross_entropy_loss

    if bool((labels == inputs["ignore_index"]).any()):
        raise Unsupported("an ignored label has no logit to add to the loss")

    def launch() -> Tensors:
        outputs["loss"].copy_(cross_entropy_loss(logits, labels, reduction="none", ignore_index=inputs["ignore_index"]))
        torch.add(outputs["loss"], logits.gather(1, labels[:, None])[:, 0], out=outputs["lse"])
        return outputs

    return launch


def prepare_quack(inputs: Inputs, outputs: Tensors) -> Launch:
    logits, labels = quack_rows(_logits(inputs)), inputs["labels"]
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
    for name, backend, module, distribution, prepare, variants in (
        ("quack", "cute", "quack", "quack-kernels", prepare_quack, peer_kernels.quack),
        ("liger", "triton", "liger_kernel", "liger-kernel", prepare_liger, peer_kernels.liger),
        ("flag_gems", "triton", "flag_gems", "flag-gems", prepare_flag_gems, peer_kernels.flag_gems),
    ):
        reason = partial(unavailable, module, distribution, backend, "cuda")
        register(Implementation("generalised_cross_entropy", name, backend, prepare, reason, variants=variants))
