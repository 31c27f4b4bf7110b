"""SIGINT: at once in user code, after the line while one is written, and never between cells."""

from __future__ import annotations

import signal
import threading

import pytest

from daytona_kernel.agent.interrupts import Interrupts


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_between_cells_an_interrupt_does_nothing(interrupts: Interrupts) -> None:
    press()
    with interrupts.raising():
        pass
    press()


def test_in_user_code_it_raises_at_once(interrupts: Interrupts) -> None:
    def user_code() -> None:
        press()
        pytest.fail("went on")

    with pytest.raises(KeyboardInterrupt), interrupts.raising():
        user_code()


def test_while_a_line_is_written_it_waits_for_its_end(interrupts: Interrupts) -> None:
    written = []

    def write() -> None:
        with interrupts.hold():
            press()
            assert interrupts.pending
            written.append("whole line")

    with pytest.raises(KeyboardInterrupt), interrupts.raising():
        write()
    assert written == ["whole line"]
    assert not interrupts.pending


def test_it_waits_for_the_outermost_of_nested_lines(interrupts: Interrupts) -> None:
    reached = []

    def write() -> None:
        with interrupts.hold():
            with interrupts.hold():
                press()
            reached.append("after the inner one")

    with pytest.raises(KeyboardInterrupt), interrupts.raising():
        write()
    assert reached


def test_a_line_between_cells_is_not_interrupted_afterwards(interrupts: Interrupts) -> None:
    with interrupts.hold():
        press()
    assert not interrupts.pending
    with interrupts.raising():
        pass


def test_a_cell_that_awaits_is_cancelled_first_and_interrupted_next(interrupts: Interrupts) -> None:
    cancelled = []
    with interrupts.cancelling(lambda: cancelled.append(1)):
        press()
        assert cancelled == [1]
        with pytest.raises(KeyboardInterrupt):
            press()
    assert cancelled == [1]


def test_once_the_end_is_being_reported_nothing_is_raised(interrupts: Interrupts) -> None:
    with interrupts.raising(), interrupts.hold():
        press()
        interrupts.disarm()
    with interrupts.raising():
        interrupts.disarm()
        press()


def test_an_interrupt_of_one_cell_does_not_reach_the_next(interrupts: Interrupts) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.raising():
        press()
    with interrupts.raising():
        pass


def test_user_code_that_takes_the_signal_has_it_until_the_next_cell(interrupts: Interrupts) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    press()
    interrupts.install()
    with pytest.raises(KeyboardInterrupt), interrupts.raising():
        press()


def test_another_threads_line_does_not_put_it_off(interrupts: Interrupts) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with interrupts.hold():
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with pytest.raises(KeyboardInterrupt), interrupts.raising():
        press()
    release.set()
    thread.join()


def test_a_forked_child_has_pythons_usual_handler(interrupts: Interrupts) -> None:
    interrupts.release_in_child()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        press()
