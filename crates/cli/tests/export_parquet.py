"""The tables of a Parquet export, read by DuckDB and by pyarrow, against the JSON lines of the same
events: each row, each value. Prints what was compared, as JSON.

    export_parquet.py rows FOLDER LINES     every row and value of every table
    export_parquet.py sql FOLDER STATEMENT  DuckDB's answer; tables are called as `outlive sql` calls them
    export_parquet.py groups FOLDER         what a reader is told of row groups, and which it can skip
    export_parquet.py spark FOLDER          Spark's rows and answers over a fleet's folder against DuckDB's
"""

import json
import os
import sys
from collections import defaultdict

import duckdb
import pyarrow.dataset

OWN = ["events", "holes", "runs", "unknown"]
PARTITIONS = {"host", "boot", "run"}
COMMON = ["seq", "ts", "wall", "cpu", "pid", "task"]


def by_pyarrow(folder, table):
    dataset = pyarrow.dataset.dataset(os.path.join(folder, table), partitioning="hive")
    read = dataset.to_table()
    if "seq" in read.column_names:
        read = read.sort_by("seq")
    return read.to_pylist()


def files(folder, table):
    path = os.path.join(folder, table).replace("'", "''")
    return f"read_parquet('{path}/**/*.parquet', hive_partitioning = true)"


def connect():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def by_duckdb(folder, table):
    found = connect().execute(f"SELECT * FROM {files(folder, table)}")
    names = [column[0] for column in found.description]
    rows = [dict(zip(names, row)) for row in found.fetchall()]
    return sorted(rows, key=lambda row: row.get("seq", 0))


def plain(value):
    """A value as JSON has it."""
    if isinstance(value, bytes):
        return list(value)
    return value


def same(value, expected):
    if isinstance(expected, str) and expected.startswith("0x") and isinstance(value, int):
        return value == int(expected, 16)
    return plain(value) == expected and isinstance(value, bool) == isinstance(expected, bool)


def check(row, column, expected, what):
    value = row[column]
    if not same(value, expected):
        sys.exit(f"{what}: {column} is {value!r}, not {expected!r}, in {row}")


def lost(event):
    """-1 where nobody counted them."""
    if "lost_before" not in event:
        return None
    return -1 if event["lost_before"] is None else event["lost_before"]


def check_common(row, prefix, event, seq, what):
    name = lambda column: column if column in prefix else "common_" + column
    task = "<idle>" if event["pid"] == 0 else event["comm"]
    expected = {"seq": seq, "ts": event["ts"], "cpu": event["cpu"], "pid": event["pid"], "task": task}
    for column, value in expected.items():
        check(row, name(column), value, what)


def check_event(row, event, seq, what):
    columns = list(row)
    prefix = set(columns[: len(COMMON)])
    check_common(row, prefix, event, seq, what)
    own = [column for column in columns[len(COMMON) :] if column not in PARTITIONS]
    fields = event["fields"]
    if len(own) != len(fields):
        sys.exit(f"{what}: columns {own} for the fields {list(fields)}")
    for field, value in fields.items():
        check(row, field if field in own else field + "_", value, what)


def check_rows(folder, lines):
    with open(lines) as file:
        events = [json.loads(line) for line in file]
    expected = defaultdict(list)
    for seq, event in enumerate(events):
        key = f"{event['system']}.{event['event']}" if "event" in event else "unknown"
        expected[key].append((seq, event))
    tables = set(os.listdir(folder)) - set(OWN[:3])
    if tables != set(expected):
        sys.exit(f"tables {tables}, but events {set(expected)}")
    values = 0
    for reader in [by_pyarrow, by_duckdb]:
        rows = reader(folder, "events")
        times = [row["ts"] for row in rows]
        if len(rows) != len(events):
            sys.exit(f"{len(rows)} rows for {len(events)} events")
        for seq, (row, event) in enumerate(zip(rows, events)):
            check_common(row, set(COMMON), event, seq, "events")
            for column in ["system", "event", "flags", "preempt_count"]:
                # A record without a format has flags in JSON only: nobody knows that they are flags.
                if "event" in event:
                    check(row, column, event.get(column), "events")
            check(row, "lost_before", lost(event), "events")
            values += len(row)
        for table, of_table in expected.items():
            rows = reader(folder, table)
            if len(rows) != len(of_table):
                sys.exit(f"{table}: {len(rows)} rows for {len(of_table)} events")
            for row, (seq, event) in zip(rows, of_table):
                values += len(row)
                if table == "unknown":
                    check_common(row, set(COMMON), event, seq, table)
                    check(row, "id", event["id"], table)
                else:
                    check_event(row, event, seq, table)
    ends = {"first": min(times), "last": max(times)}
    return {"events": len(events), "tables": len(tables), "values": values, **ends}


