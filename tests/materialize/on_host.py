"""The command line as a host of another name runs it: on_host.py NAME ARGUMENTS."""

import socket
import sys

name = sys.argv.pop(1)
socket.gethostname = lambda: name

from headwater.cli.main import main  # noqa: E402

main()
