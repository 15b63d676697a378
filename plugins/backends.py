"""An operation's implementations by the suite's own kernels: one for each backend."""

from collections.abc import Callable, Iterator
from functools import partial

from boltzbench.harness import Implementation, Inputs, Launch, Tensors
from boltzbench.kernels.dispatch import BACKENDS, unavailable
from boltzbench.kernels.variants import variants_of


def on_each_backend(
    operation: str, prepare: Callable[[str, Inputs, Tensors], Launch], package: str, *kinds: str, note: str = ""
) -> Iterator[Implementation]:
    """Implementations by the kernels of ``package``, whose variants are of ``kinds``.

    ``prepare`` takes the backend first; ``note`` is told of the kernels, not of torch.
    """
    for backend in BACKENDS:
        yield Implementation(
            operation,
            backend,
            backend,
            partial(prepare, backend),
            partial(unavailable, backend),
            variants=partial(variants_of, backend, package, *kinds),
            note="" if backend == "torch" else note,
        )
