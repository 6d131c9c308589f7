"""A program that is imported once and forked for each start, since its imports take longer than most commands.

    python fork_server.py DESCRIPTOR MODULE:FUNCTION [MODULE…]

It imports the modules, and then reads orders from the socket of that descriptor until its other end is closed. An
order is one byte with five descriptors: a file with {"program", "folder", "environment"}, standard input, output and
error, and a pipe. Two lines are written into the pipe: the process id at once, and the exit code at the end of the
program. "program" is a list of arguments: `-m NAME …` calls the function, and another first argument is the path of a
Python script. This file uses the standard library alone, so that any environment can run it.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time


def next_order(door):
    """Return the program's arguments, in a process made for it, as a shell would have started it."""
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
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
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
    time.tzset()
    return given["program"]


def main(descriptor, function, *modules):
    del sys.path[0]  # the folder of this file
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    for more in modules:
        importlib.import_module(more)
    gc.collect()
    gc.freeze()  # the garbage collection of a forked process would copy the memory that it shares
    program = next_order(socket.socket(fileno=int(descriptor)))
    if program[0] == "-m":
        sys.argv = program[1:]
        sys.exit(call())
    sys.argv = program
    sys.path.insert(0, os.path.dirname(program[0]))
    runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
