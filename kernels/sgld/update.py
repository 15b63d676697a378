"""The Langevin update as a function of tensors, in place."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..dispatch import backend_module, choose_backend, note_written, overlaps, require_tensor, span
from ..philox import TENSOR_LIMIT, check_counter
from .update_list import UpdateList

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def sgld_update(
    parameters: Tensor | Sequence[Tensor],
    gradients: Tensor | Sequence[Tensor],
    step_size: float,
    temperature: float = 1.0,
    *,
    seed: int,
    step: int,
    tensor_numbers: Sequence[int] | None = None,
    backend: str = "auto",
) -> None:
    """``x <- x - (step_size / 2) g + sqrt(step_size * temperature) xi``, in place, for all tensors in one launch.

    Args:
        parameters: one tensor or several, of any shapes; float64, float32, float16 or bfloat16, also mixed; all on
            one device. 16-bit parameters are updated in float32 and rounded once.
        gradients: for each parameter a tensor of its shape and dtype; not modified.
        step_size: eps, finite and not negative. 0 leaves every bit as it is.
        temperature: T, finite and not negative. 0 is gradient descent with rate eps / 2: no noise is added.
        seed: the key of the random stream, in [0, 2**64).
        step: the number of this update in the stream, in [0, 2**32). A step used twice repeats its noise.
        tensor_numbers: the number of each tensor in the stream (default 0, 1, 2, ...), all different: the noise of a
            tensor then does not depend on which others are updated with it.
        backend: ``auto``, ``torch``, ``triton`` or ``cupy``.

    Raises:
        TypeError: a tensor is sparse, complex, integer or otherwise unsupported; its index is named.
        ValueError: shapes, devices or lengths do not match, tensors overlap, a number is out of range, or
            ``backend`` is unknown or cannot run here.

    Element ``i`` of a tensor (in the order of its indices, whatever its strides) takes normal ``i % 4`` of group
    ``i // 4``. A NaN in a gradient spoils its own element only. A parameter that is not contiguous is updated in a
    contiguous copy and written back.
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    gradients = [gradients] if isinstance(gradients, Tensor) else list(gradients)
    numbers = list(range(len(parameters))) if tensor_numbers is None else list(tensor_numbers)
    _require_pairs(parameters, gradients, numbers)
    for name, value in (("step_size", step_size), ("temperature", temperature)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and not negative, got {value}")
    check_counter(seed, step)
    device = parameters[0].device if parameters else torch.device("cpu")
    chosen = choose_backend(backend, device)
    updates = UpdateList.of(parameters, gradients, numbers)
    if step_size == 0 or updates.elements == 0:
        return
    update = backend_module(chosen, __package__ or "").update
    with torch.no_grad():
        update(updates, float(step_size), math.sqrt(step_size * temperature), seed, step)
        updates.write_back()
    for x in parameters:
        note_written(x)


def _require_pairs(parameters: list[Tensor], gradients: list[Tensor], numbers: list[int]) -> None:
    if len(gradients) != len(parameters):
        raise ValueError(f"gradients must match parameters: {len(gradients)} for {len(parameters)}")
    if len(numbers) != len(parameters) or len(set(numbers)) != len(numbers):
        raise ValueError(f"tensor_numbers must be {len(parameters)} different numbers, got {numbers}")
    if any(not 0 <= number < TENSOR_LIMIT for number in numbers):
        raise ValueError(f"tensor_numbers must lie in [0, 2**24), got {numbers}")
    device = None
    for index, (x, g) in enumerate(zip(parameters, gradients, strict=True)):
        require_tensor(f"parameters[{index}]", x, DTYPES, device)
        device = x.device
        require_tensor(f"gradients[{index}]", g, (x.dtype,), x.device)
        if g.shape != x.shape:
            raise ValueError(f"gradients[{index}] must have shape {tuple(x.shape)}, got {tuple(g.shape)}")
        if _meets_itself(x):
            raise ValueError(f"parameters[{index}] must not be expanded or unfolded: elements would share one place")
    _require_apart(parameters, gradients)


def _meets_itself(x: Tensor) -> bool:
    """True unless each dimension steps over all that the closer ones span."""
    extent = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1):
        if stride < extent:
            return True
        extent += stride * (size - 1)
    return False


def _require_apart(parameters: list[Tensor], gradients: list[Tensor]) -> None:
    """No parameter may share memory with another tensor. In order of address, each tensor is held against the one
    that reaches furthest so far: if it meets any earlier one of which either is written, it meets that one."""
    named = [(f"parameters[{i}]", x, True) for i, x in enumerate(parameters) if x.numel()]
    named += [(f"gradients[{i}]", g, False) for i, g in enumerate(gradients) if g.numel()]
    named.sort(key=lambda entry: entry[1].data_ptr())
    furthest = named[:1]
    for name, tensor, written in named[1:]:
        other_name, other, other_written = furthest[0]
        if (written or other_written) and overlaps(tensor, other):
            raise ValueError(f"{name} must not share memory with {other_name}")
        if span(tensor)[1] > span(other)[1]:
            furthest = [(name, tensor, written)]
