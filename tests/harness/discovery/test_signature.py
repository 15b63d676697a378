"""What an operation takes and gives is read from its tensors."""

import torch
from boltzbench.harness import Case
from boltzbench.harness.discovery.signature import Form, signature
from support.fakes import CPU, operation


def cases(*given):
    return tuple(Case("double", sizes, dtype, scenario) for sizes, dtype, scenario in given)


def described(make_inputs, *given, **fields):
    found = signature(operation(cases=cases(*given), make_inputs=make_inputs, **fields), CPU)
    return {each.name: each for each in found.inputs}, {each.name: each for each in found.outputs}


def test_sizes_are_named_where_all_cases_fit_and_others_are_a_number_or_a_range():
    def make_inputs(case, device):
        rows, columns = case.sizes.values()
        x = torch.zeros(rows, columns, 2, -(-columns // 4), dtype=case.torch_dtype)
        return {"x": x, "bias": torch.zeros(columns), "beta": 0.5, "mask": None}

    sizes = {"rows": 3, "columns": 3}, {"rows": 5, "columns": 9}
    inputs, outputs = described(make_inputs, (sizes[0], "float32", ""), (sizes[1], "float16", ""), moving=("beta",))
    form = Form("tensor", ("float32", "float16"), ("rows", "columns", "2", "1..3"), ("",))
    assert inputs["x"].forms == outputs["y"].forms == (form,)
    assert inputs["bias"].forms[0].shape == ("columns",)  # as many as rows in one case
    assert inputs["beta"].forms == (Form("float", scenarios=("",), value="0.5"),)
    assert inputs["beta"].role == "moves on in each launch"
    assert inputs["mask"].forms == (Form("None", scenarios=("",)),)


def test_forms_that_depend_on_the_scenario_and_cases_of_other_sizes():
    def make_inputs(case, device):
        if case.scenario == "machine":
            return {"x": torch.zeros(case.sizes["units"], case.sizes["units"])}
        beta = torch.ones(case.sizes["rows"]) if case.scenario == "betas" else 1.0
        return {"x": torch.zeros(case.sizes["rows"], 7), "beta": beta, "rule": case.scenario}

    inputs, _ = described(
        make_inputs,
        ({"rows": 2}, "float32", ""),
        ({"rows": 3}, "float32", "betas"),
        ({"units": 4}, "float32", "machine"),
    )
    assert [each.shape for each in inputs["x"].forms] == [("rows", "7"), ("units", "units")]
    assert [(each.kind, each.scenarios) for each in inputs["beta"].forms] == [("float", ("",)), ("tensor", ("betas",))]
    assert inputs["rule"].forms[0].value == "'' or 'betas'"


def test_members_of_a_list_are_described_once_and_state_is_named():
    def make_inputs(case, device):
        return {f"p_{place}": torch.zeros(case.sizes["n"] - place) for place in range(2)} | {"g_7": 1}

    make_outputs = lambda inputs: {"p_0": inputs["p_0"].clone()}  # noqa: E731
    inputs, outputs = described(make_inputs, ({"n": 4}, "float32", ""), make_outputs=make_outputs)
    assert list(inputs) == ["p_0", "g_7"]
    assert inputs["p_0"].several
    assert inputs["p_0"].forms[0].shape == ("n",)
    assert inputs["p_0"].role == outputs["p_0"].role == "changed in place"
    assert not inputs["g_7"].several


def test_neither_large_cases_nor_empty_ones_are_made_where_there_are_others():
    made = []

    def make_inputs(case, device):
        made.append(case.sizes["n"])
        return {"x": torch.zeros(case.sizes["n"])}

    described(make_inputs, *(({"n": n}, "float32", "") for n in (0, 1 << 40, 8, 4, 2, 1)))
    assert made == [1, 2, 4]
    made.clear()
    described(make_inputs, ({"n": 0}, "float32", ""))
    assert made == [0]
