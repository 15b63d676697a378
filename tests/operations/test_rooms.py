"""Every registered operation has all of its files, and no folder is left that belongs to none."""

from support import ROOT, operations, rooms


def test_every_operation_has_its_files():
    packages = {
        each.operation: operations.kernels_of(each).package.rpartition(".")[2] for each in operations.inspectable()
    }
    assert packages.keys() == set(operations.names())
    assert rooms.missing(ROOT, packages) == []
