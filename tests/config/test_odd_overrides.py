"""Overrides that Hydra, its grammar or the file system cannot digest: one line each, never a traceback."""

import pytest

from kdx.config.compose import ConfigError, compose, points
from kdx.core.errors import LONGEST


def line_of(*overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        compose(overrides)
    (line,) = refused.value.problems
    assert len(line) <= LONGEST and line.isprintable()
    return line


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("hydra.job.chdir=${seed}", "'hydra.job.chdir' refers to 'seed', which does not exist"),
        ("hydra.job.chdir=${.nope}", "'hydra.job.chdir' refers to 'nope', which does not exist"),
        ("hydra.job.chdir=???", "hydra.job.chdir: a value is missing"),
        ("hydra.run.dir=${hydra.run.dir}", "hydra.run.dir: Recursive interpolation"),
        ("hydra.job_logging=${nope}", "'hydra.job_logging' refers to 'nope'"),
        ("hydra.hydra_logging=${seed}", "hydra.hydra_logging takes a mapping or null, found 0"),
        ("hydra.verbose=${seed}", "hydra.verbose takes true, false or names of loggers, found 0"),
    ],
)
def test_values_of_hydras_own_keys_that_it_cannot_read(override: str, said: str):
    assert said in line_of(override)


@pytest.mark.parametrize("override", ["seed=${seed}", "optimizer.lr=${optimizer.lr}"])
def test_a_value_that_refers_to_itself(override: str):
    assert line_of(override).startswith(override.split("=")[0] + ": Recursive interpolation")


@pytest.mark.parametrize("value", ["[" * 300 + "]" * 300, "{a:" * 600 + "1" + "}" * 600])
def test_brackets_that_are_nested_too_deeply(value: str):
    line = line_of(f"seed={value}")
    assert "seed=" in line and "nested too deeply" in line


def test_a_sweep_of_values_that_are_nested_too_deeply():
    with pytest.raises(ConfigError, match="nested too deeply"):
        points(["seed=" + "{a:" * 600 + "1" + "}" * 600])


@pytest.mark.parametrize("key", ["a." * 3000 + "b", "+" + "a." * 600 + "b"])
def test_a_key_that_is_too_long_for_the_name_of_a_file(key: str):
    assert "a.a.a" in line_of(f"{key}=1")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["++hydra.job.nope=1"], "unknown key 'hydra.job.nope'; hydra.job has: chdir, config, "),
        (["+hydra.nope=1"], "unknown key 'hydra.nope'; hydra has: "),
        (["++hydra.job.chdri=true"], "unknown key 'hydra.job.chdri'; did you mean 'hydra.job.chdir'?"),
        (["++hydra.launcher.n_jobs=2"], "unknown key 'hydra.launcher.n_jobs'; hydra.launcher has: "),
    ],
)
def test_an_added_key_that_hydra_does_not_have(overrides: list[str], said: str):
    assert said in line_of(*overrides)


@pytest.mark.parametrize("override", ["++hydra.job.env_set.X='1'", "++hydra.job.chdir=true", "hydra/launcher=fused"])
def test_keys_of_hydra_that_take_any_name_and_those_that_are_there(override: str):
    assert compose([override]).config["seed"] == 0
