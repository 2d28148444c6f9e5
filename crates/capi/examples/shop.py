"""A program in Python that records orders inside of a span, and then dies if it is told to.

    cargo xtask capi /usr/local
    python3 shop.py /usr/local/lib/liboutlive.so STATE 1000 die; outlive --state STATE show shop
"""

import ctypes
import os
import signal
import sys


class Options(ctypes.Structure):
    _fields_ = [
        ("type_size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("version", ctypes.c_char_p),
        ("state", ctypes.c_char_p),
        ("area", ctypes.c_char_p),
        ("command_line", ctypes.c_char_p),
        ("events", ctypes.POINTER(ctypes.c_char_p)),
        ("nr_events", ctypes.c_size_t),
        ("size_bytes", ctypes.c_uint64),
        ("keep", ctypes.c_uint32),
        ("no_overwrite", ctypes.c_uint32),
        ("reserved", ctypes.c_uint64 * 4),
    ]


class Field(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("type", ctypes.c_uint32), ("reserved", ctypes.c_uint32)]


class Data(ctypes.Union):
    _fields_ = [("u", ctypes.c_uint64), ("i", ctypes.c_int64), ("f", ctypes.c_double), ("bytes", ctypes.c_char_p)]


class Value(ctypes.Structure):
    _fields_ = [("type", ctypes.c_uint32), ("len", ctypes.c_uint32), ("data", Data)]


class Span(ctypes.Structure):
    _fields_ = [("id", ctypes.c_uint64), ("parent", ctypes.c_uint64)]


U64, F64, TEXT = 4, 11, 12


def value(type_, what):
    if type_ == TEXT:
        what = what.encode()
        return Value(type_, len(what), Data(bytes=what))
    return Value(type_, 0, Data(f=what) if type_ == F64 else Data(u=what))


class Outlive:
    def __init__(self, library):
        self.lib = ctypes.CDLL(library)
        self.lib.outlive_error_message.restype = ctypes.c_char_p
        self.lib.outlive_status_text.restype = ctypes.c_char_p
        self.lib.outlive_previous_path.restype = ctypes.c_char_p
        self.lib.outlive_previous_verdict.restype = ctypes.c_uint32
        self.recorder = ctypes.c_void_p()

    def call(self, function, *arguments):
        error = ctypes.c_void_p()
        if function(*arguments, ctypes.byref(error)):
            message = self.lib.outlive_error_message(error).decode()
            self.lib.outlive_error_free(ctypes.byref(error))
            raise RuntimeError(message)

    def start(self, name, state):
        options = Options(ctypes.sizeof(Options), name.encode(), state=state.encode(), area=b"file")
        self.call(self.lib.outlive_recorder_start, ctypes.byref(options), ctypes.byref(self.recorder))
        return self.lib.outlive_previous_verdict(self.recorder), self.lib.outlive_previous_path(self.recorder)

    def declare(self, function, system, name, **fields):
        event = ctypes.c_void_p()
        array = (Field * len(fields))(*(Field(key.encode(), type_) for key, type_ in fields.items()))
        names = system.encode(), name.encode()
        self.call(function, *names, array, ctypes.c_size_t(len(fields)), ctypes.byref(event))
        return event, list(fields.values())

    def record(self, declared, *values):
        event, types = declared
        array = (Value * len(values))(*map(value, types, values))
        self.check(self.lib.outlive_record(event, array, ctypes.c_size_t(len(values))))

    def begin(self, declared, *values):
        (event, types), span = declared, Span()
        array = (Value * len(values))(*map(value, types, values))
        count = ctypes.c_size_t(len(values))
        self.check(self.lib.outlive_span_begin(event, array, count, ctypes.byref(span)))
        return span

    def end(self, span):
        self.check(self.lib.outlive_span_end(ctypes.byref(span)))

    def check(self, status):
        if status:
            raise RuntimeError(self.lib.outlive_status_text(status).decode())

    def close(self):
        self.lib.outlive_recorder_close(ctypes.byref(self.recorder))


def main(library, state, orders, *die):
    outlive = Outlive(library)
    verdict, path = outlive.start("shop", state)
    print(f"previous: {verdict} {path.decode() if path else 'none'}")
    order = outlive.declare(outlive.lib.outlive_event_declare, "shop", "order", id=U64, customer=TEXT, price=F64)
    day = outlive.declare(outlive.lib.outlive_span_declare, "shop", "open", weekday=TEXT)
    span = outlive.begin(day, "Monday")
    for number in range(1, int(orders) + 1):
        outlive.record(order, number, "Ada", number * 0.25)
    sys.stdout.flush()
    if die:  # No code runs from here on.
        os.kill(os.getpid(), signal.SIGKILL)
    outlive.end(span)
    outlive.close()


main(*sys.argv[1:])
