"""The command line of kdx. Each command imports its own module, so that `kdx --help` needs neither torch nor Hydra."""

import os
import signal
import sys
from collections.abc import Callable, Sequence

USAGE = """\
kdx: experiments in knowledge distillation

  kdx train [group=option] [key=value] ...   train a student; -m runs a sweep    (kdx train --help)
  kdx study study=NAME [key=value] ...       run the trainings of a study and print its table
  kdx plan study=NAME gain=0.3               seeds and hours that a claim of this size needs
  kdx verify TABLE [cells=3]                 train some runs of a table again and compare them
  kdx status [outputs/...]                   list the runs that are running, failed or waiting; count those done
  kdx report FOLDER ...                      write a page of tables and figures of the runs below folders
  kdx compare A B                            compare two runs, or groups of runs over seeds
  kdx predict RUN INPUT                      answers of a finished run's student on your images or texts
  kdx export RUN OUT [onnx|torchscript|weights]   its network for other programs, checked by value
  kdx data DATASET [key=value] ...           sizes, classes, duplicates and sample pictures of a data set
  kdx list methods|models|datasets|...       list the options of a group; `kdx list` names the groups
  kdx completion bash|zsh                    shell completion: eval "$(kdx completion bash)"
  kdx --version

Examples
  kdx train method=dkd
  kdx train -m method=kd,dkd seed=0,1,2
  kdx train experiment=crd/resnet56_resnet20_kd trainer=quick
  kdx study study=demo
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. Exits with 2 if the command does not exist."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        import kdx

        print(f"kdx {kdx.__version__}")
        return
    if command not in COMMANDS:
        from kdx.core.errors import did_you_mean, shown
        from kdx.core.notice import stop

        stop(2, [f"unknown command '{shown(command)}'{did_you_mean(command, COMMANDS)}"])
    try:
        os.getcwd()
    except OSError:
        from kdx.core.notice import stop

        stop(2, ["the working directory does not exist any more; change to another one"])
    try:
        COMMANDS[command](rest)
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C adds no traceback to the end
        from kdx.core.notice import stop
        from kdx.runs.signals import exit_code, stop_message

        stop(exit_code(error), [stop_message(error)])


def _train(arguments: list[str]) -> None:
    from kdx.train import main as train

    train(arguments)


def _study(arguments: list[str]) -> None:
    from kdx.commands.study import main as study

    study(arguments)


def _plan(arguments: list[str]) -> None:
    from kdx.commands.plan import main as plan

    plan(arguments)


def _verify(arguments: list[str]) -> None:
    from kdx.commands.verify import main as verify

    verify(arguments)


def _status(arguments: list[str]) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    from kdx.commands.status import main as status

    status(arguments)


def _report(arguments: list[str]) -> None:
    from kdx.report.entry import main as report

    report(arguments)


def _compare(arguments: list[str]) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    from kdx.report.compare import main as compare

    compare(arguments)


def _predict(arguments: list[str]) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    from kdx.commands.predict import main as predict

    predict(arguments)


def _export(arguments: list[str]) -> None:
    from kdx.commands.export import main as export

    export(arguments)


def _list(arguments: list[str]) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `kdx list models | head` is no error
    from kdx.commands.catalogue import main as catalogue

    catalogue(arguments)


def _data(arguments: list[str]) -> None:
    from kdx.commands.data import main as data

    data(arguments)


def _completion(arguments: list[str]) -> None:
    from kdx.commands.completion import main as completion

    completion(arguments, list(COMMANDS))


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": _train,
    "study": _study,
    "plan": _plan,
    "verify": _verify,
    "status": _status,
    "report": _report,
    "compare": _compare,
    "predict": _predict,
    "export": _export,
    "data": _data,
    "list": _list,
    "completion": _completion,
}

if __name__ == "__main__":
    main()
