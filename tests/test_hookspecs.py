"""Every hook has a test here, named after it, and a docstring that a plugin author can work from."""

import inspect

import pluggy
import pytest
from boltzbench.harness import Ceiling, hookimpl, hookspecs
from fakes import implementation, operation

HOOKS = [name for name, thing in vars(hookspecs).items() if hasattr(thing, "boltzbench_spec")]


def manager_with(plugin):
    manager = pluggy.PluginManager("boltzbench")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()
    return manager


def test_there_are_hooks():
    assert HOOKS == ["register_operations", "register_implementations", "register_ceilings"]


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
