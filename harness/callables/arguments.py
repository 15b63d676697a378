"""The arguments of a call: its tensors by name, and other values for them that the callable must take as well."""

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

FACTORS = (0.5, 0.75)
"""Other values of a tensor are its own, times a random factor between these: far enough from 1 for 8-bit dtypes."""

UNNAMED = "args["
"""How the name of an argument begins that the callable does not name."""


class Arguments:
    """The arguments of one call of ``fn``, in any pytree.

    Other values are the given ones times a factor, one for each tensor. So signs, order, zeros, infinities, symmetry
    and definiteness stay, and whatever accepts the given values should accept the others. Tensors of whole numbers
    (indices, masks, labels, spins, also in a floating-point dtype) keep their values, which a factor could make
    invalid, and so do those named in ``keep``.

    A tensor that is given twice is one tensor. Raises TypeError for a tensor that is not dense and real, ValueError for
    an unknown name in ``keep`` or for tensors on several GPUs.
    """

    def __init__(
        self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], keep: Sequence[str]
    ) -> None:
        leaves: Any
        leaves, self._structure = tree_flatten_with_path((tuple(args), dict(kwargs)))
        names = _names_of_positions(fn, len(args))
        self.tensors: dict[str, Tensor] = {}
        self._leaves: list[Any] = []
        known: dict[int, str] = {}
        for path, value in leaves:
            if not isinstance(value, Tensor):
                self._leaves.append(value)
                continue
            first = names[path[1].idx] if path[0].idx == 0 else path[1].key
            name = known.setdefault(id(value), f"{first}{keystr(path[2:])}")
            _require_plain(name, value)
            self.tensors[name] = value.detach()
            self._leaves.append(_Place(name))
        self.requiring_grad = [known[id(value)] for _, value in leaves if _requires_grad(value)]
        self.floating = [name for name, value in self.tensors.items() if value.is_floating_point()]
        roots = {name.partition("[")[0] for name in self.tensors}
        if unknown := [name for name in keep if name not in self.tensors and name not in roots]:
            raise ValueError(
                f"keep={unknown[0]!r} names no tensor argument: there are {', '.join(self.tensors) or 'none'}"
            )
        kept = {name for name in self.tensors if name in keep or name.partition("[")[0] in keep}
        self.varying = [name for name in self.floating if name not in kept and _may_be_scaled(self.tensors[name])]
        gpus = sorted({str(value.device) for value in self.tensors.values() if value.device.type != "cpu"})
        if len(gpus) > 1:
            raise ValueError(f"the arguments lie on {' and '.join(gpus)}: a call is measured on one device")
        self.device = torch.device(gpus[0]) if gpus else torch.device("cpu") if self.tensors else None

    def filled(self, tensors: Mapping[str, Tensor], *, wide: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """``args`` and ``kwargs`` with these tensors. If ``wide``, floating-point dtypes among them are float64."""
        leaves = [tensors[each.name] if isinstance(each, _Place) else each for each in self._leaves]
        if wide:
            leaves = [torch.float64 if _is_floating_dtype(each) else each for each in leaves]
        args, kwargs = tree_unflatten(leaves, self._structure)
        return args, kwargs

    def values(self, seed: int) -> dict[str, Tensor]:
        """The given tensors for seed 0, other values for any other seed."""
        factors = random.Random(seed)
        drawn = {name: factors.uniform(*FACTORS) for name in self.varying}
        if seed == 0:
            return dict(self.tensors)
        return {name: scaled(value, drawn[name]) if name in drawn else value for name, value in self.tensors.items()}

    @property
    def label(self) -> str:
        """``x 1024x1024 float32, index 1024 int64``."""
        return ", ".join(f"{name} {form(value)}" for name, value in self.tensors.items()) or "no tensors"


class _Place:
    """Stands where a tensor goes."""

    def __init__(self, name: str) -> None:
        self.name = name


def form(tensor: Tensor) -> str:
    """``1024x1024 float32``."""
    return f"{'x'.join(map(str, tensor.shape)) or 'scalar'} {str(tensor.dtype).removeprefix('torch.')}"


def copied(tensor: Tensor) -> Tensor:
    """A copy with the same strides."""
    return _span(tensor).clone().as_strided(tensor.shape, tensor.stride())


def shares_memory(tensor: Tensor, others: Sequence[Tensor]) -> bool:
    """Whether the tensor lies in the memory of one of the others."""
    place = tensor.untyped_storage().data_ptr()
    return bool(tensor.numel()) and any(place == each.untyped_storage().data_ptr() for each in others)


def scaled(tensor: Tensor, factor: float) -> Tensor:
    """``factor`` times the tensor, with the same dtype and strides."""
    span = _span(tensor)
    wide = torch.float64 if tensor.dtype is torch.float64 else torch.float32
    return (span.to(wide) * factor).to(tensor.dtype).as_strided(tensor.shape, tensor.stride())


def _span(tensor: Tensor) -> Tensor:
    """All memory from the tensor's first element to its last, in one dimension."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.detach().as_strided((reach + 1 if tensor.numel() else 0,), (1,), tensor.storage_offset())


def _names_of_positions(fn: Callable[..., Any], count: int) -> list[str]:
    try:
        parameters = inspect.signature(fn.forward if isinstance(fn, nn.Module) else fn).parameters.values()
    except (TypeError, ValueError):  # a function of C
        parameters = ()  # type: ignore[assignment]
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [each.name for each in parameters if each.kind in by_position]
    return [names[place] if place < len(names) else f"{UNNAMED}{place}]" for place in range(count)]


def _require_plain(name: str, tensor: Tensor) -> None:
    if type(tensor) not in (Tensor, nn.Parameter):
        raise TypeError(
            f"argument {name!r} is a {type(tensor).__name__}: give plain tensors, and make it in the callable"
        )
    if tensor.layout is not torch.strided or tensor.is_complex() or tensor.is_quantized:
        kind = "complex" if tensor.is_complex() else "quantised" if tensor.is_quantized else str(tensor.layout)
        raise TypeError(f"argument {name!r} is a {kind} tensor: give dense real ones, and convert them in the callable")


def _requires_grad(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _is_floating_dtype(value: object) -> bool:
    return isinstance(value, torch.dtype) and value.is_floating_point


def _may_be_scaled(tensor: Tensor) -> bool:
    """Whether some finite value is no whole number."""
    numbers = tensor if tensor.itemsize >= 4 else tensor.float()
    return bool((numbers.isfinite() & (numbers != numbers.round())).any())
