import signal

import pytest

from orthocond.training.signals import Interrupted, StopSignal


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_recorded_and_a_later_ctrl_c_interrupts(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with StopSignal().installed() as stop:
        signal.raise_signal(signum)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signum == signum
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signum) == before
    assert signum.name in str(Interrupted(signum))