def view_name(table):
    return table.split(".")[-1]


def sql(folder, statement):
    connection = connect()
    for table in os.listdir(folder):
        connection.execute(f'CREATE VIEW "{view_name(table)}" AS SELECT * FROM {files(folder, table)}')
    found = connection.execute(statement)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row)) for row in found.fetchall()]


def groups(folder):
    """The row groups of `events`: sorted as they say, their bounds right, and skipped by them."""
    dataset = pyarrow.dataset.dataset(os.path.join(folder, "events"), partitioning="hive")
    read, skipped, bounded = 0, 0, 0
    for fragment in dataset.get_fragments():
        metadata = fragment.metadata
        names = [metadata.schema.column(place).name for place in range(metadata.num_columns)]
        for number, group in enumerate(fragment.split_by_row_group()):
            read += 1
            rows = group.to_table()
            about = metadata.row_group(number)
            (sorting,) = about.sorting_columns
            assert names[sorting.column_index] == "seq" and not sorting.descending
            seqs = rows["seq"].to_pylist()
            assert seqs == sorted(seqs)
            for column in ("seq", "ts", "cpu", "event"):
                said, values = about.column(names.index(column)).statistics, rows[column].to_pylist()
                assert (said.min, said.max, said.null_count) == (min(values), max(values), 0), column
                bounded += 1
            last = pyarrow.dataset.field("ts") >= max(rows["ts"].to_pylist())
            skipped += len(fragment.split_by_row_group()) - len(fragment.split_by_row_group(last))
    return {"groups": read, "skipped": skipped, "bounds": bounded}


# Those of a fleet: the boot, or the machine, is one column more.
STATEMENTS = [
    "SELECT host, boot, run, count(*) AS n, min(ts) AS first, max(ts) AS last, sum(cpu) AS c, "
    "min(wall) AS w, count(lost_before) AS lost, sum(length(text)) AS t "
    "FROM events GROUP BY 1, 2, 3 ORDER BY 3",
    "SELECT run, event, count(*) AS n FROM events WHERE system IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT e.run, count(*) AS n, sum(s.next_pid) AS p FROM sched_switch s JOIN events e "
    "ON s.run = e.run AND s.seq = e.seq WHERE e.event = 'sched_switch' AND s.ts = e.ts "
    "GROUP BY 1 ORDER BY 1",
    "SELECT run, clock, events, written, overrun, is_whole FROM runs ORDER BY 1",
    "SELECT run, count(*) AS n, sum(lost) AS l FROM holes GROUP BY 1 ORDER BY 1",
]


def spark(folder):
    from pyspark.sql import SparkSession

    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local-cluster[2,1,1024]")
    for key, value in {
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.warehouse.dir": os.path.join(folder, ".warehouse"),
    }.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    tables = sorted(table for table in os.listdir(folder) if not table.startswith("."))
    rows = 0
    for table in tables:
        frame = session.read.parquet(os.path.join(folder, table))
        frame.createOrReplaceTempView(view_name(table))
        theirs = sorted((row.asDict() for row in frame.collect()), key=place)
        ours = sorted(by_duckdb(folder, table), key=place)
        if [comparable(row) for row in theirs] != [comparable(row) for row in ours]:
            sys.exit(f"{table}: Spark's rows are not DuckDB's")
        rows += len(theirs)
    for statement in STATEMENTS:
        theirs = [comparable(row.asDict()) for row in session.sql(statement).collect()]
        ours = [comparable(row) for row in sql(folder, statement)]
        if theirs != ours:
            sys.exit(f"{statement}\nSpark: {theirs}\nDuckDB: {ours}")
    executors = session.sparkContext._jsc.sc().getExecutorMemoryStatus().size() - 1
    session.stop()
    return {"tables": len(tables), "rows": rows, "executors": executors}


def place(row):
    return (row["run"], row.get("seq", 0), row.get("cpu", 0), row.get("before_ts") or 0)


def comparable(row):
    """Spark has texts for bytearrays, decimals for unsigned numbers, times without a zone."""

    def of(value):
        if isinstance(value, (bytes, bytearray)):
            return list(value)
        if isinstance(value, list):
            return [of(element) for element in value]
        if type(value).__name__ == "Decimal":
            return int(value)
        if type(value).__name__ == "datetime":
            return value.replace(tzinfo=None).isoformat()
        return value

    return {key: of(value) for key, value in row.items()}


if __name__ == "__main__":
    mode, arguments = sys.argv[1], sys.argv[2:]
    answer = {"rows": check_rows, "sql": sql, "groups": groups, "spark": spark}[mode](*arguments)
    print(json.dumps(answer))
