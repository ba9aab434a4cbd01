"""Tells a vmaudit around the session which test runs: by the name of its thread, and under `run --marks` by a mark."""

import collections
import ctypes
import hashlib
import os
import socket
import sys

import pytest

# include/uapi/linux/prctl.h
PR_SET_NAME = 15
PR_GET_NAME = 16
# include/linux/sched.h:TASK_COMM_LEN, less the NUL
BYTES = 15
# Of a mark's name
MARK_BYTES = 256
# Seconds to wait for an answer
PATIENCE = 5


def pytest_addoption(parser):
    group = parser.getgroup("vmaudit")
    group.addoption(
        "--vmaudit",
        action="store_true",
        help="name the thread that runs a test after it, for a vmaudit that runs around this session",
    )


def pytest_configure(config):
    if config.getoption("--vmaudit") and sys.platform == "linux":
        config.pluginmanager.register(Names(), "vmaudit-names")


def own_name(nodeid):
    """A test's name without its file, and without what all have."""
    name = nodeid.rpartition("::")[2]
    return name[5:] if name.startswith("test_") and len(name) > 5 else name


def names_of(nodeids):
    """A thread's name for each test, no two alike."""
    all_names = collections.Counter(own_name(nodeid) for nodeid in nodeids)
    names = {}
    for nodeid in nodeids:
        name = own_name(nodeid)
        raw = name.encode("utf-8", "replace")
        if len(raw) > BYTES or all_names[name] > 1:
            digest = hashlib.sha256(nodeid.encode("utf-8", "replace")).hexdigest()
            start = raw[: BYTES - 7].decode("utf-8", "ignore")
            name = start + "~" + digest[:6]
        names[nodeid] = name
    return names


class Marks:
    """The socket of `vmaudit run --marks`; without one, nothing."""

    def __init__(self):
        self.trouble = None
        self.socket = None
        path = os.environ.get("VMAUDIT_MARKS")
        if path:
            try:
                self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                # Without an address of its own there would be nobody to answer.
                self.socket.bind("")
                self.socket.connect(path)
                self.socket.settimeout(PATIENCE)
            except OSError as error:
                self.give_up(error)

    def give_up(self, why):
        self.trouble = str(why)
        self.socket = None

    def tell(self, what, nodeid):
        if self.socket is None:
            return
        name = nodeid.encode("utf-8", "replace")
        if len(name) > MARK_BYTES:
            # Not within a character: the session would read another name.
            start = name[: MARK_BYTES - 7].decode("utf-8", "ignore").encode()
            name = start + b"~" + hashlib.sha256(name).hexdigest()[:6].encode()
        try:
            self.socket.send(what + b" " + name)
            answer = self.socket.recv(1024)
        except OSError as error:
            if what == b"begin":
                # It may have been begun all the same. Nobody waits for this answer.
                try:
                    self.socket.send(b"end " + name, socket.MSG_DONTWAIT)
                except OSError:
                    pass
            self.give_up(error)
            return
        if answer != b"ok":
            self.trouble = answer.decode("utf-8", "replace")


class Names:
    def __init__(self):
        self.marks = Marks()
        self.prctl = ctypes.CDLL(None, use_errno=True).prctl
        self.names = {}

    def pytest_collection_modifyitems(self, items):
        self.names = names_of([item.nodeid for item in items])

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        before = ctypes.create_string_buffer(BYTES + 1)
        self.prctl(PR_GET_NAME, before, 0, 0, 0)
        name = self.names.get(item.nodeid, own_name(item.nodeid))
        self.prctl(PR_SET_NAME, name.encode("utf-8", "replace")[:BYTES], 0, 0, 0)
        self.marks.tell(b"begin", item.nodeid)
        yield
        self.marks.tell(b"end", item.nodeid)
        self.prctl(PR_SET_NAME, before.value, 0, 0, 0)

    def pytest_terminal_summary(self, terminalreporter):
        if self.marks.trouble:
            terminalreporter.write_line(f"vmaudit: not every test has its mark: {self.marks.trouble}")
        other = {name: nodeid for nodeid, name in self.names.items() if name != own_name(nodeid)}
        if other:
            terminalreporter.section("names for vmaudit")
            for name in sorted(other):
                terminalreporter.write_line(f"{name} is {other[name]}")
