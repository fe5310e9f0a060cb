"""Read before csvi is imported by anything: under nohup, which ignores SIGHUP, tests hear it all the same."""

import signal

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)  # a hangup still ends no test; programs that tests start hear it
