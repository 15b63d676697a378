"""The shipped check rejects every wrong kernel with the right status, and passes the honest kernel on the same case."""

import functools

import pytest
import torch
from boltzbench.harness.agreement.agreement import check_case, check_law
from boltzbench.harness.api.operations import Agreement, Implementation
from boltzbench.kernels.builds import cache
from support import operations, wrong_kernels
from support.wrong_kernels import Mutation, WrongKernel, mutant, shipped

CPU = torch.device("cpu")
FILE = "wrong_kernels.py"


def wrong_kernels_of(operation: str) -> tuple[WrongKernel, ...]:
    """Those of the operation's file; none if there is no file, which `lacking` reports."""
    try:
        found: tuple[WrongKernel, ...] = operations.load(operation, FILE).WRONG_KERNELS
    except FileNotFoundError:
        return ()
    return found


WRONG_KERNELS = [wrong for operation in operations.names() for wrong in wrong_kernels_of(operation)]
MUTATIONS = [wrong.mutation for wrong in WRONG_KERNELS if wrong.mutation is not None]


def lacking(operation: str) -> list[str]:
    """A sentence for everything that the wrong kernels of an operation lack."""
    place = operations.below_root(operations.folder(operation) / FILE)
    wrong = wrong_kernels_of(operation)
    if not wrong:
        return [f"{place} is missing or empty: write at least one kernel that the check of {operation!r} must reject"]
    found = [f"{place} holds {each.name!r} of {each.operation!r}" for each in wrong if each.operation != operation]
    backends = {each.mutation.backend for each in wrong if each.mutation is not None}
    found += [
        f"{place} has no mutant of the {each.backend} kernels: add a line of theirs to mutants(...)"
        for each in operations.hand_written()
        if each.operation == operation and each.backend not in backends
    ]
    if all(each.mutation is not None for each in wrong):
        found.append(f"{place} has mutants only: add an honest implementation in torch with one thing spoiled")
    return found


@pytest.mark.parametrize("operation", operations.names())
def test_every_operation_has_wrong_kernels(operation: str) -> None:
    assert lacking(operation) == []


def test_what_is_lacking_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "wrong_kernels_of", lambda operation: ())
    assert lacking("sgld") == [
        "tests/operations/sgld/wrong_kernels.py is missing or empty: "
        "write at least one kernel that the check of 'sgld' must reject"
    ]
    only = mutant(Mutation("sgld", "cupy", "sgld.cu", "a", "b"), "")
    monkeypatch.setitem(globals(), "wrong_kernels_of", lambda operation: (only,))
    assert [sentence.partition(":")[0] for sentence in lacking("sgld")] == [
        "tests/operations/sgld/wrong_kernels.py has no mutant of the native kernels",
        "tests/operations/sgld/wrong_kernels.py has no mutant of the triton kernels",
        "tests/operations/sgld/wrong_kernels.py has mutants only",
    ]
    assert any("of 'sgld'" in sentence for sentence in lacking("psgld"))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: f"{each.operation}: {each.file}: {each.old}")
def test_the_kernels_hold_what_a_mutant_changes(mutation: Mutation) -> None:
    assert mutation.text


def test_a_mutant_that_changes_nothing_is_named() -> None:
    with pytest.raises(LookupError, match=r"'no such line', which kernels/sgld/sgld.cu no longer holds: adapt tests/"):
        assert Mutation("sgld", "cupy", "sgld.cu", "no such line", "").text
    with pytest.raises(FileNotFoundError, match=r"neither kernels/sgld/moved.cuh nor kernels/moved.cuh exists"):
        assert Mutation("psgld", "cupy", "moved.cuh", "a", "b").text


def judge(implementation: Implementation, subject: str) -> Agreement:
    operation = operations.registry().operations[implementation.operation]
    for law in operation.laws:
        if law.name == subject:
            return check_law(implementation, operation, law, CPU, seed=0)
    found = [case for case in operation.cases if case.label == subject]
    assert found, f"{operation.name} has neither a case nor a law {subject!r}: name another in {FILE}"
    return check_case(operation, implementation, found[0], CPU, seeds=[found[0].seed])


@pytest.mark.parametrize("wrong", WRONG_KERNELS, ids=lambda wrong: f"{wrong.operation}: {wrong.name}")
def test_is_rejected(wrong: WrongKernel) -> None:
    agreement = judge(wrong.implementation, wrong.caught_by)
    assert agreement.status is wrong.status, agreement.message


SUBJECTS = sorted({(wrong.operation, wrong.caught_by) for wrong in WRONG_KERNELS})


@pytest.mark.parametrize(("operation", "subject"), SUBJECTS)
def test_what_rejects_a_kernel_passes_the_honest_one(operation: str, subject: str) -> None:
    honest = Implementation(operation, "torch", "torch", shipped(operation))
    assert judge(honest, subject).passed


CONTROLS = [
    Mutation("sgld", "cupy", "sgld.cu", "BLOCK", "BLOCK"),
    Mutation("sgld", "cupy", "common/philox.cuh", "round", "round"),
    Mutation("sgld", "triton", "triton_kernels.py", "BLOCK", "BLOCK"),
    Mutation("sgld", "triton", "common/philox_triton.py", "word", "word"),
    Mutation("sgld", "native", "sgld.cpp", "CHUNK", "CHUNK"),
    Mutation("sgld", "native", "native/random.hpp", "word", "word"),
]


@pytest.mark.parametrize("mutation", CONTROLS, ids=lambda each: each.file)
def test_a_mutant_without_a_mutation_passes(mutation: Mutation) -> None:
    control = mutant(mutation, "tensors=1 elements=5003 float32")
    assert judge(control.implementation, control.caught_by).passed


@pytest.mark.parametrize("file", ["sgld.cu", "sgld.cpp"])
def test_a_mutant_is_built_once_for_all_processes(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (mutation,) = (each for each in CONTROLS if each.file == file)
    for process in (1, 2):
        control = mutant(mutation, "tensors=1 elements=5003 float32")
        assert judge(control.implementation, control.caught_by).passed
        if process == 1:  # what another process has not: the copied tree, and the headers that it parses
            monkeypatch.setattr(wrong_kernels, "_copied_tree", functools.cache(wrong_kernels._copied_tree.__wrapped__))
            monkeypatch.setattr(wrong_kernels, "_quick", functools.cache(wrong_kernels._quick.__wrapped__))
            monkeypatch.setattr(cache, "run_compiler", lambda *given: pytest.fail("built again"))


RAISES = "def {name}(*given, **named): raise MemoryError\n\n\ndef unused("
LOGSUMEXP, MACHINE = "rows=37 columns=1031 float32", "machine units=18 float32"
SHARED = [
    ("logsumexp", "triton", "rows/layout.py", "as_rows", LOGSUMEXP),
    ("logsumexp", "cupy", "rows/layout.py", "as_rows", LOGSUMEXP),
    ("logsumexp", "native", "rows/native_rows.py", "native_rows", LOGSUMEXP),
    ("enumeration", "triton", "machines/spins_and_units.py", "require_bonds", MACHINE),
    ("enumeration", "cupy", "machines/spins_and_units.py", "require_bonds", MACHINE),
]


@pytest.mark.parametrize(("operation", "backend", "file", "name", "case"), SHARED)
def test_a_mutant_may_change_what_operations_share(
    operation: str, backend: str, file: str, name: str, case: str
) -> None:
    mutation = Mutation(operation, backend, file, f"def {name}(", RAISES.format(name=name))
    assert "MemoryError" in judge(mutant(mutation, case).implementation, case).message
    assert judge(operations.implementation(operation, backend), case).passed
