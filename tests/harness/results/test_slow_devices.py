"""A device is compared with others of its kind, also after a merge. Imports no torch."""

import pytest
from boltzbench.harness.api.records import Part, UsedDevice
from boltzbench.harness.results.slow_devices import compared_again, slower_than_peers

H200 = {"gpu": {"name": "H200"}, "torch": "2.13.0", "harness": "5ce"}


@pytest.mark.parametrize(
    ("seconds", "slow"),
    [
        ((1.0, 1.04), {}),
        ((1.0, 1.06), {"1": "6% slower than the median of the others (copy)"}),
        ((1.0, 1.02, 0.98, 1.2), {"3": "20% slower than the median of the others (copy)"}),
        ((1.0, 1.0, 2.0, 2.0), {"2": "100% slower than the median of the others (copy)",
                                "3": "100% slower than the median of the others (copy)"}),
        ((1.0,), {}),
    ],
)  # fmt: skip
def test_a_device_is_slow_beside_the_median_of_the_others(seconds, slow):
    assert slower_than_peers({str(place): {"copy": each} for place, each in enumerate(seconds)}) == slow


def test_the_worst_of_several_references_counts():
    found = slower_than_peers({"a": {"copy": 1.0, "product": 1.0}, "b": {"copy": 1.1, "product": 1.3}})
    assert found == {"b": "30% slower than the median of the others (product)"}


def card(name, seconds, uuid="", slow=""):
    reference = {"copy": seconds} if seconds else {}
    return UsedDevice(name, {"uuid": uuid} if uuid else None, reference=reference, slow=slow)


def part(file, *devices, **environment):
    return Part(file, "complete", {**H200, **environment}, devices=devices)


def percents(*parts):
    """By how much the cards of each part are slower, in words."""
    return [[each.slow.partition("%")[0] for each in part.devices] for part in compared_again(parts)]


def test_the_cards_of_all_parts_are_compared():
    one, two = part("1", card("cuda:0", 1.0), card("cuda:1", 1.0)), part("2", card("cuda:0", 1.2), card("cuda:1", 1.2))
    assert percents(one, two) == [["", ""], ["20", "20"]]
    assert percents(one) == [["", ""]]
    alone = [part(str(place), card("cuda:0", seconds)) for place, seconds in enumerate((1.0, 1.02, 1.1))]
    assert percents(*alone) == [[""], [""], ["9"]]


def test_what_was_slow_in_its_part_may_be_ordinary():
    best = part("1", card("cuda:0", 1.0), card("cuda:1", 1.1, slow="10% slower than the median of the others (copy)"))
    assert percents(best, part("2", *(card(f"cuda:{place}", 1.1) for place in range(3)))) == [["", ""], [""] * 3]


@pytest.mark.parametrize("other", [{"gpu": {"name": "H100"}}, {"torch": "2.11.0"}, {"harness": "77a"}])
def test_cards_of_another_kind_or_software_are_no_peers(other):
    assert percents(part("1", card("cuda:0", 1.0)), part("2", card("cuda:0", 1.2), **other)) == [[""], [""]]


def test_a_card_in_several_parts_is_one_card_and_not_its_own_peer():
    again = [part(str(place), card("cuda:0", seconds, "GPU-1")) for place, seconds in enumerate((1.0, 1.2, 1.2))]
    assert percents(*again) == [[""]] * 3
    assert percents(*again, part("other", card("cuda:0", 1.0, "GPU-2"))) == [[""], ["20"], ["20"], [""]]
    assert percents(*again[1:], part("other", card("cuda:0", 1.1, "GPU-2"))) == [["9"], ["9"], [""]]


def test_a_card_without_times_keeps_its_words():
    words = "7 % slower than the others"
    parts = [part("1", card("cuda:0", 1.0)), part("2", card("cuda:0", 0, slow=words), card("cuda:1", 0))]
    assert [each.slow for part in compared_again(parts) for each in part.devices] == ["", words, ""]
