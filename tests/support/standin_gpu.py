"""GPUs that are not there: tensors that say they are on one, and the answers of `torch.cuda` about three devices.

Code that runs within `standin_gpus` takes the paths that it takes on a GPU. The values of a tensor are in memory of the
host; a tensor of more than ``most`` elements has a shape and an address, but no values. As on a GPU, an operation on
tensors of two devices fails.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Gpu:
    """What launch code asks of a device; ``shared_bytes`` is the most shared memory that a block can have."""

    arch: str
    capability: tuple[int, int]
    multiprocessors: int
    shared_bytes: int


GPUS = (
    Gpu("sm_80", (8, 0), 108, 163 * 1024),
    Gpu("sm_90", (9, 0), 132, 227 * 1024),
    Gpu("sm_100", (10, 0), 148, 227 * 1024),
)
"""By the index of the device. Source: "Compute Capabilities" of the CUDA Programming Guide."""
DEVICES = {gpu.arch: torch.device("cuda", index) for index, gpu in enumerate(GPUS)}

HOST, NOWHERE = torch.device("cpu"), torch.device("meta")
MIXED = ("aten.copy_", "aten._to_copy", "aten.index.Tensor", "aten.index_put")
"""Operators that take tensors of the host beside those of a GPU."""
_addresses = itertools.count(1 << 44, 1 << 40)


class ValuesNeeded(RuntimeError):
    """Something reads values of a tensor that has none."""


class GpuTensor(Tensor):
    """A tensor on a stand-in GPU. ``held`` is on the host, or on the meta device if there are no values."""

    held: Tensor
    gpu: torch.device
    first: int

    @staticmethod
    def __new__(cls, values: Tensor, gpu: torch.device, first: int = 0) -> "GpuTensor":
        """``first`` is the address of the storage where there are no values."""
        # To C++ it is a tensor of the host, since torch may be built without CUDA.
        made: GpuTensor = Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            layout=values.layout, device=HOST,
        )  # fmt: skip
        made.held, made.gpu, made.first = values, gpu, first
        return made

    device = property(lambda self: self.gpu)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def data_ptr(self) -> int:
        if self.held.is_meta:
            return self.first + int(self.storage_offset()) * self.element_size()
        return self.held.data_ptr()

    def record_stream(self, stream: Any) -> None:
        """Nothing reuses its memory while another tensor or a launch may read it."""

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **options: Any) -> Any:
        raise TypeError(f"cannot convert a tensor on {self.device} to numpy")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"GpuTensor({tuple(self.shape)}, {self.dtype}, {self.device})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} of a tensor on a stand-in GPU, outside of standin_gpus")


def _replaced(change: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with ``change(tensor)`` in the place of each tensor. torch's own functions for trees are slower."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)([_replaced(change, each) for each in value])
    if isinstance(value, dict):
        return {name: _replaced(change, each) for name, each in value.items()}
    return value


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _replaced(found.append, value)
    return found


def _unwrapped(arguments: Any, where: torch.device) -> Any:
    """The values in the place of each tensor; only their shapes if ``where`` is `NOWHERE`."""

    def values(each: Tensor) -> Tensor:
        found = each.held if isinstance(each, GpuTensor) else each
        if where == HOST or found.is_meta:
            return found
        return torch.empty_strided(found.shape, found.stride(), dtype=found.dtype, device=NOWHERE)

    return _replaced(values, arguments)


def _indexed(device: torch.device) -> torch.device:
    """The device as a tensor names it."""
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


class _Operators(TorchDispatchMode):
    """Runs each operator on the values of its tensors; the results are on the same GPU, or on the one that it names."""

    def __init__(self, most: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._most = most

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: torch need not import its compiler, which takes seconds, to skip it here."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function.namespace == "boltzbench":
            with self, _Copies(self._most):  # the Python of an operator of the suite makes tensors, too
                return OPDEFS[function._schema.name]._init_fn(*args, **kwargs)
        given = _tensors((args, kwargs))
        on_gpus = [each for each in given if isinstance(each, GpuTensor)]
        places = {each.device for each in given if each.dim() or isinstance(each, GpuTensor)}
        if on_gpus and len(places) > 1 and not str(function).startswith(MIXED):
            raise RuntimeError(f"{function}: the tensors are on several devices: {places}")
        device = on_gpus[0].device if on_gpus else HOST
        if kwargs.get("device") is not None:
            device = _indexed(torch.device(kwargs["device"]))
        if device.type != "cuda":
            return function(*args, **kwargs)
        if "pin_memory" in kwargs:
            kwargs["pin_memory"] = None
        where = self._place(function, args, kwargs, on_gpus)
        if where == NOWHERE and str(function).startswith(("aten.all.", "aten.any.")):
            # A check of values that do not exist passes: all of them are finite, none of them is out of range.
            answers = self._run(function, args, kwargs, NOWHERE)
            passed = torch.full(answers.shape, "all" in str(function))
            return GpuTensor(passed, device)
        result = self._run(function, args, kwargs, where)
        if function._schema.is_mutable:
            return kwargs.get("out", args[0])
        return self._wrapped(result, device, on_gpus)

    def _place(self, function: Any, args: Any, kwargs: Any, on_gpus: list[GpuTensor]) -> torch.device:
        """Whether the results have values."""
        if any(each.held.is_meta for each in on_gpus):
            return NOWHERE
        sizes = sorted(each.numel() for each in on_gpus)[-2:]
        if self._most == float("inf") or (sizes and prod(sizes) <= self._most):
            return HOST
        try:
            result = self._run(function, args, kwargs, NOWHERE)
        except (RuntimeError, NotImplementedError):  # shapes follow from values: nonzero, item
            return HOST
        return NOWHERE if any(each.numel() > self._most for each in _tensors(result)) else HOST

    def _run(self, function: Any, args: Any, kwargs: dict[str, Any], where: torch.device) -> Any:
        if "device" in kwargs:
            kwargs = kwargs | {"device": where}
        if where == NOWHERE and str(function).startswith(("aten.rand.", "aten.randn.", "aten.randint.")):
            # The meta device is slow at these, or lacks them.
            size = next(each for each in args if isinstance(each, (list, tuple)))
            default = torch.int64 if "randint" in str(function) else torch.get_default_dtype()
            return torch.empty(size, dtype=kwargs.get("dtype") or default, device=NOWHERE)
        if where == NOWHERE and "generator" in kwargs:
            kwargs = kwargs | {"generator": None}
        if where == NOWHERE and str(function).startswith("aten._local_scalar_dense"):
            raise ValuesNeeded(f"a number is read from {args[0]}")
        return function(*_unwrapped(args, where), **_unwrapped(kwargs, where))

    def _wrapped(self, result: Any, device: torch.device, on_gpus: list[GpuTensor]) -> Any:
        first = {each.held.untyped_storage()._cdata: each.first for each in on_gpus if each.held.is_meta}

        def wrapped(values: Tensor) -> Tensor:
            if not values.is_meta:
                return GpuTensor(values, device)
            return GpuTensor(values, device, first.get(values.untyped_storage()._cdata) or next(_addresses))

        return _replaced(wrapped, result)


class _Copies(TorchFunctionMode):
    """Functions that copy between host and GPU below the level of operators."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self._most = most

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            made = args[0] if isinstance(args[0], Tensor) else function(*args, **kwargs)
            return self._to(made, torch.device(device), kwargs.get("dtype"))
        if function is Tensor.pin_memory:
            return args[0].clone()
        if function is Tensor.cpu:
            return self._to(args[0], HOST)
        if function is Tensor.to:
            source, copy = args[0], kwargs.pop("copy", False)
            if len(args) > 1 and isinstance(args[1], Tensor):
                device, dtype = args[1].device, args[1].dtype
            else:
                device, dtype, *_ = torch._C._nn._parse_to(*args[1:], **kwargs)
            moved = self._to(source, device or source.device, dtype)
            return moved.clone() if copy and moved is source else moved
        return function(*args, **kwargs)

    def _to(self, source: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
        moved = self._moved(source, _indexed(device))
        return moved if dtype in (None, source.dtype) else torch.ops.aten._to_copy(moved, dtype=dtype)

    def _moved(self, source: Tensor, device: torch.device) -> Tensor:
        if device == source.device:
            return source
        values = source.held if isinstance(source, GpuTensor) else source
        if device.type == "cuda" and (values.is_meta or values.numel() > self._most):
            return GpuTensor(_unwrapped(values, NOWHERE), device, next(_addresses))
        if values.is_meta:
            raise ValuesNeeded(f"{source} is copied to the host")
        return GpuTensor(values.clone(), device) if device.type == "cuda" else values.clone()


class _Generator(torch.Generator):
    """Makes a generator of the host, whatever the device."""

    def __new__(cls, device: object = None) -> torch.Generator:  # type: ignore[misc]
        return torch._C.Generator()


class _Event:
    """Time does not pass."""

    def __init__(self, **options: object) -> None: ...
    def record(self) -> None: ...
    def synchronize(self) -> None: ...
    def elapsed_time(self, end: "_Event") -> float:
        return 1.0


@contextmanager
def standin_gpus(most: float = float("inf")) -> Iterator[list[Gpu]]:
    """Inside, `torch.cuda` has the `GPUS`; a tensor of more than ``most`` elements on them has no values.

    Yields a list that each question about the properties of a GPU enters.
    """
    current, asked = [0], list[Gpu]()

    def index(device: Any = None) -> int:
        device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device or "cuda")
        return current[0] if device.index is None else int(device.index)

    @contextmanager
    def chosen(device: Any) -> Iterator[None]:
        before, current[0] = current[0], index(device)
        try:
            yield
        finally:
            current[0] = before

    def about(device: Any) -> Gpu:
        asked.append(GPUS[index(device)])
        return asked[-1]

    def properties(device: Any = None) -> Any:
        gpu = about(device)
        return SimpleNamespace(
            name=f"stand-in {gpu.arch}", major=gpu.capability[0], minor=gpu.capability[1],
            multi_processor_count=gpu.multiprocessors, shared_memory_per_block_optin=gpu.shared_bytes,
        )  # fmt: skip

    answers: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: len(GPUS),
        "current_device": lambda: current[0],
        "device": chosen,
        "get_device_properties": properties,
        "get_device_capability": lambda device=None: about(device).capability,
        "get_device_name": lambda device=None: properties(device).name,
        "current_stream": lambda device=None: SimpleNamespace(cuda_stream=1 + index(device)),
        "is_current_stream_capturing": lambda: False,
        "synchronize": lambda device=None: None,
        "Event": _Event,
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(torch.cuda, **answers))
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        stack.enter_context(_Operators(most))
        stack.enter_context(_Copies(most))
        yield asked
