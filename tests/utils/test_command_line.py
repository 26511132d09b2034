"""vmb_d2.utils.command_line: the options in errors, and the exit statuses."""

import argparse
import signal

import pytest

from vmb_d2.errors import ConfigError, InputError
from vmb_d2.utils.command_line import at_home, run
from vmb_d2.utils.interruption import Interrupted


def parser():
    result = argparse.ArgumentParser()
    result.add_argument("source", type=at_home)
    result.add_argument("--batch-size", type=int)
    result.add_argument("--num_features", type=int)
    return result


def ended(capsys, function, *arguments, **options):
    """The exit status, and stderr, of a program."""
    status = run(parser(), function, arguments=["photos", *arguments], **options)
    return status, capsys.readouterr().err


def raising(error):
    def function(args):
        raise error

    return function


def test_the_status_is_what_the_work_returns(capsys):
    assert ended(capsys, lambda args: args.batch_size, "--batch-size=1") == (1, "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("too small", field="batch_size", value=0), "--batch-size=0: too small"),
        (ConfigError(field="num_features", value=9, valid=[1]), "--num_features=9: valid are 1"),
        (ConfigError("take `other`=2, or `source`"), "take other=2, or source"),
        (InputError("`input_dir`=x: No such file"), "--images=x: No such file"),
    ],
)
def test_an_error_names_the_option(capsys, error, line):
    names = {"input_dir": "--images"}
    assert ended(capsys, raising(error), names=names) == (2, f"error: {line}\n")


def test_a_user_that_is_not_there_is_one_line(capsys):
    assert run(parser(), lambda args: 0, arguments=["~nobody_here/x"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ~nobody_here/x: there is no such user")


def test_a_signal(capsys):
    status, err = ended(capsys, raising(Interrupted(signal.SIGTERM)))
    assert (status, err) == (143, "interrupted by SIGTERM; run the same command to go on\n")
    assert ended(capsys, raising(KeyboardInterrupt()))[0] == 130


def test_a_fault_of_the_program_is_a_traceback(capsys):
    status, err = ended(capsys, raising(ZeroDivisionError("oh")))
    assert status == 2
    assert err.startswith("Traceback")
    assert err.endswith("ZeroDivisionError: oh\n")
