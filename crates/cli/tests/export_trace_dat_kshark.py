"""Prints the events of a trace.dat as KernelShark's library reads them, in the order of time.

usage: export_trace_dat_kshark.py FILE; a line each: TASK-PID [CPU] SECONDS.NANOSECONDS: NAME: TEXT
"""

import ctypes
import sys


class Entry(ctypes.Structure):
    """struct kshark_entry (libkshark.h, libkshark 2)."""

    _fields_ = [
        ("next", ctypes.c_void_p),
        ("visible", ctypes.c_uint16),
        ("stream_id", ctypes.c_int16),
        ("event_id", ctypes.c_int16),
        ("cpu", ctypes.c_int16),
        ("pid", ctypes.c_int32),
        ("offset", ctypes.c_int64),
        ("ts", ctypes.c_int64),
    ]


def library():
    kshark = ctypes.CDLL("libkshark.so.2")
    kshark.kshark_load_entries.restype = ctypes.c_ssize_t
    for text in (kshark.kshark_get_event_name, kshark.kshark_get_task, kshark.kshark_get_info):
        text.argtypes = [ctypes.POINTER(Entry)]
        text.restype = ctypes.c_char_p
    return kshark


def entries(kshark, path):
    context = ctypes.c_void_p()
    if not kshark.kshark_instance(ctypes.byref(context)):
        sys.exit("no context")
    stream = kshark.kshark_open(context, path.encode())
    if stream < 0:
        sys.exit(f"{path} cannot be opened: {stream}")
    rows = ctypes.POINTER(ctypes.POINTER(Entry))()
    count = kshark.kshark_load_entries(context, stream, ctypes.byref(rows))
    if count < 0:
        sys.exit(f"{path} cannot be read: {count}")
    return (rows[i] for i in range(count))


def main():
    kshark = library()
    for row in entries(kshark, sys.argv[1]):
        entry = row.contents
        if entry.event_id < 0:
            # The library's own mark of missed events.
            continue
        task, name, text = (
            get(row).decode(errors="replace")
            for get in (kshark.kshark_get_task, kshark.kshark_get_event_name, kshark.kshark_get_info)
        )
        seconds, nanos = divmod(entry.ts, 10**9)
        name = name.split("/")[-1]
        print(f"{task}-{entry.pid} [{entry.cpu:03}] {seconds}.{nanos:09}: {name}: {text}")


if __name__ == "__main__":
    main()
