"""A capture without a GPU: records what a launch enqueues, and replays that without the launch's Python.

A recorded launch has the arguments of the capture: the same addresses, and numbers by value. This is what a CUDA graph
keeps. What Python reads from a tensor stays as it was in the capture. A graph keeps what is read from a tensor of the
host, and on a GPU's tensor a capture would fail: on the CPU the two look the same.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from boltzbench.harness.timing.cpu_clock import CpuClock
from boltzbench.harness.timing.quiet import HostLoad
from boltzbench.kernels.common.triton_runtime import INTERPRETS
from boltzbench.kernels.cuda_module import CudaModule
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, records torch operations, launches of CUDA C and launches of Triton kernels.

    ``operations`` has the names of the torch operations that work on a device or make the host wait for it: neither
    views nor memory without values.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._work: list[Callable[[], object]] = []
        self.operations: list[str] = []

    def replay(self) -> None:
        """Do the recorded work again, on the memory of the capture."""
        for work in self._work:
            work()

    def __enter__(self) -> "Recorder":
        self._patches = ExitStack()
        self._patches.enter_context(self._recorded(CudaModule, "launch"))
        if INTERPRETS:
            from triton.runtime.interpreter import GridExecutor

            self._patches.enter_context(self._recorded(GridExecutor, "__call__"))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._patches.close()

    def _inside(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator of the suite as Python, so that its launches and torch operations are recorded."""
        from torch._library.custom_ops import OPDEFS

        super().__enter__()  # type: ignore[no-untyped-call]
        try:
            return OPDEFS[function._schema.name]._init_fn(*args, **kwargs)
        finally:
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.namespace == "boltzbench":
            return self._inside(function, args, kwargs)
        given = {_storage(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        result = function(*args, **kwargs)
        leaves = tree_leaves(result)
        made = [each if isinstance(each, Tensor) and _storage(each) not in given else None for each in leaves]
        writes = function._schema.is_mutable or any(each is not None for each in made)  # else a view, or a read
        name = function._schema.name.removeprefix("aten::")
        copies_from_host = name == "lift_fresh"  # a tensor of Python's numbers
        reads = not any(isinstance(each, Tensor) for each in leaves)
        if not name.removeprefix("new_").startswith("empty") and (writes or reads or copies_from_host):
            self.operations.append(name)
        if writes:

            def again() -> None:
                for ours, new in zip(made, tree_leaves(function(*args, **kwargs)), strict=True):
                    if ours is not None:
                        ours.copy_(new)

            self._work.append(again)
        return result

    @contextmanager
    def _recorded(self, owner: type, name: str) -> Iterator[None]:
        launch = getattr(owner, name)

        def record(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = _frozen(args), _frozen(kwargs)
            with _disable_current_modes():
                result = launch(*args, **kwargs)
            self._work.append(lambda: launch(*args, **kwargs))
            return result

        with mock.patch.object(owner, name, record):
            yield


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _frozen(argument: Any) -> Any:
    """The argument as it is now: a launch copies numbers and structures, and keeps addresses of tensors."""
    if isinstance(argument, (list, tuple)):
        return type(argument)(_frozen(each) for each in argument)
    if isinstance(argument, dict):
        return {name: _frozen(each) for name, each in argument.items()}
    return type(argument).from_buffer_copy(argument) if isinstance(argument, ctypes.Structure) else argument


class RehearsalClock(CpuClock):
    """Captures by `Recorder`, whatever the launch takes. Its time stands still, so that counts end the sampling, and
    the load of the machine is unknown."""

    def __init__(self) -> None:
        super().__init__(lambda: 0, lambda: 0, HostLoad(lambda: None))

    def sets(self, seconds: float, nbytes: int, *, cold: bool) -> int:
        return 2

    def _flush(self) -> None:
        pass

    def capture(self, launch: Callable[[], object]) -> Callable[[], object] | None:
        with Recorder() as recorder:
            launch()
        return recorder.replay
