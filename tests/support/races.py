"""Processes that do something at the same moment."""

import multiprocessing

PATIENCE = 60  # seconds


def at_once(*works):
    """Run each of ``works`` in a child, all from the same moment on.

    Returns what they gave, as text and in order. Each child lives until all are through.
    """
    context = multiprocessing.get_context("fork")
    together, answers = context.Barrier(len(works), timeout=PATIENCE), context.Queue()

    def child(number, work):
        together.wait()
        answers.put((number, str(work())))
        together.wait()

    children = [context.Process(target=child, args=pair) for pair in enumerate(works)]
    for process in children:
        process.start()
    found = dict(answers.get(timeout=PATIENCE) for _ in works)
    for process in children:
        process.join()
    assert [process.exitcode for process in children] == [0] * len(works)
    return [found[number] for number in range(len(works))]
