"""Compares a CTF trace with the JSON lines of the same events.

usage: export_ctf.py FOLDER JSON_LINES; prints what was compared as one JSON object. CTF 1.8 is read by
babeltrace2's library, CTF 2, which that does not read before 2.1, by a small reader below that knows
nothing but the metadata.
"""

import json
import os
import struct
import sys
from collections import defaultdict


def read_babeltrace(folder):
    """Yields (buffer, time in cycles, name, context, fields, time in ns since 1970 or the clock's zero), or
    (buffer, discarded events)."""
    import bt2

    for message in bt2.TraceCollectionMessageIterator(folder):
        if type(message) is bt2._EventMessageConst:
            event = message.event
            buffer = event.packet.context_field
            buffer = int(buffer["lane"] if "lane" in buffer else buffer["cpu_id"])
            context = plain(event.common_context_field)
            fields = plain(event.payload_field)
            clock = message.default_clock_snapshot
            yield buffer, clock.value, event.name, context, fields, clock.ns_from_origin
        elif type(message) is bt2._DiscardedEventsMessageConst:
            yield message.stream.id, message.count


def plain(field):
    """A field as JSON has it."""
    import bt2

    if field is None:
        return {}
    if isinstance(field, bt2._StructureFieldConst):
        return {name: plain(member) for name, member in field.items()}
    if isinstance(field, bt2._ArrayFieldConst):
        return [plain(element) for element in field]
    if isinstance(field, bt2._IntegerFieldConst):
        return int(field)
    return float(field) if isinstance(field, bt2._RealFieldConst) else str(field)


