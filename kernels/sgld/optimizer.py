"""`SGLD` as a torch optimizer: the sampler of a model's posterior in place of its gradient descent."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .update import sgld_update


class SGLD(torch.optim.Optimizer):
    """Stochastic gradient Langevin dynamics: ``x <- x - (lr / 2) grad + sqrt(lr * temperature) xi``.

    The gradients must be those of the energy: the *sum* of the negative log likelihood over all data (a minibatch
    scaled up) plus the negative log prior. After many steps the parameters are draws from ``exp(-energy /
    temperature)``, up to a bias of order ``lr``.

    Args:
        params: parameters or groups of them; a group may have its own ``lr`` and ``temperature``.
        lr: the step size eps of Welling and Teh, not negative.
        temperature: not negative; 0 is gradient descent with rate ``lr / 2``.
        seed: the key of the random stream.
        backend: ``auto``, ``torch``, ``triton`` or ``cupy``.

    The state dict holds the step and the seed: a run that is restored goes on with the same random stream, bit for
    bit. All parameters of a group are updated in one launch; one without a gradient is left as it is.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        temperature: float = 1.0,
        *,
        seed: int = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__(params, {"lr": lr, "temperature": temperature, "seed": seed, "step": 0, "backend": backend})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; its ``lr`` and ``temperature`` must be finite and not negative."""
        for name in ("lr", "temperature"):
            value = param_group.get(name, self.defaults[name])
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient. Returns what ``closure`` returns, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        first_number = 0
        for group in self.param_groups:
            moving = [(first_number + i, x) for i, x in enumerate(group["params"]) if x.grad is not None]
            sgld_update(
                [x for _, x in moving],
                [x.grad for _, x in moving],
                group["lr"],
                group["temperature"],
                seed=group["seed"],
                step=group["step"],
                tensor_numbers=[number for number, _ in moving],
                backend=group["backend"],
            )
            group["step"] += 1
            first_number += len(group["params"])
        return loss
