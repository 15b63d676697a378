"""`SGLD`, a torch optimizer that samples from the posterior of a model."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..numbers import real
from ..philox import check_counter
from .request import computing_dtype
from .update import ARGUMENTS, psgld_update, sghmc_update, sgld_update

STATES = {"sgld": None, "psgld": "square", "sghmc": "momentum"}
"""The methods, and the state that each keeps for a parameter."""


class SGLD(torch.optim.Optimizer):
    """Stochastic gradient Langevin dynamics: ``x <- x - (lr / 2) grad + sqrt(lr * temperature) xi``.

    The gradients must be those of the energy: the *sum* of the negative log likelihood over all data (a minibatch
    scaled up) plus the negative log prior. After many steps the parameters are draws from ``exp(-energy /
    temperature)``, up to a bias of order ``lr``.

    Args:
        params: parameters, or groups of parameters, which may have their own values of the arguments below.
        lr: the step size, not negative: eps of Welling and Teh, eta of Chen, Fox and Guestrin. Libraries that write
            ``x <- x - lr grad + sqrt(2 lr temperature) xi``, such as blackjax, need half of it for the same update.
        temperature: not negative; 0 is gradient descent with rate ``lr / 2``.
        seed: the key of the random stream. By default it is drawn from torch's default generator, so that optimizers
            differ and ``torch.manual_seed`` repeats them. It is a part of the state dict.
        backend: ``auto``, ``torch``, ``triton`` or ``cupy``.
        method: ``sgld``; ``psgld``, preconditioned by a running mean of squared gradients, which starts with the first
            gradient (see `psgld_update`); or ``sghmc``, with a momentum, which starts at 0 (see `sghmc_update`).
        decay, damping: arguments of ``psgld``.
        friction: argument of ``sghmc``.
        rounding: how bfloat16 parameters are rounded, ``nearest`` or ``stochastic``; see `sgld_update`.
        capturable: keep the step number in a tensor on the device of the parameters, so that a CUDA graph of a step
            increments it. Make one step before capturing another. Code compiled by ``torch.compile`` then does not
            depend on the step number, either.

    The state dict holds the step, the seed and the state of the method: a restored run continues with the same random
    stream, bit for bit. Loading it writes to existing tensors, so that captured graphs see the values. All parameters
    of a group are updated in one launch; parameters without a gradient stay unchanged.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        temperature: float = 1.0,
        *,
        seed: int | None = None,
        backend: str = "auto",
        method: str = "sgld",
        decay: float = 0.99,
        damping: float = 1e-5,
        friction: float = 0.1,
        rounding: str = "nearest",
        capturable: bool = False,
    ) -> None:
        if seed is None:
            seed = int(torch.randint(1 << 62, (), device="cpu"))
        defaults = {"lr": lr, "temperature": temperature, "seed": seed, "step": 0, "backend": backend}
        defaults |= {"method": method, "decay": decay, "damping": damping, "friction": friction}
        super().__init__(params, {**defaults, "rounding": rounding, "capturable": capturable})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; its numbers have the ranges of `psgld_update` and `sghmc_update`."""
        given = {**self.defaults, **param_group}
        real("lr", given["lr"], least=0)
        for checks in ARGUMENTS.values():
            for name, check in checks.items():
                if name in given:
                    check(name, given[name])
        param_group["seed"], _, _ = check_counter(given["seed"], 0)
        method = param_group.get("method", self.defaults["method"])
        if method not in STATES:
            raise ValueError(f"method must be one of {', '.join(STATES)}; got {method!r}")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["capturable"]:
            device = group["params"][0].device if group["params"] else None  # the default device: no kernel reads it
            group["step"] = torch.tensor(int(group["step"]), device=device)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient. Returns the result of ``closure``, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        first_number = 0
        for group in self.param_groups:
            moving = [(first_number + i, x) for i, x in enumerate(group["params"]) if x.grad is not None]
            self._update(group, [x for _, x in moving], [number for number, _ in moving])
            group["step"] += 1
            first_number += len(group["params"])
        return loss

    def _update(self, group: dict[str, Any], parameters: list[Tensor], tensor_numbers: list[int]) -> None:
        gradients = [x.grad for x in parameters if x.grad is not None]
        if group["method"] not in STATES:
            raise ValueError(f"method must be one of {', '.join(STATES)}; got {group['method']!r}")
        step_size, temperature, step = real("lr", group["lr"], least=0), group["temperature"], group["step"]
        options: dict[str, Any] = {name: group[name] for name in ("seed", "rounding", "backend")}
        options |= {"step": step, "tensor_numbers": tensor_numbers}
        if group["method"] == "psgld":
            squares = [self._state(x, "square") for x in parameters]
            options |= {"decay": group["decay"], "damping": group["damping"]}
            psgld_update(parameters, gradients, squares, step_size, temperature, **options)
        elif group["method"] == "sghmc":
            momenta = [self._state(x, "momentum") for x in parameters]
            options |= {"friction": group["friction"]}
            sghmc_update(parameters, gradients, momenta, step_size, temperature, **options)
        else:
            sgld_update(parameters, gradients, step_size, temperature, **options)

    def _state(self, x: Tensor, name: str) -> Tensor:
        """The square or the momentum of a parameter, created with its first gradient.

        It follows a parameter that has changed its dtype or device since, as after ``model.double()``.
        """
        state = self.state[x]
        if name not in state:
            assert x.grad is not None
            slope = x.grad.to(computing_dtype(x.dtype), memory_format=torch.contiguous_format, copy=True)
            state[name] = slope.square_() if name == "square" else slope.zero_()
        kept: Tensor = state[name]
        if kept.device != x.device or kept.dtype != computing_dtype(x.dtype):
            kept = state[name] = kept.to(x.device, computing_dtype(x.dtype))
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Fill in defaults for options that did not exist when the run was saved."""
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a saved run, bit for bit.

        torch alone would round the state of a 16-bit parameter to 16 bits, and replace existing tensors. A state of
        another dtype is cast to that of the loading optimizer.
        """
        steps, kept = [group["step"] for group in self.param_groups], dict(self.state)
        super().load_state_dict(state_dict)
        for group, saved, step in zip(self.param_groups, state_dict["param_groups"], steps, strict=True):
            group["capturable"] = isinstance(step, Tensor)
            group["step"] = step.fill_(int(saved["step"])) if group["capturable"] else int(saved["step"])
            for x, index in zip(group["params"], saved["params"], strict=True):
                dtype = computing_dtype(x.dtype)
                for name, value in state_dict["state"].get(index, {}).items():
                    mine = kept.get(x, {}).get(name)
                    self.state[x][name] = value.to(x.device, dtype, copy=True) if mine is None else mine.copy_(value)
