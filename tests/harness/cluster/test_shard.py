"""`--shard`: every step is in one shard, comparisons stay whole, and shards take equally long."""

import random
from types import SimpleNamespace

import pytest
from boltzbench.harness.api.messages import UsageError
from boltzbench.harness.cluster.shard import (
    START_SECONDS,
    Unit,
    divided,
    pairs_of_shard,
    parse_shard,
    steps_of_shard,
)
from boltzbench.harness.execution.expected_seconds import expected_seconds
from boltzbench.harness.execution.plan import plan
from support.fakes import case, implementation, law, operation

SIZES = (3, 1 << 20, 1 << 26, 9, 1 << 24)
"""Of cases that take from no time to minutes."""


def steps(count=6, **fields):
    cases = [case(n, purpose="bench") for n in SIZES]
    names = ("torch", "native", "triton")
    selection = [
        (operation(f"op{i}", cases=cases[: 1 + i % 5], **fields), [implementation(name, of=f"op{i}") for name in names])
        for i in range(count)
    ]
    return plan(selection, ("bench", "law"))


@pytest.mark.parametrize("of", [1, 2, 3, 7, 40])
def test_each_step_is_in_one_shard_and_comparisons_stay_whole(of):
    whole = steps(laws=(law(),))
    shards = [steps_of_shard(whole, number, of, "cpu", ("cold",)) for number in range(1, of + 1)]
    found = [step for own, _ in shards for step in own]
    assert sorted(map(whole.index, found)) == [*range(len(whole))]
    for number, (own, shard) in enumerate(shards, 1):
        assert [*map(whole.index, own)] == sorted(map(whole.index, own)), "in the order of the plan"
        assert (shard.number, shard.of, shard.steps) == (number, of, len(own))
        compared = [(step.operation.name, step.label) for step in own]
        assert all(compared.count(each) == 3 for each in compared)
    assert len({shard.plan for _, shard in shards}) == 1
    assert [steps_of_shard(whole, 1, of, "cpu", ("cold",))] == shards[:1], "the same each time"


@pytest.mark.parametrize("of", [2, 3, 5])
def test_the_longest_shard_exceeds_the_mean_by_less_than_a_unit(of):
    generator = random.Random(of)
    for _ in range(50):
        units = [Unit((i,), generator.expovariate(0.1), generator.randrange(4)) for i in range(30)]
        shards = divided(units, of)
        loads = [sum(u.seconds for u in own) + START_SECONDS * len({u.group for u in own}) for own in shards]
        longest = max(unit.seconds for unit in units) + START_SECONDS
        assert max(loads) < sum(loads) / of + longest
        assert min(loads) > sum(loads) / of - longest
        assert sorted(u.work[0] for own in shards for u in own) == [*range(30)]


def test_long_cases_are_spread():
    units = [Unit((i,), 100.0 if i < 4 else 1.0, "one operation") for i in range(12)]
    assert [sum(unit.seconds == 100 for unit in own) for own in divided(units, 4)] == [1, 1, 1, 1]


def test_the_hash_is_that_of_the_whole_plan():
    def of(whole, device="cpu", modes=("cold",)):
        return steps_of_shard(whole, 1, 2, device, modes)[1].plan

    whole = steps()
    others = [of(whole[:-1]), of(whole[::-1]), of(whole, "cuda"), of(whole, modes=("cold", "hot"))]
    others.append(of(plan([(operation(), [implementation()])], ("bench",), seed=4)))
    assert len({of(whole), *others}) == 6
    assert of(whole) == of(steps())


def test_expected_seconds():
    """Of an interpreted kernel none, since it is not timed; of a case that moves 10 GB, more than of a small one."""
    small, large = (
        plan([(operation(cases=[case(n, purpose="bench")]), [implementation(name, backend=name)])], ("bench",))[0]
        for n, name in ((64, "torch"), (1 << 30, "torch"))
    )
    (interpreted,) = plan(
        [(operation(cases=[case(64, purpose="bench")]), [implementation(backend="triton")])], ("bench",)
    )
    assert expected_seconds(interpreted, "cpu", ("cold",)) == 0
    assert expected_seconds(interpreted, "cuda", ("cold",)) > 1
    assert expected_seconds(interpreted, "cpu", ()) > 0, "check runs it"
    assert expected_seconds(large, "cpu", ("cold",)) > 5 * expected_seconds(small, "cpu", ("cold",))
    assert expected_seconds(small, "cpu", ("cold", "hot")) > expected_seconds(small, "cpu", ("cold",))


@pytest.mark.parametrize("text", ["3/2", "0/2", "a/b", "2", "1/0", "-1/2", "1/2/3", ""])
def test_what_is_no_shard(text):
    with pytest.raises(UsageError, match=r"--shard takes the number of a shard and of all shards, such as 2/8: got"):
        parse_shard(text)
    assert parse_shard("2/2") == (2, 2)


@pytest.mark.parametrize("of", [1, 3, 9])
def test_samplers_on_one_target_stay_together(of):
    samplers = [SimpleNamespace(name=name) for name in ("mala", "sgld")]
    targets = [SimpleNamespace(name=f"t{i}", temperatures=(1.0,) * (1 + i)) for i in range(5)]
    pairs = [(sampler, target) for sampler in samplers for target in targets]
    questions = [SimpleNamespace(name=name) for name in ("dice", "coins")]
    shards = [pairs_of_shard(pairs, questions, number, of, 0) for number in range(1, of + 1)]
    found = [pair for own, _, _ in shards for pair in own]
    assert sorted(map(pairs.index, found)) == [*range(10)]
    assert sorted(each.name for _, own, _ in shards for each in own) == ["coins", "dice"]
    for own, _, shard in shards:
        names = [target.name for _, target in own]
        assert all(names.count(name) == 2 for name in names)
        assert shard.plan == shards[0][2].plan != pairs_of_shard(pairs, questions, 1, of, 1)[2].plan
    assert of < 9 or any(not (own or asked) for own, asked, _ in shards)
