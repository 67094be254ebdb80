"""`kdx export RUN OUT`: the student of a finished run for other programs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from kdx.commands.predict import protocol_of
from kdx.config.layout import take_config_dirs
from kdx.core.arguments import places_and_settings
from kdx.core.errors import UserError, did_you_mean, printable
from kdx.core.notice import fail, say

HELP = """\
kdx export RUN OUT [onnx|torchscript|weights] [protocol=last|val_selected]

Writes the student of a finished run into the folder OUT: the network, model.json with what a program needs to use
it (inputs, normalisation, names of the outputs, thresholds of labels), and the tokenizer of a network of texts. The
written network is loaded again, and its logits are compared with the student's.

  RUN          directory of a finished run
  OUT          folder; files of the same names are replaced
  onnx         model.onnx, for onnxruntime and others; needs pip install 'kdx[onnx]'. The default
  torchscript  model.pt, for torch.jit.load without kdx
  weights      model.safetensors, the state dict
  protocol     the student at the last step, or the one that was best on validation; default: last

  kdx export outputs/runs/sst2-kd-... build/sst2
"""
FORMS = ("onnx", "torchscript", "weights")


def main(arguments: Sequence[str]) -> None:
    """Export and print the files, and exit: 0 done, 1 it could not be exported, 2 wrong usage."""
    if any(a in ("-h", "--help") for a in arguments) or not arguments:
        print(HELP, end="")
        sys.exit(0 if arguments else 2)
    try:
        places, given = places_and_settings(take_config_dirs(arguments), ("protocol",), "see kdx export --help")
        if len(places) not in (2, 3):
            raise UserError(f"needs a run and a folder: kdx export RUN OUT [{'|'.join(FORMS)}]")
        form = places[2] if len(places) == 3 else FORMS[0]
        if form not in FORMS:
            raise UserError(f"unknown form '{form}'{did_you_mean(form, FORMS)}")
        protocol = protocol_of(given)
    except UserError as error:
        fail(2, error)
    from kdx.runs.use.interchange import write_network
    from kdx.runs.use.stored import stored

    try:
        files, difference = write_network(stored(Path(places[0]), protocol), Path(places[1]), form)
    except (UserError, ValueError, OSError) as error:
        fail(1, error)
    for file in files:
        print(printable(str(file)))
    say(f"its logits differ from the student's by at most {difference:.1e} of the largest")
