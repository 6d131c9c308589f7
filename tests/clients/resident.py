"""The polyaxon program, imported once and forked for every command: a second of each would go into its imports.

    python resident.py DESCRIPTOR

Runs on the Python of a client's environment. An order is one byte on the socket of that number, and five descriptors
with it: a file with {"arguments", "folder", "environment"}, standard input, output and error, and a pipe for two lines:
the process id, and the exit code when there is one. It ends when the other end of the socket is closed.
"""

import gc
import json
import os
import signal
import socket
import sys

from polyaxon_cli.main import cli


def take_orders(door):
    """Return in a process made for one command, as if it had been started by a shell."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for the processes in between
    while True:
        message, descriptors, _, _ = socket.recv_fds(door, 1, 5)
        if not message:
            sys.exit()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            door.close()
            return become(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def become(order, stdin, stdout, stderr, answer):
    command = os.fork()
    if command:
        with open(answer, "w", buffering=1) as pipe:
            pipe.write(f"{command}\n")
            pipe.write(f"{os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])}\n")
        os._exit(0)
    with open(order) as file:
        given = json.load(file)
    os.close(answer)
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(given["folder"])
    os.environ.clear()
    os.environ.update(given["environment"])
    sys.argv = ["polyaxon", *given["arguments"]]


gc.freeze()  # what is there now is left alone, so that its memory stays shared
take_orders(socket.socket(fileno=int(sys.argv[1])))
sys.exit(cli())
