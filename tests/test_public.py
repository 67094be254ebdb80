"""The public API: `kdx.__all__`, imported when it is used."""

import subprocess
import sys

import pytest

import kdx


@pytest.mark.parametrize("name", kdx.__all__)
def test_each_name_is_there(name: str):
    assert getattr(kdx, name) is not None
    assert name in dir(kdx)


def test_a_name_of_the_api_lives_where_it_says():
    for name, module in kdx._HOME.items():
        assert getattr(sys.modules[module], name) is getattr(kdx, name)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'kdx' has no attribute 'Trem'"):
        kdx.Trem  # noqa: B018 # pyright: ignore


def test_importing_kdx_imports_nothing_heavy():
    program = "import sys, kdx; print([m for m in ('torch', 'numpy', 'hydra', 'kdx.core') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