class Ctf2:
    """A reader of the field classes that the metadata may use here."""

    FLOATS = {32: "<f", 64: "<d"}

    def __init__(self, folder):
        with open(os.path.join(folder, "metadata"), "rb") as file:
            records = file.read().split(b"\x1e")
        assert records[0] == b""
        self.fragments = [json.loads(record) for record in records[1:]]
        assert self.fragments[0]["type"] == "preamble" and self.fragments[0]["version"] == 2
        self.trace = self.only("trace-class")
        clock = self.only("clock-class")
        offset = clock.get("offset-from-origin", {})
        self.frequency, self.offset = clock["frequency"], (offset.get("seconds", 0), offset.get("cycles", 0))
        self.streams = {f["id"]: f for f in self.fragments if f["type"] == "data-stream-class"}
        assert all(s["default-clock-class-id"] == clock["id"] for s in self.streams.values())
        events = [f for f in self.fragments if f["type"] == "event-record-class"]
        self.events = {(e["data-stream-class-id"], e["id"]): e for e in events}

    def only(self, kind):
        (fragment,) = [f for f in self.fragments if f["type"] == kind]
        return fragment

    def ns(self, cycles):
        seconds, offset = self.offset
        return seconds * 10**9 + (offset + cycles) * 10**9 // self.frequency

    def structure(self, field_class):
        """The members' values, and the values of the members with roles."""
        values, roles = {}, {}
        for member in field_class["member-classes"]:
            inner = member["field-class"]
            value = self.value(inner, values)
            values[member["name"]] = value
            roles.update({role: value for role in inner.get("roles", [])})
        return values, roles

    def take(self, size):
        self.at += size
        assert self.at <= len(self.data)
        return self.data[self.at - size : self.at]

    def value(self, field_class, before):
        kind = field_class["type"]
        if kind == "null-terminated-string":
            end = self.data.index(b"\0", self.at)
            text = self.take(end - self.at).decode()
            self.at += 1
            return text
        if kind in ("static-length-array", "dynamic-length-array"):
            length = field_class.get("length")
            if length is None:
                location = field_class["length-field-location"]
                assert location["origin"] == "event-record-payload"
                length = before[location["path"][0]]
            return [self.value(field_class["element-field-class"], before) for _ in range(length)]
        assert field_class["byte-order"] == "little-endian" and field_class["alignment"] == 8
        data = self.take(field_class["length"] // 8)
        if kind == "fixed-length-floating-point-number":
            return struct.unpack(self.FLOATS[field_class["length"]], data)[0]
        assert kind in ("fixed-length-signed-integer", "fixed-length-unsigned-integer"), kind
        return int.from_bytes(data, "little", signed=kind == "fixed-length-signed-integer")

    def packets(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.at, counted, number = 0, None, 0
        while self.at < len(self.data):
            start = self.at
            header = self.structure(self.trace["packet-header-field-class"])[1]
            assert header["packet-magic-number"] == 0xC1FC1FC1
            stream = header["data-stream-class-id"]
            field_class = self.streams[stream]["packet-context-field-class"]
            context = self.structure(field_class)[1]
            assert context["packet-sequence-number"] == number
            number += 1
            discarded = context["discarded-event-record-counter-snapshot"]
            if counted is not None and discarded > counted:
                yield header["data-stream-id"], discarded - counted
            counted = discarded
            end = start + context["packet-total-length"] // 8
            times = []
            while self.at < start + context["packet-content-length"] // 8:
                time, event = self.event(stream)
                times.append(time)
                yield header["data-stream-id"], time, *event, self.ns(time)
            assert self.at == end
            assert times[0] == context["default-clock-timestamp"]
            assert times[-1] == context["packet-end-default-clock-timestamp"]

    def event(self, stream):
        classes = self.streams[stream]
        header = self.structure(classes["event-record-header-field-class"])[1]
        context = self.structure(classes["event-record-common-context-field-class"])[0]
        event = self.events[stream, header["event-record-class-id"]]
        fields = self.structure(event["payload-field-class"])[0]
        return header["default-clock-timestamp"], (event["name"], context, fields)


def read_ctf2(folder):
    reader = Ctf2(folder)
    for name in sorted(os.listdir(folder)):
        if name != "metadata":
            yield from reader.packets(os.path.join(folder, name))


def same(got, expected, bits=64):
    if isinstance(got, str) or isinstance(expected, (list, float)):
        return got == expected
    return got == (int(expected, 16) if isinstance(expected, str) else int(expected))


def time_of(expected):
    """Of several regions their common time."""
    return expected.get("time", expected["ts"])


def name_of(expected):
    return f"{expected['system']}:{expected['event']}" if "fields" in expected else f"unknown:{expected['id']}"


def check(event, expected, cpu):
    time, name, context, fields, _ = event
    assert time == time_of(expected), (time, expected)
    assert context["common_pid"] == expected["pid"], expected
    unknown = "<idle>" if expected["pid"] == 0 else "<...>"
    assert context["comm"] == (expected["comm"] or unknown), expected
    assert cpu == expected["cpu"], (cpu, expected)
    if "flags" in expected:
        assert context["common_flags"] == expected["flags"], expected
        assert context["common_preempt_count"] == expected["preempt_count"], expected
    assert name == name_of(expected), expected
    if "fields" not in expected:
        return
    for field, value in expected["fields"].items():
        got = fields.pop(field)
        if isinstance(got, list):
            assert fields.pop(field + "_length", len(got)) == len(got)
        assert same(got, value), (field, got, expected)
    assert not fields, (fields, expected)


def main():
    folder = sys.argv[1]
    with open(sys.argv[2], encoding="utf-8") as file:
        expected = [json.loads(line) for line in file]
    with open(os.path.join(folder, "metadata"), "rb") as file:
        is_ctf2 = file.read(1) == b"\x1e"
    events, discarded = defaultdict(list), 0
    for buffer, *event in read_ctf2(folder) if is_ctf2 else read_babeltrace(folder):
        if len(event) == 1:
            discarded += event[0]
            continue
        cpu = event[2].get("common_cpu", buffer)
        events[cpu].append(event)
    # A program's lanes are not CPUs: put each CPU's events in the order of time.
    by_cpu = defaultdict(list)
    for line in expected:
        by_cpu[line["cpu"]].append(line)
    assert {cpu: len(e) for cpu, e in events.items()} == {cpu: len(e) for cpu, e in by_cpu.items()}
    for cpu, lines in by_cpu.items():
        ordered = sorted(lines, key=lambda line: (time_of(line), name_of(line)))
        for event, line in zip(sorted(events[cpu], key=lambda event: event[:2]), ordered):
            check(event, line, cpu)
    is_program = any("flags" not in line for line in expected)
    # What is missing before the first event of a stream is no gap in it.
    lost = [(l["lost_before"] or 1) for lines in by_cpu.values() for l in lines[1:] if "lost_before" in l]
    assert is_program or discarded == sum(lost), (discarded, lost)
    times = [event[0] for some in events.values() for event in some]
    first_ns = min(event[4] for some in events.values() for event in some)
    said = {"events": len(times), "discarded": discarded, "first": min(times), "last": max(times)}
    print(json.dumps({**said, "first_ns": first_ns}))


main()
