"""Example calls of the loss and its gradient."""

import torch
from boltzbench.kernels.generalised_cross_entropy import (
    GeneralisedCrossEntropy,
    generalised_cross_entropy,
    generalised_cross_entropy_backward,
    generalised_cross_entropy_forward,
)
from support.number_calls import NumberCall, weights

LOGITS, LABELS = weights(4, 3), torch.tensor([0, 2, 1, 2])
NUMBERS = {"q": 0.5, "ignore_index": 1}
GRADIENTS = {"grad": weights(4), "lse": LOGITS.logsumexp(1)}

CALLS = (
    NumberCall(generalised_cross_entropy, {"logits": LOGITS, "labels": LABELS, **NUMBERS}, signed=("ignore_index",)),
    NumberCall(GeneralisedCrossEntropy, NUMBERS, lambda loss: loss(LOGITS, LABELS), signed=("ignore_index",)),
    NumberCall(
        generalised_cross_entropy_forward, {"logits": LOGITS, "labels": LABELS, **NUMBERS}, signed=("ignore_index",)
    ),
    NumberCall(
        generalised_cross_entropy_backward,
        {"logits": LOGITS, "labels": LABELS, **GRADIENTS, **NUMBERS},
        signed=("ignore_index",),
    ),
)
