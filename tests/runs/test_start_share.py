"""Students that start between their seed's weights and a checkpoint's."""

import pytest
import torch

from kdx.config.compose import ConfigError
from kdx.config.identity import identity
from kdx.models.tap import plain
from kdx.models.weights import save_weights
from kdx.runs.build import build_network, start_student


def test_the_start_is_on_the_line_between_the_seed_and_the_checkpoint(tiny, tmp_path):
    given = build_network(tiny("method=supervised").student.net, 99)
    save_weights(tmp_path / "given.safetensors", given, {})
    of = [f"student.checkpoint={tmp_path / 'given.safetensors'}"]
    starts = {
        share: plain(start_student(tiny("method=supervised", *of, f"student.checkpoint_share={share}"),
                                   tmp_path / "given.safetensors")).state_dict()
        for share in (0.0, 0.25, 1.0)
    }  # fmt: skip
    seeded = plain(start_student(tiny("method=supervised"), None)).state_dict()
    for name, value in plain(given).state_dict().items():
        assert torch.equal(starts[1.0][name], value)
        if value.is_floating_point():
            assert torch.equal(starts[0.0][name], seeded[name])
            assert torch.allclose(starts[0.25][name], 0.75 * seeded[name] + 0.25 * value, atol=1e-7)


def test_a_share_counts_for_a_runs_identity_and_the_whole_checkpoint_does_not(tiny, tmp_path):
    save_weights(tmp_path / "given.safetensors", build_network(tiny("method=supervised").student.net, 99), {})
    of = f"student.checkpoint={tmp_path / 'given.safetensors'}"
    whole = tiny("method=supervised", of).plain()
    half = tiny("method=supervised", of, "student.checkpoint_share=0.5").plain()
    assert identity(whole) != identity(half)
    del whole["student"]["checkpoint_share"]
    assert identity(whole) == identity(tiny("method=supervised", of))


def test_a_share_of_no_checkpoint_is_refused(tiny):
    with pytest.raises(ConfigError, match=r"student\.checkpoint_share=0\.5 needs student\.checkpoint, which is null"):
        tiny("method=supervised", "student.checkpoint_share=0.5")
