"""Every hook has a test here, named after it, and a docstring that a plugin author can work from."""

import inspect
import textwrap

import pluggy
import pytest
import torch
from boltzbench.harness import Ceiling, Dynamics, Sampler, Target, hookimpl, hookspecs
from fakes import implementation, operation

HOOKS = [name for name, thing in vars(hookspecs).items() if hasattr(thing, "boltzbench_spec")]


def manager_with(plugin):
    manager = pluggy.PluginManager("boltzbench")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()
    return manager


def test_there_are_hooks():
    assert HOOKS == [
        "register_operations",
        "register_implementations",
        "register_ceilings",
        "register_targets",
        "register_samplers",
    ]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_documented(hook):
    doc = inspect.getdoc(getattr(hookspecs, hook))
    assert doc
    assert "``register(" in doc


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_takes_a_typed_register(hook):
    signature = inspect.signature(getattr(hookspecs, hook))
    assert list(signature.parameters) == ["register"]
    assert signature.parameters["register"].annotation is not inspect.Parameter.empty


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_has_a_test(hook):
    assert f"test_{hook}" in globals()


def test_register_operations():
    class Plugin:
        @hookimpl
        def register_operations(self, register):
            register(operation("one"))
            register(operation("two"))

    given = []
    assert manager_with(Plugin()).hook.register_operations(register=given.append) == []
    assert [each.name for each in given] == ["one", "two"]


def test_register_implementations():
    class Plugin:
        @hookimpl
        def register_implementations(self, register):
            register(implementation("mine"))

    given = []
    assert manager_with(Plugin()).hook.register_implementations(register=given.append) == []
    assert [each.name for each in given] == ["mine"]


def test_register_ceilings():
    class Plugin:
        @hookimpl
        def register_ceilings(self, register):
            register(Ceiling("copy", "mine", "torch", 8, prepare=lambda device: (lambda: None, lambda: None)))

    given = []
    assert manager_with(Plugin()).hook.register_ceilings(register=given.append) == []
    assert [each.name for each in given] == ["mine"]


def example(hook):
    """What the example in this hook's docstring registers."""
    lines = inspect.getdoc(getattr(hookspecs, hook)).splitlines()
    first = next(n for n, line in enumerate(lines) if line.endswith("::"))
    module: dict = {}
    exec(textwrap.dedent("\n".join(lines[first + 1 :])), module)
    assert module["BOLTZBENCH_API"] == 1

    class Plugin:
        pass

    setattr(Plugin, hook, staticmethod(module[hook]))
    given = []
    assert getattr(manager_with(Plugin()).hook, hook)(register=given.append) == []
    return given


def test_register_targets():
    (target,) = example("register_targets")
    assert isinstance(target, Target)
    assert target.law(1.0, Dynamics()).draw(3, torch.Generator().manual_seed(1)).shape == (3, 1)


def test_register_samplers():
    (sampler,) = example("register_samplers")
    assert isinstance(sampler, Sampler)
    (target,) = example("register_targets")
    assert sampler.refuses(target) is None
