"""Functions that losses, metrics and evaluators share, against their definitions."""

import torch

from kdx.core.functional import mean_log_probs


def test_a_mean_without_weights_is_the_mean_of_probabilities():
    torch.manual_seed(3)
    members = torch.randn(3, 4, 5, dtype=torch.float64).log_softmax(2)
    torch.testing.assert_close(mean_log_probs(members).exp(), members.exp().mean(0))
    torch.testing.assert_close(mean_log_probs(members), mean_log_probs(members, torch.full((3,), 1 / 3).double()))
