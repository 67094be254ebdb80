"""Overrides without paths of a machine."""

import hashlib

from kdx.tables.placeholders import FILE, placeless


def test_a_state_dict_that_is_chosen_in_a_file_stays_chosen(tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(b"weights")
    sha = hashlib.sha256(b"weights").hexdigest()[:16]
    for text in (f"teacher.checkpoint={path}::model.ema", f"teacher.checkpoint='{path}::model.ema'"):
        kept = placeless(text, {}, {})
        assert kept == f"teacher.checkpoint='{{file:net.pt:{sha}}}::model.ema'"
        assert FILE.sub(str(path), kept) == f"teacher.checkpoint='{path}::model.ema'"
    assert placeless(f"teacher.checkpoint={path}", {}, {}) == f"teacher.checkpoint='{{file:net.pt:{sha}}}'"
