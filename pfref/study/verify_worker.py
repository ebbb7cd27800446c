"""math-verify in a process of its own: a pair of answers a line in, a verdict out.

Run as a program, by its path: it needs nothing of the package. It answers `ready` once
math-verify is imported; then, to each line [gold, answer] of JSON, true or false. The
processor's time for each pair and the memory are limited where the system can do that;
beyond them the process ends.
"""

import json
import os
import signal
import sys
from collections.abc import Callable

ROUNDING = 12  # decimals to which a decimal fraction is held against an exact number
PRECISION = 40  # digits to which exact numbers are compared


def limit_memory(size: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    except (ImportError, ValueError, OSError):
        pass  # this system has no such limit


def limit_time(seconds: float) -> None:
    """End the process after so many seconds of its own time from now; 0: never.

    The signal's default action ends it even inside a long operation on large integers,
    where Python's handlers are not called.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def grader() -> Callable[[str, str], bool]:
    """math-verify's verdict on a gold answer and an answer.

    Its own limits, which use signals, are turned off. So is what it takes for units
    (5m is no 5), and the search for a number in what it cannot read.
    """
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    forms = NormalizationConfig(
        basic_latex=True,
        units=False,
        malformed_operators=True,
        nits=True,
        boxed="all",
        equations=False,
    )
    latex = [LatexExtractionConfig(normalization_config=forms)]

    def equal(gold: str, answer: str) -> bool:
        try:
            both = [
                parse(
                    f"${text}$",
                    latex,
                    fallback_mode="no_fallback",
                    parsing_timeout=None,
                )
                for text in (gold, answer)
            ]
            return all(both) and verify(
                *both,
                float_rounding=ROUNDING,
                numeric_precision=PRECISION,
                allow_set_relation_comp=True,
                timeout_seconds=None,
            )
        except Exception:  # what it raises depends on the text
            return False

    return equal


def main(seconds: float, memory: int) -> None:
    """Answer until the input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    limit_memory(memory)
    equal = grader()
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        gold, answer = json.loads(line)
        limit_time(seconds)
        verdict = equal(gold, answer)
        limit_time(0)
        print(json.dumps(bool(verdict)), file=replies, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
