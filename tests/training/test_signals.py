import signal

import pytest

from orthocond.training.signals import Interrupted, StopSignal


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_remembered_and_a_ctrl_c_after_it_acts(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with StopSignal().installed() as stop:
        signal.raise_signal(signum)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signum == signum
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signum) == before
    assert signum.name in str(Interrupted(signum))
