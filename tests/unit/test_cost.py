import torch

from cgh_bench.frozen.cost import Allocations


def test_the_most_bytes_at_once_are_counted_and_what_was_let_go_is_not():
    given = torch.rand(1000)
    with Allocations() as allocated:
        first = given + 1
        second = first * 2
        del first
        third = second.view(10, 100).mul_(3)
        for _ in range(5):
            torch.sub(third, 1)
    assert allocated.most == 2 * 4000


def test_of_a_network_it_is_its_two_largest_neighbours():
    network = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
    images = torch.rand(1, 3, 20, 20)
    with torch.inference_mode(), Allocations() as allocated:
        network(images)
    assert allocated.most == 2 * 4 * 3 * 20 * 20
