"""Batch norm statistics re-estimated over batches: exact, and nothing else touched."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from encoding_ext.precise_bn import _Population, precise_batch_norm
from lseg_utils.errors import InputError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.conv = nn.Conv2d(3, 2, 1)
        self.second = nn.BatchNorm2d(2, momentum=0.3)
        self.unused = nn.BatchNorm2d(4)

    def forward(self, images):
        return self.second(self.conv(self.drop(self.first(images))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    # of different sizes and means, so that an average of averages would be wrong
    return [torch.randn(size, 3, 5, 4) * (size + 1) + 10 * size for size in (1, 2, 5)]


def test_first_layer_gets_the_statistics_of_all_pixels(net, batches):
    assert precise_batch_norm(net, batches, net, num_batches=3) == 3
    pixels = torch.cat(batches).transpose(0, 1).reshape(3, -1)
    torch.testing.assert_close(net.first.running_mean, pixels.mean(dim=1))
    torch.testing.assert_close(net.first.running_var, pixels.var(dim=1, correction=0))


def test_later_layers_see_batches_normalised_by_their_own_statistics(net, batches):
    seen = [net.conv(nn.functional.batch_norm(batch, None, None, training=True)) for batch in batches]
    precise_batch_norm(net, batches, net, num_batches=3)
    pixels = torch.cat(seen).transpose(0, 1).reshape(2, -1)
    torch.testing.assert_close(net.second.running_mean, pixels.mean(dim=1))
    torch.testing.assert_close(net.second.running_var, pixels.var(dim=1, correction=0))


def test_everything_else_stays_as_it_was(net, batches):
    net.second.train()
    names = ("first.running_mean", "first.running_var", "second.running_mean", "second.running_var")
    before = {name: value.clone() for name, value in net.state_dict().items() if name not in names}
    flags = [(part.training, getattr(part, "track_running_stats", None)) for part in net.modules()]
    precise_batch_norm(net, batches, net, num_batches=3)
    for name, value in before.items():
        assert torch.equal(net.state_dict()[name], value), name
    assert flags == [(part.training, getattr(part, "track_running_stats", None)) for part in net.modules()]
    assert (net.first.momentum, net.second.momentum) == (0.1, 0.3)
    assert not any(part._forward_pre_hooks for part in net.modules())


def test_flags_come_back_after_an_error(net, batches):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ZeroDivisionError):
        precise_batch_norm(net, batches, lambda batch: 1 / 0, num_batches=3)
    assert not net.first.training and net.first.track_running_stats
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_only_so_many_batches_are_taken(net, batches):
    assert precise_batch_norm(net, batches, net, num_batches=1) == 1
    torch.testing.assert_close(net.first.running_mean, batches[0].mean(dim=(0, 2, 3)))
    assert precise_batch_norm(net, batches, net, num_batches=100) == 3


def test_no_batch_at_all_is_an_error(net):
    with pytest.raises(InputError, match="no batch"):
        precise_batch_norm(net, [], net, num_batches=3)


def test_a_norm_that_is_used_twice_counts_both_inputs():
    net = nn.BatchNorm1d(1)
    precise_batch_norm(net, [torch.tensor([[0.0], [2.0]])], lambda batch: (net(batch), net(batch + 10)), 1)
    assert float(net.running_mean) == pytest.approx(6) and float(net.running_var) == pytest.approx(26)


def test_apple_gpus_have_no_float64_so_the_sums_are_kept_on_the_cpu():
    on_mps = SimpleNamespace(device=torch.device("mps"))
    assert _Population(SimpleNamespace(running_mean=on_mps, num_features=3)).moments.device == torch.device("cpu")
    population = _Population(nn.BatchNorm2d(3, device="meta"))
    assert population.moments.device == torch.device("meta") and population.moments.dtype == torch.float64
